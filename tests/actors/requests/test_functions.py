"""A function of a corpus taken for a new one: parts that are apart, seeds drawn once, labels hidden and given back."""

from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gristmill.actors.requests.functions import (
    DRAWN,
    GOLD,
    NOT_OF_PART,
    FunctionSettings,
    PartSettings,
    Reveal,
    TakePart,
    draw_seeds,
)
from gristmill.shards.artifact import put_artifact
from gristmill.shards.errors import SettingsError
from tests.actors.nlu.test_domain_trainer import FIELDS, records, sealed

ALARM = FunctionSettings(name="clock", domains=("alarm",))
PARTS = ("seeds", "others", "pool", "test")


@pytest.fixture(scope="module")
def rows():
    return records(folds=2)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("functions")
    files = draw_seeds([ALARM], 6, 0, sealed(folder / "set", rows).url)
    put_artifact(str(folder / "drawn"), files, {"artifact": "drawn"})
    return str(folder / "drawn")


def parts(rows, drawn, count=6):
    table = pa.Table.from_pylist(rows, schema=FIELDS)
    return {
        which: TakePart(PartSettings(which=which, count=count, **dict(ALARM)), drawn=drawn)(table) for which in PARTS
    }


def test_each_request_is_in_one_part_or_in_none(rows, drawn):
    kept = {}
    for which, made in parts(rows, drawn).items():
        for row in made.to_pylist():
            assert row["reject_reason"] in (None, NOT_OF_PART)
            if row["reject_reason"] is None:
                assert row["id"] not in kept, "in two parts"
                kept[row["id"]] = which
    by_id = {row["id"]: row for row in rows}
    assert len(kept) == len(rows)
    for name, which in kept.items():
        own, fold = by_id[name]["domain"] == "alarm", by_id[name]["fold"]
        assert (which == "test") == (fold == -1)
        assert which != "seeds" or own
        assert which != "others" or (not own and fold == 0)
    assert list(kept.values()).count("seeds") == 6


def test_fewer_seeds_are_the_first_of_more_and_of_each_intent(rows, drawn, tmp_path):
    ids = json.loads(open_drawn(drawn))["clock"]
    intents = {row["id"]: row["intent"] for row in rows}
    assert {intents[name] for name in ids[:2]} == {"set", "remove"}
    assert len(set(ids)) == 6
    again = draw_seeds([ALARM], 6, 0, sealed(tmp_path / "turned", rows[::-1], shards=1).url)
    assert json.loads(again[DRAWN])["clock"] == ids
    other = draw_seeds([ALARM], 6, 1, sealed(tmp_path / "set", rows).url)
    assert json.loads(other[DRAWN])["clock"] != ids


def open_drawn(url):
    from gristmill.shards.artifact import read_file

    return read_file(url, DRAWN)


def test_the_pool_has_no_labels_and_gets_them_back(rows, drawn):
    made = parts(rows, drawn)["pool"]
    kept = made.filter(pa.compute.is_null(made["reject_reason"])).drop_columns(["domain", "intent", "slots", "fold"])
    revealed = Reveal(ALARM)(kept.drop_columns(["reject_reason"])).to_pylist()
    by_id = {row["id"]: row for row in rows}
    for row in revealed:
        gold = by_id[row["id"]]
        assert (row["reject_reason"] is None) == (gold["domain"] == "alarm")
        assert (row["intent"], row["slots"]) == (gold["intent"], gold["slots"])
        assert row["domain"] == "clock"
    assert {field.name for field in GOLD} <= set(kept.column_names)


def test_a_function_is_told_by_intents_by_domains_or_by_both():
    both = FunctionSettings(name="a", intents=("set",), domains=("alarm",))
    assert [both.own("alarm", "set"), both.own("alarm", "remove"), both.own("timer", "set")] == [True, False, False]
    assert FunctionSettings(name="a", intents=("set",)).own("timer", "set")
    with pytest.raises(SettingsError, match="neither intents nor domains"):
        FunctionSettings(name="a")
