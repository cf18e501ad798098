"""Listing of objects: lines of JSONL and rows of Parquet, each once, and what cannot be listed is told."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.sources.objects import OTHER_CELLS, list_objects
from gristmill.actors.sources.pointers import DUPLICATE, NOT_UTF8
from gristmill.actors.sources.unlisted import UNLISTED
from gristmill.shards.errors import UserError


def listed(url: object, **given: object) -> list[dict]:
    return [row for table in list_objects(str(url), "c", **given) for row in table.to_pylist()]


def lines(path: Path, *rows: object) -> Path:
    data = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def test_lines_keep_their_own_ids_and_damaged_ones_their_place(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl.gz", {"id": "x", "session": 1}, "{broken", {"session": 2, "id": 7})
    rows = listed(path, required={"session": "session"})
    assert [row["id"] for row in rows] == ["c/x", "c/a.jsonl.gz#2", "c/7"]
    assert rows[1]["raw"] == "{broken"
    assert json.loads(rows[2]["raw"]) == {"session": 2, "id": 7}


def test_an_id_that_is_there_twice_is_listed_as_a_duplicate(tmp_path: Path) -> None:
    rows = listed(lines(tmp_path / "a.jsonl", {"id": "x"}, {"id": "x"}))
    assert [(row["id"], row["problem"]) for row in rows] == [("c/x", None), ("c/a.jsonl#2~again", DUPLICATE)]


def test_rows_of_parquet_are_objects_too_with_times_as_text(tmp_path: Path) -> None:
    table = pa.table({"session": ["s"], "time": pa.array([1_700_000_000], pa.timestamp("s", tz="UTC"))})
    pq.write_table(table, tmp_path / "a.parquet")
    (row,) = listed(tmp_path / "a.parquet", required={"session": "session"})
    assert json.loads(row["raw"]) == {"session": "s", "time": "2023-11-14T22:13:20+00:00"}


def test_a_file_without_a_required_key_is_told_and_stops_no_other(tmp_path: Path) -> None:
    lines(tmp_path / "a.jsonl", {"sesion": 1})
    with pytest.raises(UserError, match="did you mean 'sesion'"):
        listed(tmp_path, required={"session": "session"})
    lines(tmp_path / "b.jsonl", {"session": 1})
    rows = listed(tmp_path, required={"session": "session"})
    assert [row["format"] for row in rows] == [UNLISTED, "jsonl"]


@pytest.mark.parametrize(("name", "said"), [("none.jsonl", "no such file"), ("a.txt", "unknown kind"), (".", "no rec")])
def test_what_is_not_there_is_one_sentence(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "a.txt").write_text("hello\n")
    with pytest.raises(UserError, match=said):
        listed(tmp_path / name)


def test_lines_of_a_table_are_objects_with_the_names_of_its_header(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_bytes(b'question\trewrite\nwho?\t"who won"\nx\nwhen?\t\n\xff\tb\nwho\twon\t?\n')
    rows = listed(path, required={"question": "question"})
    assert [json.loads(row["raw"]) for row in rows if row["raw"]] == [
        {"question": "who?", "rewrite": '"who won"'},
        {"question": "when?", "rewrite": None},
    ]
    assert [row["problem"] for row in rows] == [None, OTHER_CELLS, None, NOT_UTF8, OTHER_CELLS]
    with pytest.raises(UserError, match=r"none of the files|expected it"):
        listed(path, required={"session": "session"})


def test_elements_of_an_array_and_of_an_object_by_id_are_objects(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"id": "x", "turns": []}, 7, {"turns": [1]}], indent=1))
    (tmp_path / "b.json").write_text(json.dumps({"S1.json": {"log": []}, "S2.json": {"log": [2]}}))
    (tmp_path / "schema.json").write_text(json.dumps([{"service_name": "s"}]))
    (tmp_path / "c.json").write_text(json.dumps({"id": "y", "turns": []}))
    rows = listed(tmp_path, required={"turns": ("turns", "log")})
    assert [row["id"] for row in rows if row["format"] == "json"] == [
        "c/x",
        "c/a.json#2",
        "c/a.json#3",
        "c/S1.json",
        "c/S2.json",
    ]
    assert json.loads(rows[2]["raw"]) == {"turns": [1]}
    told = {row["id"]: row["raw"] for row in rows if row["format"] == UNLISTED}
    assert "expected an array of objects, or an object of them by id" in told["c/c.json"]
    assert "has no 'turns or log' among service_name" in told["c/schema.json"]


def test_an_id_may_be_one_of_its_folder_alone(tmp_path: Path) -> None:
    for part in ("dev", "train"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "a.json").write_text('[{"id": "1"}, {"id": "1"}]')
    ids = [row["id"] for row in listed(tmp_path, by_folder=True)]
    assert ids == ["c/dev/1", "c/dev/a.json#2~again", "c/train/1", "c/train/a.json#2~again"]


@pytest.mark.parametrize("size", [3, 150])
def test_a_document_that_is_cut_off_is_listed_to_there(tmp_path: Path, size: int) -> None:
    (tmp_path / "a.json").write_text(json.dumps([{"id": n} for n in range(size)])[:-3])
    rows = listed(tmp_path, required={"id": "id"})
    assert [row["id"] for row in rows[-2:]] == [f"c/{size - 2}", "c/a.json#rest"]
    assert rows[-1]["format"] == UNLISTED
