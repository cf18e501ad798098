"""Invented sessions in which some requests fail, are rephrased, and then succeed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.shards.schema import TRUTH_FIELDS, TURN_FIELDS

SCHEMA = pa.schema([*TURN_FIELDS, *TRUTH_FIELDS])


def turn(session: str, number: int, read: str, meant: str, *, succeeded: bool | None, **given: Any) -> dict[str, Any]:
    """Return a turn that asks for a song."""

    def slots(value: str) -> list[dict[str, Any]]:
        return [{"name": "song", "value": value, "start": 1, "end": 2}]

    row = {"id": f"{session}-{number}", "session": session, "turn": number, "time": 10.0 * number, "user": session}
    row |= {"asr_text": f"play {read}", "domain": "music", "intent": "play", "slots": slots(read)}
    row |= {"succeeded": succeeded, "true_domain": "music", "true_intent": "play", "true_slots": slots(meant)}
    return row | given


def sessions(number: int, seed: int = 0, songs: int = 6) -> list[dict[str, Any]]:
    """Return turns of so many sessions: corruptions of songs fail, and some users try again, some something else."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(number):
        meant = int(rng.integers(songs))
        for step in range(4):
            draw = rng.random()
            read = f"song {meant}" if draw < 0.5 else f"sung {meant} {int(rng.integers(2))}"
            read = f"mine {n}" if draw > 0.95 else read
            ok = read == f"song {meant}"
            rows.append(turn(f"s{n:04d}", step, read, f"song {meant}", succeeded=ok))
            if ok or rng.random() < 0.3:
                break
            meant = int(rng.integers(songs)) if rng.random() < 0.1 else meant
    return rows


def table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return turns as a table."""
    return pa.Table.from_pylist(rows, SCHEMA)
