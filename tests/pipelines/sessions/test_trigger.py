"""The trigger: offers are read from sessions and from rows, and their acceptance is learnt from the situation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.sessions.trigger import NO_ANSWER, NO_OFFER, ParseOffers, TriggerTraining
from gristmill.actors.sources.reading import NO_OBJECT
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.sessions.trigger import TriggerModel, TriggerSettings, fit_trigger
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.trigger import OfferSettings, cross_validated, learn_trigger, trigger_metrics
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings


def session(number: int, part: str) -> dict[str, Any]:
    """Return a session with two offers: those after two calls are accepted, and others not."""
    calls = 1 + number % 2
    events: list[dict[str, Any]] = [
        {"turn": 0, "service": "S", "intent": "Find", "text": f"a place {number}", "state": {"city": ["x"]}}
    ]
    events += [{"turn": 1 + n, "service": "S", "call": "Find"} for n in range(calls)]
    events += [
        {"turn": 5, "service": "S", "offered": ["Book"], "text": "Shall I book it?"},
        {"turn": 6, "service": "S", "intent": "Other", "text": "told after the offer", "state": {}},
        {"turn": 6, "service": "S", "offer": "accepted" if calls == 2 else "declined", "text": "well"},
        {"turn": 9, "service": "S", "offered": ["Never"], "text": "Or this?"},
        {"turn": 10, "service": "S", "offer": "declined", "text": "no"},
    ]
    return {"id": f"{part}/{number}", "services": ["S"], "events": events}


def write(folder: Path, rows: list[Any]) -> str:
    (folder / "offers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(folder / "offers.jsonl")


def parsed(*rows: Any) -> list[dict[str, Any]]:
    raw = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    names = [f"r{n}" for n in range(len(rows))]
    return ParseOffers(Settings())(pa.table({"id": names, "raw": raw, "problem": [None] * len(rows)})).to_pylist()


def test_of_a_session_only_what_was_before_the_offer_is_read() -> None:
    first, second = parsed(session(1, "train"))
    assert (first["id"], first["session"], first["part"]) == ("r0/0", "r0", "train")
    assert (first["goal"], first["offered"], first["text"]) == ("Find", "Book", "a place 1")
    assert (first["calls"], first["offers"], first["declined"], first["since_call"]) == (2, 0, 0, 3)
    assert (first["known"], first["accepted"]) == (["city"], True)
    assert (second["goal"], second["offers"], second["open_turns"], second["accepted"]) == ("Other", 1, 3, False)


def test_offers_one_by_one_and_faults() -> None:
    rows = parsed({"offered": "Book", "accepted": False}, {"offered": "Book"}, "[", {"id": "a", "events": []})
    assert (rows[0]["offered"], rows[0]["accepted"], rows[0]["calls"]) == ("Book", False, None)
    assert [row["reject_reason"] for row in rows] == [None, NO_ANSWER, NO_OBJECT, NO_OFFER]


def test_the_situation_tells_more_than_the_goal(tmp_path: Path) -> None:
    rows = [session(n, "train") for n in range(80)] + [session(n, "dev") for n in range(40)]
    run = Run(str(tmp_path / "out"), InProcessRunner())
    made = learn_trigger(run, OfferSettings(places=write(tmp_path, rows)))
    metrics = {(row.system, row.metric): row for row in trigger_metrics(made, TriggerTraining())}
    assert metrics["trigger", "auc"].value == 1.0
    assert 0.5 < metrics["rate", "auc"].value < 0.95
    assert metrics["trigger", "auc"].n == 80
    assert metrics["trigger", "ece"].value < metrics["rate", "ece"].value + 0.2
    crossed = {(row.system, row.metric): row.value for row in cross_validated(made.offers.url, TriggerSettings())}
    assert crossed["trigger", "auc"] > 0.99 > crossed["rate", "auc"]


def test_offers_of_one_kind_are_refused(tmp_path: Path) -> None:
    run = Run(str(tmp_path / "out"), InProcessRunner())
    url = write(tmp_path, [{"offered": "Book", "accepted": True}] * 3)
    with pytest.raises(UserError, match="3 of 3 offers were accepted; expected 5 or more of each kind"):
        learn_trigger(run, OfferSettings(places=url)).models["trigger"].digest  # noqa: B018


def test_a_stored_model_says_the_same() -> None:
    offers = [{"offered": "Book", "calls": n % 3, "text": "yes please"} for n in range(60)]
    accepted = np.array([n % 3 == 2 for n in range(60)])
    model = fit_trigger(offers, accepted, [f"s{n}" for n in range(60)], TriggerSettings())
    again = TriggerModel.from_files(model.files())
    assert again.probability(offers).tolist() == model.probability(offers).tolist()
    assert model.probability(offers)[2] > 0.5 > model.probability(offers)[0]
