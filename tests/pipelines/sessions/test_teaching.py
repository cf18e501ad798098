"""Unknown spans: values hidden from training are found by their context, known ones are not unknown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from gristmill.actors.sessions.teaching import NOTHING_UNKNOWN, UNSURE, AsTaught, TaughtSettings
from gristmill.actors.sessions.teaching_trainer import HoldOutSettings, HoldOutValues, TeachingTraining, collect
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.sessions.teaching import CatalogueSettings, MaskSettings
from gristmill.pipelines.generated import assistant
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.teaching import (
    TeachingSettings,
    learn_teaching,
    score_teaching,
    teach,
    teaching_metrics,
    together,
)
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.schema import REQUESTS, TURN_FIELDS

SONGS = [f"{a} {b}" for a in ("blue", "old", "red", "far", "slow") for b in ("river", "moon", "car", "road", "rain")]
FORMS = ("play {} now", "i want to hear {} please", "put {} on", "start {} in the {room}")


def requests(count: int = 300) -> Iterator[dict[str, Any]]:
    """Yield requests for songs, in rooms that are always the same."""
    for number in range(count):
        song, form = SONGS[number * 7 % len(SONGS)], FORMS[number % len(FORMS)]
        room = ("hall", "kitchen")[number % 3 % 2]
        tokens, slots = [], []
        for word in form.split():
            value, name = (song, "song") if word == "{}" else (room, "room") if word == "{room}" else (word, "")
            if name:
                words = value.split()
                end = len(tokens) + len(words)
                slots.append({"name": name, "value": value, "start": len(tokens), "end": end})
            tokens += value.split()
        made = {"id": f"r{number:04d}", "text": " ".join(tokens), "tokens": tokens, "domain": "music"}
        yield made | {"intent": "play", "slots": slots, "lang": "en", "label_source": "gold"}


def declared(run: Run, rows: list[dict[str, Any]]) -> SealedSet:
    return run.table("requests", pa.Table.from_pylist(rows, schema=REQUESTS))


SETTINGS = TeachingSettings(
    training=TeachingTraining(catalogue=CatalogueSettings(slots=("song",)), mask=MaskSettings(copies=1)), share=0.3
)


def test_hidden_values_are_found_by_context(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    given = declared(run, list(requests()))
    made = learn_teaching(run, SETTINGS, given)
    run.finish()
    scores = score_teaching(made)
    assert scores["masked"].wanted.sum() == made.tested.records > 30
    f1 = {system: counts.f1().value for system, counts in scores.items()}
    assert f1["masked"] > 0.95
    assert f1["new_words"] < 0.5  # the words of songs are known, the songs are not
    rows = teaching_metrics({0: scores, 1: scores})
    assert {row.metric for row in rows} == {"span_f1", "precision", "recall"}
    assert together([scores["masked"]] * 2).f1().value == pytest.approx(f1["masked"])
    for table in made.tested.tables(["unknown_masked"]):
        assert {span["name"] for spans in table["unknown_masked"].to_pylist() for span in spans} == {"song"}


def test_no_request_with_a_hidden_value_is_trained_on(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    made = learn_teaching(run, SETTINGS, declared(run, list(requests())), "_3", 3)
    tested = [row for table in made.tested.tables(["tokens", "slots"]) for row in table.to_pylist()]
    scores = score_teaching(made)["masked"]
    assert len(scores.ids) == len(tested)
    assert scores.wanted.min() == 1  # each has a value that the training does not know


def test_values_of_other_slots_are_not_hidden(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    rows = list(requests(60))
    rows[0]["slots"][0]["name"] = "room"  # now a song is the name of a room, too
    job = TrainJob("catalogue", collect, SETTINGS.training.catalogue, {"data": declared(run, rows)}, stepwise=False)
    catalogue = run.train(job)
    actor = HoldOutValues(HoldOutSettings(share=0.99), catalogue=catalogue.url)
    held = actor(pa.Table.from_pylist(rows, schema=REQUESTS))["held"].to_pylist()
    also = rows[0]["slots"][0]["value"]
    assert sum(held) > 40
    assert not any(one for one, row in zip(held, rows, strict=True) if row["slots"][0]["value"] == also)


def test_unknown_spans_of_turns_become_training_data(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    made = learn_teaching(run, SETTINGS, declared(run, list(requests())))
    said = ["play shiny happy now", "play blue river now", "stop", "put on"]
    rows: list[dict[str, Any]] = [
        {"id": f"t{n}", "session": "s", "turn": n, "tokens": text.split(), "domain": "music", "slots": []}
        for n, text in enumerate(said)
    ]
    rows.append(rows[0] | {"id": "t9", "domain": None})
    turns = run.table("turns", pa.Table.from_pylist(rows, schema=pa.schema(TURN_FIELDS)))
    found = teach(run, SETTINGS, made.model, turns)
    taught = [row for table in found.tables() for row in table.to_pylist()]
    assert [(row["id"], row["label_source"]) for row in taught] == [("t0", "projected")]
    assert taught[0]["slots"] == [{"name": "song", "value": "shiny happy", "start": 1, "end": 3}]
    assert taught[0]["confidence"] >= 0.8
    assert "unknown" not in found.schema.names


def test_a_slot_gives_way_to_a_span_and_an_unsure_one_is_rejected() -> None:
    span = {"name": "song", "value": "b c", "start": 1, "end": 3, "score": 0.9}
    slots = [
        {"name": "room", "value": "c", "start": 2, "end": 3},
        {"name": "room", "value": "d", "start": 3, "end": 4},
        {"name": "room", "value": "e", "start": None, "end": None},
    ]
    table = pa.table({"id": ["a", "b", "c"], "slots": [slots] * 3, "unknown": [[span], [span | {"score": 0.1}], []]})
    made = AsTaught(TaughtSettings())(table).to_pylist()
    assert [slot["value"] for slot in made[0]["slots"]] == ["b c", "d"]
    assert [row["reject_reason"] for row in made] == [None, UNSURE, NOTHING_UNKNOWN]


def test_requests_without_a_slot_are_refused(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    rows = [row | {"slots": []} for row in requests(5)]
    with pytest.raises(UserError, match="no request has song"):
        learn_teaching(run, SETTINGS, declared(run, rows)).model.url  # noqa: B018


def test_generated_requests_have_catalogues(tmp_path: Path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    identity = {"records": 1500, "made_by": assistant.identity()}
    given = run.source("requests", lambda: assistant.requests(1500), identity)
    scores = score_teaching(learn_teaching(run, TeachingSettings(), given))
    assert scores["masked"].wanted.sum() > 20
    assert scores["masked"].f1().value > 0.85
