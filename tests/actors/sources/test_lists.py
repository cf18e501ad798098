"""Lists of hypotheses in files: a bad line or row costs itself, wherever it lies, and is named by its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.sources import lists
from gristmill.actors.sources.lists import ListFile
from gristmill.shards.errors import UserError


def one(name: Any, **more: Any) -> str:
    hypothesis = {"domain": "video", "domain_logprob": -0.1, "intent_logprob": -0.2, "slots_logprob": -0.3}
    return json.dumps({"id": name, "hypotheses": [hypothesis], **more})


def listed(path: Path) -> list[tuple[str, str | None]]:
    tables = list(ListFile(str(path)).tables())
    assert all(table.schema == tables[0].schema for table in tables)
    whole = pa.concat_tables(tables)
    problems = whole["problem"].to_pylist() if "problem" in whole.column_names else [None] * len(whole)
    return list(zip(whole["id"].to_pylist(), problems, strict=True))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "x", "hypotheses": [', "malformed record"),  # torn
        ("null", "malformed record"),
        (one(7), "malformed record"),
        (one("x", hypotheses=[{"domain": "video", "domain_logprob": "-0.1"}]), "malformed record"),
        ('{"id": "x", "id": "y", "hypotheses": []}', "malformed record"),
        (one("x\ud83d"), "malformed record"),
        (one("x", hour="noon"), "malformed record"),  # a number in the others
        (one("x1") + one("x2"), "malformed record"),  # two on a line
        ("[1]", "malformed record"),
        (one(None), "no id"),
        (one("u3"), "duplicate"),
    ],
)
@pytest.mark.parametrize("rows", [3, 2000])
def test_a_bad_line_costs_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str, problem: str, rows: int
) -> None:
    monkeypatch.setattr(lists, "ROWS", rows)
    good = [one(f"u{n}", hour=n) for n in range(12)]
    (tmp_path / "l.jsonl").write_text("\n".join([*good[:7], "", line, *good[7:]]) + "\n")
    found = listed(tmp_path / "l.jsonl")
    assert [name for name, why in found if why is None] == [f"u{n}" for n in range(12)]
    assert [row for row in found if row[1]] == [("l.jsonl#line9", problem)]


@pytest.mark.parametrize("line", [b'{"id": "x", "hypotheses": [], "\x80": 1}', b'{"id": "\xff", "hypotheses": []}'])
def test_a_line_that_is_not_utf_8_costs_itself(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "l.jsonl").write_bytes(one("a").encode() + b"\n" + line + b"\n")
    assert listed(tmp_path / "l.jsonl") == [("a", None), ("l.jsonl#line2", "not UTF-8")]


def test_joined_files_and_files_of_another_form(tmp_path: Path) -> None:
    path = tmp_path / "l.jsonl"
    path.write_text("\ufeff" + one("a") + "\r\n\ufeff" + one("b") + "\r\n")
    assert listed(path) == [("a", None), ("b", None)]
    for data, sentence in (
        (f"[{one('a')},\n{one('b')}]".encode(), "one JSON array"),
        ((one("a") + "\n").encode("utf-16"), "its text is UTF-16"),
        (f"{one('a')}\r{one('b')}\r".encode(), "its lines end in CR alone"),
        (f"{one('a')},\n".encode(), "line1: malformed record"),
        (b"", "holds no list"),
    ):
        path.write_bytes(data)
        with pytest.raises(UserError, match=sentence):
            ListFile(str(path))


def test_ids_of_pandas_and_polars(tmp_path: Path) -> None:
    path, hypotheses = tmp_path / "l.parquet", [json.loads(one("a"))["hypotheses"]] * 3
    for ids in (pa.array(["a", "b", "a"]).dictionary_encode(), pa.array(["a", "b", "a"], pa.string_view())):
        pq.write_table(pa.table({"id": ids, "hypotheses": hypotheses}), path)
        assert listed(path) == [("a", None), ("b", None), ("l.parquet#row3", "duplicate")]
    pq.write_table(pa.table({"id": ids, "hypotheses": hypotheses}).slice(0, 0), path)
    with pytest.raises(UserError, match="holds no list"):
        ListFile(str(path))


def test_a_line_of_megabytes_is_read(tmp_path: Path) -> None:
    lines = [one(f"u{n}") for n in range(20)]
    (tmp_path / "l.jsonl").write_text("\n".join([*lines[:9], one("big", note="x" * (3 << 20)), *lines[9:]]))
    found = listed(tmp_path / "l.jsonl")
    assert len(found) == 21
    assert ("big", None) in found


def test_rows_of_parquet_with_one_id_are_duplicates(tmp_path: Path) -> None:
    table = pa.table({"id": ["a", "b", None, "a"], "hypotheses": [[{"domain": "video"}]] * 4})
    pq.write_table(table, tmp_path / "l.parquet", row_group_size=2)
    assert listed(tmp_path / "l.parquet") == [
        ("a", None),
        ("b", None),
        ("l.parquet#row3", "no id"),
        ("l.parquet#row4", "duplicate"),
    ]
    broken = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    pq.write_table(pa.table({"id": broken, "hypotheses": [[{"domain": "video"}]] * 2}), tmp_path / "l.parquet")
    assert listed(tmp_path / "l.parquet") == [("a", None), ("l.parquet#row2", "not UTF-8")]


def test_a_file_without_problems_has_no_column_of_them(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text(one("a") + "\n" + one("b"))
    (table,) = ListFile(str(tmp_path / "l.jsonl")).tables()
    assert "problem" not in table.column_names


def test_a_file_of_bad_lines_says_what_is_wrong_with_the_first(tmp_path: Path) -> None:
    (tmp_path / "l.jsonl").write_text("{\n{\n")
    with pytest.raises(UserError, match=r"holds no list \(the first is l\.jsonl#line1: malformed record\); expected a"):
        ListFile(str(tmp_path / "l.jsonl"))
