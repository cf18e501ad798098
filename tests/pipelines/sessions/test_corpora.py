"""Turns of a user's own sessions and of simulated ones: in order, each once, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gristmill.actors.nlu.hypotheses import ListSettings
from gristmill.actors.sessions.turns import TOO_MANY
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.nlu.corpora import RequestCorpusSettings, prepare_requests, split_requests
from gristmill.pipelines.nlu.systems import DomainSettings, train_domains
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.corpora import (
    SessionSettings,
    bank_of,
    check_sessions,
    own_turns,
    repeated_turns,
    said,
    simulated_turns,
)
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError


def rows(made: SealedSet) -> list[dict[str, Any]]:
    return [row for table in made.tables() for row in table.to_pylist()]


def own(tmp_path: Path, turns: list[dict[str, Any]], **settings: Any) -> SealedSet:
    path = tmp_path / "turns.jsonl"
    path.write_text("".join(json.dumps(turn) + "\n" for turn in turns))
    run = Run(str(tmp_path / "out"), InProcessRunner())
    made = own_turns(run, SessionSettings(places=str(path), **settings))
    run.finish()
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]
    return made


def test_turns_come_in_order_each_once_and_one_without_a_session_is_rejected(tmp_path: Path) -> None:
    turns = [
        {"session": "b", "time": 30, "text": "three"},
        {"session": "b", "time": 10, "text": "one"},
        {"session": "a", "turn": 9, "text": "last"},
        {"session": "a", "turn": 2, "text": "first"},
        {"session": "b", "time": 20, "text": "two"},
        {"session": "b", "time": 20, "text": "two"},
        {"text": "whose?"},
    ]
    made = own(tmp_path, turns)
    by_session: dict[str, list[str]] = {}
    for row in sorted(rows(made), key=lambda row: (row["session"], row["turn"])):
        by_session.setdefault(row["session"], []).append(" ".join(row["tokens"]))
    assert by_session == {"a": ["first", "last"], "b": ["one", "two", "three"]}
    assert sorted(row["id"] for row in rows(made)) == ["a/0", "a/1", "b/0", "b/1", "b/2"]
    assert repeated_turns(made) == 1


def test_what_is_said_again_without_number_and_time_is_no_repeat(tmp_path: Path) -> None:
    made = own(tmp_path, [{"session": "s", "text": "stop"}] * 3)
    assert [row["turn"] for row in rows(made)] == [0, 1, 2]
    assert repeated_turns(made) == 0


def test_a_repeat_tells_of_the_outcome(tmp_path: Path) -> None:
    turn = {"session": "s", "turn": 1, "text": "stop"}
    (row,) = rows(own(tmp_path, [turn, turn | {"succeeded": True}]))
    assert row["succeeded"] is True


def test_a_session_of_too_many_turns_is_rejected_as_a_whole(tmp_path: Path) -> None:
    turns = [{"session": "robot", "turn": n, "text": f"ping {n}"} for n in range(60)]
    hello = {"session": "s", "turn": 1, "text": "hello"}
    made = own(tmp_path, [*turns, *[hello] * 4], order={"most": 50})
    assert [row["session"] for row in rows(made)] == ["s"]
    assert repeated_turns(made) == 3  # and none of the session that is rejected
    assert made.seal["reasons"] == {f"order_turns: {TOO_MANY}": 1}


def test_places_that_hold_no_turns_are_refused_before_any_work(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"dialogue": 1, "text": "hi"}\n')
    with pytest.raises(UserError, match=r"expected it, or sessions\.fields=\{session: NAME\}"):
        check_sessions(SessionSettings(places=str(path)))
    check_sessions(SessionSettings(places=str(path), fields={"session": "dialogue"}))
    with pytest.raises(UserError, match=r"no 'user_id' among dialogue, text; expected it, as sessions\.fields names"):
        check_sessions(SessionSettings(places=str(path), fields={"session": "dialogue", "user": "user_id"}))
    with pytest.raises(UserError, match="each file in one place"):
        check_sessions(SessionSettings(places=(str(path), str(path)), fields={"session": "dialogue"}))
    with pytest.raises(UserError, match="no such file"):
        check_sessions(SessionSettings(places=str(tmp_path / "none.jsonl")))


def test_generated_requests_are_read_by_domain_models_and_said_in_sessions(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    corpus = RequestCorpusSettings(records=150, test_share=0.0)
    annotated = split_requests(run, corpus, prepare_requests(run, corpus))
    domains = sorted({one for table in annotated.tables(["domain"]) for one in table["domain"].to_pylist()})
    models = train_domains(run, DomainSettings(), {0: annotated}, domains, 0)[0][-1]
    settings = SessionSettings(bank={"meanings": 30, "wordings": 3}, simulation={"sessions": 40})
    utterances, bank = bank_of(run, said(run, settings.bank), models, ListSettings(n=3, intents=1))
    turns = simulated_turns(run, settings.simulation, bank)
    run.finish()
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]
    spoken = {row["asr_text"]: row for row in rows(utterances)}
    found = rows(turns)
    assert len({row["session"] for row in found}) == 40
    assert {row["later"] for row in found} == {False, True}
    for row in found:
        assert row["failed"] == spoken[row["asr_text"]]["failed"]
        assert row["intent"] == spoken[row["asr_text"]]["intent"]
    assert 0 < sum(row["failed"] for row in spoken.values()) < len(spoken)


def said_by(text: str, intent: str) -> dict[str, Any]:
    frame = {"service": "Hotels_1", "slots": [], "state": {"active_intent": intent, "slot_values": {}}}
    return {"speaker": "USER", "utterance": text, "frames": [frame]}


def test_dialogues_of_published_files_are_sessions_in_order(tmp_path: Path) -> None:
    places = tmp_path / "sgd"
    turns = [said_by("find one", "Find"), {"speaker": "SYSTEM", "utterance": "This?"}, said_by("yes", "Book")]
    for part, dialogues in {"train": [{"dialogue_id": "1_0", "turns": turns}], "dev": [{"dialogue_id": "1_0"}]}.items():
        (places / part).mkdir(parents=True)
        (places / part / "dialogues_001.json").write_text(
            json.dumps([*dialogues, {"dialogue_id": "2", "turns": turns[:1]}])
        )
        (places / part / "schema.json").write_text('[{"service_name": "Hotels_1"}]')
    settings = SessionSettings(kind="dialogues", places=str(places))
    check_sessions(settings)
    run = Run(str(tmp_path / "out"), InProcessRunner())
    made = own_turns(run, settings)
    run.finish()
    assert not [gap for result in audit_below(run.out) for gap in result.gaps]
    found = sorted((row["session"], row["turn"], row["text"], row["intent"]) for row in rows(made))
    assert found == [
        ("sgd/dev/2", 0, "find one", "Find"),
        ("sgd/train/1_0", 0, "find one", "Find"),
        ("sgd/train/1_0", 1, "yes", "Book"),
        ("sgd/train/2", 0, "find one", "Find"),
    ]


def test_dialogues_and_turns_are_not_taken_for_each_other(tmp_path: Path) -> None:
    dialogues, turns = tmp_path / "data.json", tmp_path / "turns.json"
    dialogues.write_text('{"S1.json": {"log": [{"text": "hi", "dialog_act": {}}]}}')
    turns.write_text('[{"session": "s", "text": "hi"}]')
    with pytest.raises(UserError, match=r"whole dialogues are read with sessions\.kind=dialogues"):
        check_sessions(SessionSettings(places=str(dialogues)))
    check_sessions(SessionSettings(places=str(dialogues), kind="dialogues"))
    check_sessions(SessionSettings(places=str(turns)))
    with pytest.raises(UserError, match=r"has no 'turns or log' among session, text; expected it$"):
        check_sessions(SessionSettings(places=str(turns), kind="dialogues"))
    with pytest.raises(ValueError, match="expected the URL of dialogues"):
        SessionSettings(kind="dialogues")
    with pytest.raises(ValueError, match="whose layouts are known"):
        SessionSettings(kind="dialogues", places="x", fields={"session": "dialogue"})
