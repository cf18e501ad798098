"""Turns of a user's own sessions: every kind of value is read rightly or the turn is rejected with a reason."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.sessions.parse_turn import (
    BAD_BOOLEAN,
    BAD_NUMBER,
    BAD_SLOTS,
    BAD_TEXT,
    BAD_TIME,
    BAD_TURN,
    NO_SESSION,
    NO_TEXT,
    ParseTurn,
    TurnSettings,
    seconds,
)
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.shards.errors import RejectRecord

TURN: dict[str, Any] = {"session": "s1", "text": "Play Blue River"}


def parsed(turn: object, **settings: Any) -> dict[str, Any]:
    raw = turn if isinstance(turn, str) else json.dumps(turn)
    batch = pa.table({"id": ["1"], "raw": [raw], "problem": pa.array([None], pa.string())})
    (row,) = ParseTurn(TurnSettings(**settings))(batch).to_pylist()
    return row


def test_a_turn_is_read_under_the_users_names_with_its_slots_at_their_places() -> None:
    turn = {
        "conv": 12,
        "n": "3",
        "heard": "play blue river",
        "slots": [{"name": "title", "value": "Blue River"}, {"name": "service", "value": "radio"}],
        "domain": "music",
        "intent": "play",
        "ok": "yes",
        "time": "2024-05-01T12:00:00+02:00",
        "who": "ann",
    }
    names = {"session": "conv", "turn": "n", "asr_text": "heard", "succeeded": "ok", "user": "who"}
    row = parsed(turn, fields=names)
    assert row["reject_reason"] is None
    assert (row["session"], row["turn"], row["succeeded"], row["time"]) == ("12", 3, True, 1714557600.0)
    assert row["tokens"] == ["play", "blue", "river"]
    assert row["text"] is None
    assert [(slot["name"], slot["start"], slot["end"]) for slot in row["slots"]] == [
        ("title", 1, 3),
        ("service", None, None),
    ]
    assert "ann" not in json.dumps(row)
    assert len(row["user"]) == 16


def test_users_are_told_apart_and_hashed_by_the_salt() -> None:
    one, other = parsed(TURN | {"user": "ann"}), parsed(TURN | {"user": "bob"})
    salted = parsed(TURN | {"user": "ann"}, salt="s")
    assert len({one["user"], other["user"], salted["user"]}) == 3
    assert one["user"] == parsed(TURN | {"user": "ann"})["user"]


def test_of_equal_values_each_slot_takes_words_of_its_own() -> None:
    slots = [["from", "berlin"], ["to", "berlin"]]
    row = parsed({"session": "s", "text": "berlin to berlin", "slots": slots})
    assert [slot["start"] for slot in row["slots"]] == [0, 2]


@pytest.mark.parametrize(
    ("turn", "reason"),
    [
        ("{", NO_OBJECT),
        ("[1]", NO_OBJECT),
        ({"text": "hi"}, NO_SESSION),
        ({"session": "", "text": "hi"}, NO_SESSION),
        ({"session": "s"}, NO_TEXT),
        ({"session": "s", "text": " \u200b "}, NO_TEXT),
        (TURN | {"session": ["s"]}, NO_OBJECT),
        (TURN | {"turn": "second"}, BAD_TURN),
        (TURN | {"turn": 1e300}, BAD_TURN),
        (TURN | {"turn": True}, BAD_TURN),
        (TURN | {"turn": -5}, BAD_TURN),
        (TURN | {"text": 5}, BAD_TEXT),
        (TURN | {"asr_text": ["x"]}, BAD_TEXT),
        (TURN | {"time": 1e30}, BAD_TIME),
        (TURN | {"time": "noon"}, BAD_TIME),
        (TURN | {"time": [1]}, BAD_TIME),
        (TURN | {"slots": "x"}, BAD_SLOTS),
        (TURN | {"slots": [{"value": "x"}]}, BAD_SLOTS),
        (TURN | {"slots": [["title", []]]}, BAD_SLOTS),
        (TURN | {"score": "high"}, BAD_NUMBER),
        (TURN | {"score": 97}, BAD_NUMBER),
        (TURN | {"score": -0.1}, BAD_NUMBER),
        (TURN | {"time": -5}, BAD_TIME),
        ('{"session": 1e400, "text": "x"}', NO_OBJECT),
        (TURN | {"slots": "{"}, BAD_SLOTS),
        (TURN | {"succeeded": "maybe"}, BAD_BOOLEAN),
    ],
)
def test_what_does_not_parse_is_a_reject_with_its_reason(turn: object, reason: str) -> None:
    assert parsed(turn)["reject_reason"] == reason


@pytest.mark.parametrize("value", [None, "", float("nan")])
def test_a_time_that_is_not_there_is_unknown(value: object) -> None:
    assert seconds(value) is None


def test_a_time_without_a_zone_is_utc_and_infinity_is_none() -> None:
    assert seconds("1970-01-01 00:01:00") == 60.0
    with pytest.raises(RejectRecord):
        seconds("inf")


@pytest.mark.parametrize("slots", ['{"title": "blue river"}', {"title": "blue river", "area": None}])
def test_slots_of_tables_are_json_or_have_nulls(slots: object) -> None:
    row = parsed({"session": "s", "text": "play blue river", "slots": slots})
    assert row["slots"] == [{"name": "title", "value": "blue river", "start": 1, "end": 3}]


def test_numbers_of_tables_with_nulls_are_whole() -> None:
    row = parsed(TURN | {"session": 7.0, "user": 7.0})
    assert (row["session"], row["user"]) == ("7", parsed(TURN | {"user": 7})["user"])
    assert seconds(1_700_000_000_000_000) == seconds(1_700_000_000_000_000_000) == 1_700_000_000
