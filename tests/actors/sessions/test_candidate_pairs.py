"""Reducers over sessions: a session in several tables gives what it gives in one, and nothing is paired twice."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.sessions.candidate_pairs import (
    FRICTION,
    NO_PAIR,
    CandidatePairs,
    FollowedSettings,
    FollowedTurns,
    PairingSettings,
)
from gristmill.actors.sessions.outcomes import Outcomes
from gristmill.actors.sessions.pair_models import LOG_ODDS
from gristmill.actors.sessions.projecting import Agreed, AgreementSettings
from gristmill.shards.errors import RejectRecord
from gristmill.shards.reducers import Reducer
from gristmill.shards.schema import SLOT, TURN_FIELDS

SCHEMA = pa.schema([*TURN_FIELDS, FRICTION])


def session(count: int, **more: Any) -> pa.Table:
    rows = [
        {"id": f"s/{n}", "session": "s", "turn": n, "time": 10.0 * n, "tokens": [f"w{n}"], "intent": f"i{n}", **more}
        for n in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def pieces(table: pa.Table, rows: int) -> Iterator[pa.Table]:
    return (table.slice(start, rows) for start in range(0, table.num_rows, rows))


def grouped(reducer: Reducer, table: pa.Table, rows: int = 1000) -> list[dict[str, Any]]:
    return [dict(row) for row in reducer.group("s", pieces(table, rows))]


@pytest.mark.parametrize(
    "reducer",
    [FollowedTurns(FollowedSettings(keeps=("session", "turn", "tokens"))), CandidatePairs(PairingSettings())],
    ids=["followed", "pairs"],
)
def test_a_large_session_in_pieces_gives_what_it_gives_whole(reducer: Reducer) -> None:
    assert grouped(reducer, session(50), rows=7) == grouped(reducer, session(50))


def test_a_turn_has_the_reading_of_the_next_one_and_the_last_has_none() -> None:
    made = grouped(FollowedTurns(FollowedSettings(keeps=("turn",))), session(2))
    assert made[0] == {
        "id": "s/0",
        "turn": 0,
        "next_tokens": ["w1"],
        "next_domain": None,
        "next_intent": "i1",
        "next_slots": None,
        "seconds": 10.0,
    }
    assert made[1] == {"id": "s/1", "turn": 1}


def test_a_session_without_a_pair_is_rejected() -> None:
    reducer = CandidatePairs(PairingSettings(seconds=5))
    with pytest.raises(RejectRecord, match=NO_PAIR):
        grouped(reducer, session(3))


def test_outcomes_are_counted_of_each_utterance_and_of_all_with_the_reading() -> None:
    table = pa.table({"read_so": ["a", "b", "a"], LOG_ODDS.name: [1.0, -1.0, 2.0], "succeeded": [True, None, False]})
    first, second = grouped(Outcomes(Outcomes.settings_type()()), table)
    assert [first[name] for name in ("read_so", "said_turns", "said_worked", "said_failed")] == ["a", 2, 1, 1]
    assert [second[name] for name in ("read_so", "said_turns", "said_worked", "said_failed")] == ["b", 1, 0, 0]
    assert first["meant_turns"] == second["meant_turns"] == 3
    assert first["meant_log_odds"] == pytest.approx(2.0)


def projections(*given: tuple[str | None, str, float], understood: float = 0.0) -> pa.Table:
    rows = [
        {
            "session": f"s{n}",
            "user": user,
            "lang": "en",
            "tokens": ["lights"],
            "next_domain": "light",
            "next_intent": intent,
            "projected_slots": [],
            "confidence": confidence,
            "read": 4,
            "understood": understood,
        }
        for n, (user, intent, confidence) in enumerate(given)
    ]
    fields = {name: pa.string() for name in ("session", "user", "lang", "next_domain", "next_intent")}
    fields |= {"tokens": pa.list_(pa.string()), "projected_slots": pa.list_(SLOT), "confidence": pa.float32()}
    return pa.Table.from_pylist(rows, schema=pa.schema({**fields, "read": pa.int64(), "understood": pa.float64()}))


def test_users_count_once_and_sessions_where_users_are_not_known() -> None:
    agreed = Agreed(AgreementSettings())
    (made,) = grouped(agreed, projections(("a", "on", 0.9), ("a", "on", 0.7), ("b", "on", 0.8)))
    assert (made["support"], made["agreement"], made["intent"]) == (2, 1.0, "on")
    assert made["confidence"] == pytest.approx(0.8)
    (made,) = grouped(agreed, projections((None, "on", 0.9), (None, "on", 0.9)))
    assert made["support"] == 2


@pytest.mark.parametrize(
    ("table", "settings", "reason"),
    [
        (projections(("a", "on", 0.9)), {"support": 2}, "too few users"),
        (projections(("a", "on", 0.9), ("b", "off", 0.9)), {}, "users disagree"),
        (projections(("a", "on", 0.2)), {}, "not certain enough"),
        (projections(("a", "on", 0.9), understood=3.0), {}, "its own interpretation succeeds"),
    ],
)
def test_an_utterance_of_which_a_label_is_in_doubt_is_rejected(
    table: pa.Table, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(RejectRecord, match=reason):
        grouped(Agreed(AgreementSettings(**settings)), table)
