"""Elements of JSON documents: the same values as of the whole document, at any cut of its blocks, or one fault."""

from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path

import pytest

from gristmill.actors.sources import documents
from gristmill.actors.sources.documents import elements
from gristmill.actors.sources.unlisted import FileFault

VALUES = [{"a": '\u00e9"]}\\', "n": [-1.5e3, {}]}, 12, None, {"b": "\U0001f600"}, "x,"]


@pytest.mark.parametrize("block", [1, 2, 3, 7, 1 << 20])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_elements_are_those_of_the_whole_document_wherever_its_blocks_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: int, ascii_only: bool
) -> None:
    monkeypatch.setattr(documents, "BLOCK", block)
    array, keyed = tmp_path / "a.json", tmp_path / "b.json.gz"
    array.write_text("\ufeff" + json.dumps(VALUES, indent=2, ensure_ascii=ascii_only) + "\n")
    keyed.write_bytes(gzip.compress(json.dumps({str(n): value for n, value in enumerate(VALUES)}).encode()))
    found = list(elements(str(array)))
    assert [one.value for one in found] == VALUES
    assert [json.loads(one.text) for one in found] == VALUES
    assert [(one.key, one.value) for one in elements(str(keyed))] == [(str(n), one) for n, one in enumerate(VALUES)]


@pytest.mark.parametrize("empty", ["[]", " { } "])
def test_an_empty_document_has_no_element(tmp_path: Path, empty: str) -> None:
    (tmp_path / "a.json").write_text(empty)
    assert not list(elements(str(tmp_path / "a.json")))


@pytest.mark.parametrize(
    ("text", "listed", "said"),
    [
        (b"", 0, "is empty"),
        (b"12", 0, "no JSON array or object"),
        (b"[1, 2", 1, "ends in an element"),
        (b'[{"a": 1}, {"a": ', 1, "ends in an element"),
        (b'[{"a": 1}, {"a" 1, "b": "and so on, and on"}]', 1, "Expecting ':' delimiter, at letter 16"),
        (b"[1 2]", 1, "expected a comma or ]"),
        (b'{1: "a"}', 0, "key is missing"),
        (b"[1] [2]", 1, "something follows its end"),
        (b'["a", "\xff"]', 0, "no UTF-8"),
    ],
)
def test_what_is_no_whole_document_is_a_fault_behind_what_is_whole(
    tmp_path: Path, text: bytes, listed: int, said: str
) -> None:
    (tmp_path / "a.json").write_bytes(text)
    given = elements(str(tmp_path / "a.json"))
    assert len(list(itertools.islice(given, listed))) == listed
    with pytest.raises(FileFault, match=said):
        next(given)


def test_an_element_that_is_too_long_is_a_fault_before_it_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "BLOCK", 64)
    monkeypatch.setattr(documents, "LINE_BYTES", 256)
    (tmp_path / "a.json").write_text(json.dumps(["short", "long" * 1000]))
    with pytest.raises(FileFault, match="more than 256 letters"):
        list(elements(str(tmp_path / "a.json")))
