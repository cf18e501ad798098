"""Simulated sessions: what is said and whether it failed is of the bank, and a session depends on itself alone."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.sessions.bank import UTTERANCES
from gristmill.actors.sessions.recordings import NO_ANSWER, AnswerSettings, ParseRecording
from gristmill.actors.sessions.simulate import Simulate, SimulationSettings, goal_of, planted
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom

GOALS = ("alarm", "music", "lights", "weather")


def utterance(domain: str, number: int, failed: bool) -> dict[str, Any]:
    text = f"{domain} wording {number}"
    read = {"domain": "weather" if failed else domain, "intent": "do", "slots": []}
    truth = {"true_domain": domain, "true_intent": "do", "true_slots": [], "failed": failed}
    said = {"text": text, "asr_text": text, "tokens": text.split(), "lang": "en", "score": 0.5, "alternatives": []}
    return {"id": f"{domain}/{number}", **said, **read, **truth}


def bank(tmp_path: Path, rows: list[dict[str, Any]] | None = None) -> SealedSet:
    schema = pa.schema([("id", pa.string()), ("meaning", pa.string()), UTTERANCES])
    if rows is None:
        rows = [
            {
                "id": domain,
                "meaning": f"{domain}/do()",
                "utterances": [utterance(domain, n, n == 0) for n in range(4)],
            }
            for domain in GOALS
        ]
    return Run(str(tmp_path / "bank"), InProcessRunner()).table("bank", pa.Table.from_pylist(rows, schema=schema))


def sessions(tmp_path: Path, numbers: list[int], **settings: Any) -> list[dict[str, Any]]:
    made = bank(tmp_path)
    actor = Simulate(SimulationSettings(**settings), RecordRandom(3, "simulate"), bank=made.url)
    given = pa.table({"id": [f"s{n}" for n in numbers], "number": numbers})
    return actor(given).to_pylist()


def test_a_session_is_the_same_beside_any_others(tmp_path: Path) -> None:
    alone = sessions(tmp_path, [7])
    beside = [row for row in sessions(tmp_path, [3, 7, 9]) if row["session"] == "s7"]
    assert alone == beside
    assert [row["turn"] for row in alone] == list(range(len(alone)))


def test_a_failure_is_followed_by_other_words_of_the_same_meaning(tmp_path: Path) -> None:
    rows = sessions(tmp_path, list(range(300)), poison=0, retry=1.0, follow=0)
    roles = Counter(row["role"] for row in rows)
    assert roles["rephrase"] == sum(row["failed"] for row in rows) > 20
    assert not roles["poison"]
    for before, row in itertools.pairwise(rows):
        if row["role"] == "rephrase":
            assert before["failed"]
            assert before["meaning"] == row["meaning"]
            assert before["tokens"] != row["tokens"]
            assert row["time"] > before["time"]
            assert before["session"] == row["session"]


def test_in_poisoned_sessions_it_is_followed_by_anything(tmp_path: Path) -> None:
    rows = sessions(tmp_path, list(range(300)), poison=1.0, retry=1.0, follow=0)
    roles = Counter(row["role"] for row in rows)
    assert roles["poison"] > 20
    assert not roles["rephrase"]
    pairs = [(a, b) for a, b in itertools.pairwise(rows) if b["role"] == "poison"]
    assert all(a["failed"] for a, _ in pairs)
    assert len({b["meaning"] for _, b in pairs}) > 1


def test_planted_goals_follow_each_other(tmp_path: Path) -> None:
    rows = sessions(tmp_path, list(range(400)), follow=1.0, follow_ups=1, goals=3)
    ((first, second),) = planted(sorted((goal, "do") for goal in GOALS), 1)
    follows = [row for row in rows if row["role"] == "follow_up"]
    assert len(follows) > 20
    assert {goal_of(row) for row in follows} == {second} != {first}


def test_outcomes_are_known_of_a_share_and_mostly_true(tmp_path: Path) -> None:
    rows = sessions(tmp_path, list(range(600)), known=0.5, mistaken=0.1)
    known = [row for row in rows if row["succeeded"] is not None]
    assert 0.4 < len(known) / len(rows) < 0.6
    assert 0.04 < sum(row["succeeded"] == row["failed"] for row in known) / len(known) < 0.17
    later = {row["session"] for row in rows if row["later"]}
    assert later == set()  # of 4,000 sessions these are the first


def test_an_empty_bank_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected wordings of some meanings"):
        Simulate(SimulationSettings(), RecordRandom(0, "x"), bank=bank(tmp_path, []).url)


def test_a_recording_is_a_request_as_it_was_heard() -> None:
    raw = (
        '{"sentence": "wake me at five am", "asr_text": "wake me up at 5 am", "scenario": "alarm", "action": "set", '
        '"entities": [["time", "five am"]], "predictions": {"one": {"scenario": "alarm", "action": "query", '
        '"entities": [["time", "5 am"]]}}}'
    )
    batch = pa.table({"id": ["r"], "raw": [raw], "problem": pa.array([None], pa.string())})
    (row,) = ParseRecording(AnswerSettings())(batch).to_pylist()
    assert row["slots"] == [{"name": "time", "value": "5 am", "start": 4, "end": 6}]
    assert row["meaning"] == "alarm/alarm_set(time=five am)"
    assert "hypotheses" not in row
    (row,) = ParseRecording(AnswerSettings(system="one"))(batch).to_pylist()
    assert row["hypotheses"][0]["intent"] == "alarm_query"
    assert row["hypotheses"][0]["slots"][0]["start"] == 4
    (row,) = ParseRecording(AnswerSettings(system="two"))(batch).to_pylist()
    assert row["reject_reason"] == NO_ANSWER
