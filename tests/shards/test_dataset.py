from __future__ import annotations

import json

import pyarrow as pa
import pytest

from gristmill.actors.nlu.folds import Folds
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.dataset import find_sealed, open_sealed, row_totals, seal_tables
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.step import Step
from tests.pipelines.tiny import TEXT, texts


def test_a_sealed_set_gives_back_its_rows(root: str) -> None:
    made = seal_tables(root, "s", [texts(3), texts(2, start=3)])
    found = open_sealed(root)
    assert found.digest == made.digest
    assert (found.name, found.records, len(found.shards)) == ("s", 5, 2)
    assert found.schema.equals(TEXT)
    assert found.total("duration") == 10.0
    assert found.read(1, ["id"])["id"].to_pylist() == ["t/00003", "t/00004"]
    assert [table.num_rows for table in found.tables()] == [3, 2]


def test_the_digest_is_of_content_not_of_place(tmp_path) -> None:
    one = seal_tables(str(tmp_path / "a"), "s", [texts(3)])
    assert seal_tables(str(tmp_path / "b"), "s", [texts(3)]).digest == one.digest
    assert seal_tables(str(tmp_path / "c"), "s", [texts(2), texts(1, start=2)]).digest != one.digest
    assert seal_tables(str(tmp_path / "d"), "s", [texts(3, {1: "other"})]).digest != one.digest


def test_readers_follow_the_seal_and_no_glob(tmp_path) -> None:
    made = seal_tables(str(tmp_path), "s", [texts(3)])
    store.write_bytes(str(tmp_path / "data" / "000001-stray.parquet"), b"left by an attempt that was killed")
    assert open_sealed(made.url).records == 3


def test_an_unsealed_set_is_rejected(root: str) -> None:
    assert find_sealed(root) is None
    with pytest.raises(UserError, match="no sealed set is here"):
        open_sealed(root)
    with pytest.raises(UserError, match="nothing to seal"):
        seal_tables(root, "s", [])


def test_a_seal_of_an_earlier_version_is_rejected(tmp_path) -> None:
    made = seal_tables(str(tmp_path), "s", [texts(3)])
    store.write_bytes(str(tmp_path / "seal.json"), json.dumps({**made.seal, "format": 1}).encode())
    with pytest.raises(Damaged, match=r"seal\.json: .*of an earlier version"):
        open_sealed(made.url)


def test_totals_are_of_the_columns_that_a_source_declares(tmp_path) -> None:
    tables = [
        pa.table({"id": ["a", "b"], "duration": [1.5, None], "tokens": pa.array([3, 4], pa.int32())}),
        pa.table({"id": ["c"], "duration": [0.25], "tokens": pa.array([None], pa.int32())}),
    ]
    made = seal_tables(str(tmp_path / "set"), "s", tables, totals=["tokens"])
    assert made.totals == ("duration", "tokens")
    assert [entry.totals for entry in made.shards] == [
        {"duration": 1.5, "tokens": 7.0},
        {"duration": 0.25, "tokens": 0.0},
    ]
    assert (made.total("tokens"), made.total("characters")) == (7.0, 0.0)
    assert made.digest == seal_tables(str(tmp_path / "plain"), "s", tables).digest
    for unknown in ("characters", "id"):
        with pytest.raises(UserError, match=f"no total of '{unknown}'"):
            seal_tables(str(tmp_path / unknown), "s", tables, totals=[unknown])


def test_a_total_is_summed_in_the_order_of_rows() -> None:
    values = [1e16, 1.0, -1e16, 1.0]
    assert row_totals(pa.table({"duration": values})) == {"duration": 1.0}
    assert row_totals(pa.table({"duration": pa.array([], pa.float64())})) == {"duration": 0.0}
    assert row_totals(pa.table({"text": ["a"]}), ["duration"]) == {}


BAD_IDS = {
    "none": ({"text": ["x"]}, "a table has no column `id`"),
    "repeated": ({"id": ["x", "y", "x"]}, "3 records have 2 ids, 'x' is repeated"),
    "null": ({"id": ["x", None]}, "the id of 1 of 2 records is null"),
    "numbers": ({"id": [1, 2]}, "the column `id` holds int64"),
}


@pytest.mark.parametrize(("columns", "message"), BAD_IDS.values(), ids=BAD_IDS)
def test_records_that_cannot_be_told_apart_are_refused(tmp_path, columns, message: str) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    for make in (
        lambda: run.table("texts", pa.table(columns)),
        lambda: run.source("texts", lambda: iter([pa.table(columns)]), {}),
        lambda: run.source("texts", lambda: iter([pa.table({"id": ["z"]}), pa.table(columns)]), {"v": 2}),
    ):
        with pytest.raises(UserError, match=f"^texts: {message}; expected a column `id` with a distinct text for each"):
            _ = make().digest
    ids = pa.chunked_array([["a"], ["b"]], pa.large_string())
    assert run.table("large", pa.table({"id": ids})).records == 2
    assert run.table("none", pa.table({"id": pa.array([], pa.string())})).records == 0


def test_slips_in_python_are_sentences(tmp_path) -> None:
    run = Run(str(tmp_path), InProcessRunner())
    with pytest.raises(TypeError, match=r"^texts: list is not a table; expected a pyarrow.Table, as of pa.Table.fr"):
        run.table("texts", [{"id": "a"}])
    with pytest.raises(TypeError, match=r"^texts: dict is not a table"):
        _ = run.source("texts", lambda: iter([{"id": ["a"]}]), {}).digest
    texts = run.table("texts", pa.table({"id": ["a"], "text": ["on"]}))
    slips = {
        "stages are one stage, folds; expected a tuple": (Folds.stage(), texts),
        "Folds is not a stage; expected Folds.stage": ((Folds,), texts),
        "stages are <class .*Folds'>; expected a tuple of stages": (Folds, texts),
        "3 is not a stage; expected what an actor's": ((3,), texts),
        "the input is '.*'; expected a sealed set": ((Folds.stage(),), texts.url),
    }
    for message, (stages, given) in slips.items():
        with pytest.raises(TypeError, match=f"^step dealt: {message}"):
            Step("dealt", stages, given)
