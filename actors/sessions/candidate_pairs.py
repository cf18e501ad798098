"""Reducers over sessions: each turn with what follows it, and the pairs of turns that may be two attempts at the
same. Turns are there once (:mod:`gristmill.actors.sessions.turns`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pyarrow as pa

from gristmill.models.sessions.pairs import WindowSettings, candidate_pairs, followed, seconds_between
from gristmill.shards.errors import RejectRecord
from gristmill.shards.reducers import Reducer
from gristmill.shards.schema import SLOT, TRUTH_FIELDS, TURN_FIELDS
from gristmill.shards.settings import Settings

NEXT = "next_"
NO_PAIR = "session: no pair of turns in the window"
SECONDS = pa.field("seconds", pa.float64())
FRICTION = pa.field("friction", pa.float64())
_READING = ("tokens", "domain", "intent", "slots")
_FIRST = ("session", "turn", "user", "lang", *_READING, FRICTION.name)  # of the earlier turn
TRUTH = tuple(field.name for field in TRUTH_FIELDS)
_TYPES = {field.name: field.type for field in (*TURN_FIELDS, FRICTION)} | {"slots": pa.list_(SLOT)}


class FollowedSettings(Settings):
    """The columns of turns that are kept."""

    keeps: tuple[str, ...]
    """Columns beside ``id``."""


class FollowedTurns(Reducer):
    """Adds the reading of the next turn of the session (``next_...``) and the ``seconds`` to it, null after the last.

    Sessions may be of any size.
    """

    columns = ("id", "time")
    order = ("turn",)
    adds = (*(pa.field(NEXT + name, _TYPES[name]) for name in _READING), SECONDS)
    settings: FollowedSettings

    @classmethod
    def contract(cls, settings: FollowedSettings) -> Mapping[str, Any]:
        """Return the columns that are kept."""
        return {"keeps": settings.keeps}

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterable[Mapping[str, Any]]:
        """Yield the turns of a session."""
        for turn, after in followed(_rows(tables)):
            row = {key: turn[key] for key in ("id", *self.settings.keeps)}
            if after is not None:
                row |= {NEXT + key: after.get(key) for key in _READING}
                row[NEXT + "tokens"] = after["tokens"] or []
                row[SECONDS.name] = seconds_between(turn, after)
            yield row


class PairingSettings(WindowSettings):
    """The window, and whether truth is known."""

    truth: bool = False
    """Whether the truth of both turns is kept, for scoring."""


class CandidatePairs(Reducer):
    """Makes the pairs of turns of a session that are in a window: the earlier turn's columns, the later one's
    (``next_...``), and the ``seconds`` between them.

    Sessions may be of any size; one without a pair is rejected.
    """

    order = ("turn",)
    settings: PairingSettings

    @classmethod
    def contract(cls, settings: PairingSettings) -> Mapping[str, Any]:
        """Return the columns that are read and added."""
        truth = list(TRUTH_FIELDS) if settings.truth else []
        own = [pa.field(name, _TYPES[name]) for name in _FIRST]
        later = [pa.field(NEXT + name, _TYPES[name]) for name in ("id", *_READING, FRICTION.name)]
        later += [pa.field(NEXT + name, field.type) for field in truth if (name := field.name) in ("meaning", "failed")]
        return {
            "columns": ("id", "time", "rewritten", *_FIRST, *(field.name for field in truth)),
            "adds": (*own, *truth, *later, SECONDS),
        }

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterable[Mapping[str, Any]]:
        """Yield the pairs of a session."""
        truth, none = TRUTH if self.settings.truth else (), True
        for away, earlier, later in candidate_pairs(_rows(tables), self.settings):
            row = {key: earlier[key] for key in (*_FIRST, *truth)}
            row |= {NEXT + key: later[key] for key in ("id", *_READING, FRICTION.name)}
            row |= {NEXT + key: later[key] for key in truth if key in ("meaning", "failed")}
            yield row | {"id": f"{earlier['id']}>{away}", SECONDS.name: seconds_between(earlier, later)}
            none = False
        if none:
            raise RejectRecord(NO_PAIR)


def _rows(tables: Iterator[pa.Table]) -> Iterator[Mapping[str, Any]]:
    for table in tables:
        yield from table.to_pylist()
