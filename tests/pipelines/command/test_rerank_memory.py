"""Lists of hypotheses in files larger than memory should hold, and what a file may not ask for."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow as pa
import pyarrow.json as pj
import pyarrow.parquet as pq
import pytest

from gristmill.actors.sources import columns, lists
from gristmill.actors.sources.lists import ListFile
from gristmill.pipelines.command import rerank
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.schema import HYPOTHESES_FIELDS, ID


def write(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_pieces_have_the_columns_and_values_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        {"id": f"r{i}", "hypotheses": [{"domain": "music", "domain_logprob": -0.1}], "hour": i if i < 20 else i + 0.5}
        | ({"device": "phone"} if i > 30 else {})
        | {"when": "2024-01-01" if i < 20 else "noon"}
        for i in range(45)
    ]
    url = write(tmp_path / "lists.jsonl", rows)
    known = pa.schema([ID, *HYPOTHESES_FIELDS])
    whole = pj.read_json(url, parse_options=pj.ParseOptions(explicit_schema=known))
    monkeypatch.setattr(lists, "ROWS", 10)
    pieces = list(ListFile(url).tables())
    assert [len(piece) for piece in pieces] == [10, 10, 10, 10, 5]
    assert pa.concat_tables(pieces).select(whole.column_names).equals(whole)


def test_long_lists_are_read_in_smaller_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": f"r{i}", "hypotheses": [], "note": "x" * 1000} for i in range(40)]
    monkeypatch.setattr(lists, "BATCH_BYTES", 10_500)
    assert [len(piece) for piece in ListFile(write(tmp_path / "lists.jsonl", rows)).tables()] == [10] * 4
    monkeypatch.setattr(columns, "_BATCH_BYTES", 10_500)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "lists.parquet", use_dictionary=False, compression="none")
    assert max(len(piece) for piece in ListFile(str(tmp_path / "lists.parquet")).tables()) <= 10


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "a", "hypotheses": [], "x": "' + "y" * (24 << 20) + '"}', "line too long"),
        ('{"id": "a", "hypotheses": [], "x": ' + "[" * 200_000 + "]" * 200_000 + "}", "malformed record"),
        ('{"id": "a", "hypotheses": [], "x": ' + '{"a":' * 90_000 + "1" + "}" * 90_000 + "}", "malformed record"),
    ],
    ids=["long", "lists", "objects"],
)
def test_a_line_that_asks_for_memory_is_a_reject(tmp_path: Path, line: str, problem: str) -> None:
    path = tmp_path / "lists.jsonl"
    path.write_text('{"id": "b", "hypotheses": []}\n' + line + "\n")
    tracemalloc.start()
    try:
        (table,) = ListFile(str(path)).tables()
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
    finally:
        tracemalloc.stop()
    assert table.select(["id", "problem"]).to_pylist() == [
        {"id": "b", "problem": None},
        {"id": "lists.jsonl#line2", "problem": problem},
    ]


def test_brackets_in_texts_are_no_depth(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"id": "a", "hypotheses": [], "note": '["' * 5000 + "\\"}]
    assert [len(piece) for piece in ListFile(write(tmp_path / "lists.jsonl", rows)).tables()] == [1]


def test_a_page_that_does_not_fit_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "PAGE_BYTES", 100)
    table = pa.Table.from_pylist([{"id": f"r{i}", "hypotheses": [], "note": f"{i}"} for i in range(100)])
    pq.write_table(table, tmp_path / "lists.parquet")
    with pytest.raises(UserError, match=r"a page of .*; expected at most 100: write smaller row groups"):
        list(ListFile(str(tmp_path / "lists.parquet")).tables())


def test_a_file_without_lists_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds no list"):
        list(ListFile(write(tmp_path / "lists.jsonl", [])).tables())


def test_weights_larger_than_any_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "music.json"
    with path.open("wb") as out:
        out.truncate(1 << 40)
    with pytest.raises(UserError, match=r"music.json: has more than 67108864 bytes"):
        rerank.load_folder(str(tmp_path))
    with pytest.raises(store.FileTooLarge):
        rerank.swap(str(path), str(tmp_path), str(tmp_path))
    path.write_bytes(b"[" * 200_000)
    with pytest.raises(UserError, match="not a re-ranker's file"):
        rerank.load_folder(str(tmp_path))
