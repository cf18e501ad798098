"""Artifacts are committed once: what a late attempt wrote is never read."""

from __future__ import annotations

from pathlib import Path

import pytest

from gristmill.shards import store
from gristmill.shards.artifact import get_artifact, put_artifact, read_file
from gristmill.shards.errors import Alarm
from gristmill.shards.walking import walk


def names(url: str) -> list[str]:
    return [file.url.rsplit("/", 1)[-1] for file in walk(url)]


def test_an_artifact_is_read_by_its_names(root: str) -> None:
    made = put_artifact(root, {"model.bin": b"weights", "notes.json": b"{}"}, {"of": "this"})
    found = get_artifact(root)
    assert found == made
    assert [found.read(name) for name in ("model.bin", "notes.json")] == [b"weights", b"{}"]
    assert put_artifact(root, {"model.bin": b"weights", "notes.json": b"{}"}, {}).digest == made.digest
    assert len(names(root)) == 3


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_late_attempt_writes_over_nothing(root: str, monkeypatch: pytest.MonkeyPatch, deterministic: bool) -> None:
    """Both attempts find no artifact; the first commits while the late one is writing its files."""
    write = store.write_bytes
    begun: list[str] = []

    def first_is_quicker(url: str, data: bytes) -> None:
        if not begun:
            begun.append(url)
            put_artifact(root, {"model.bin": b"first"}, {})
        write(url, data)

    monkeypatch.setattr(store, "write_bytes", first_is_quicker)
    if deterministic:
        with pytest.raises(Alarm, match="came out twice"):
            put_artifact(root, {"model.bin": b"late"}, {})
    else:
        assert put_artifact(root, {"model.bin": b"late"}, {}, deterministic=False).read("model.bin") == b"first"
    found = get_artifact(root)
    assert found is not None
    assert found.read("model.bin") == b"first"
    assert len(names(root)) == 2, "what the late attempt wrote must be gone"


def test_a_plain_folder_is_read_where_there_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"mine")
    assert read_file(str(tmp_path), "model.bin") == b"mine"
    with pytest.raises(FileNotFoundError):
        read_file(str(tmp_path), "other.bin")
    put_artifact(str(tmp_path), {"model.bin": b"committed"}, {})
    assert read_file(str(tmp_path), "model.bin") == b"committed"
    with pytest.raises(FileNotFoundError, match="holds no other"):
        read_file(str(tmp_path), "other.bin")


def test_a_large_file_comes_in_pieces(root: str) -> None:
    pieces = [bytes([number]) * (6 << 20) for number in range(7)]  # more than one part of an upload to S3
    made = put_artifact(root, {"lm.arpa": lambda: iter(pieces), "notes.json": b"{}"}, {})
    assert made.read("lm.arpa") == b"".join(pieces)
    assert put_artifact(root, {"lm.arpa": b"".join(pieces), "notes.json": b"{}"}, {}).digest == made.digest
