"""Ingest where the storage fails or refuses: no fault of the record, unless it is a file of its own."""

from __future__ import annotations

import io
from pathlib import Path

import fsspec
import fsspec.implementations.local
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.shards.errors import UserError
from tests.actors.sources.made import write_tar
from tests.actors.speech.recordings import encoded, probe, reasons


def test_storage_that_refuses_is_no_fault_of_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.flac").write_bytes(encoded())
    listed = next(list_sources(str(tmp_path)))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/broken/a.flac", encoded())

    class Lost(io.BytesIO):
        reads = 0

        def read(self, count: int | None = -1) -> bytes:
            self.reads += 1
            if self.reads > 1:
                raise ConnectionResetError("the link went down")
            return super().read(count)

    monkeypatch.setattr(type(memory), "open", lambda *_, **__: Lost(encoded()))
    place = listed.schema.get_field_index("url")
    remote = listed.set_column(place, listed.schema.field(place), pa.array(["memory://broken/a.flac"]))
    monkeypatch.setenv("GRISTMILL_STORAGE_SECONDS", "0.1")
    with pytest.raises(UserError, match=r"the storage cannot be reached: .*the link went down"):
        Probe(ProbeSettings())(remote)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError("denied")

    monkeypatch.setattr(type(memory), "open", refuse)
    with pytest.raises(UserError, match="access refused"):
        Probe(ProbeSettings())(remote)
    monkeypatch.setattr(type(memory), "cat_file", refuse)
    with pytest.raises(UserError, match="access refused"):
        Load(LoadSettings(annotated=False))(
            Probe(ProbeSettings())(listed).set_column(place, "url", remote["url"]).drop_columns("reject_reason")
        )
    monkeypatch.undo()
    memory.rm("/broken", recursive=True)


def forbid(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Refuse local files of a name; permissions themselves would not stop a superuser."""

    def guarded(path: str, *arguments: object, **options: object) -> object:
        if str(path).endswith(name):
            raise PermissionError(13, "Permission denied", path)
        return open(path, *arguments, **options)

    monkeypatch.setattr(fsspec.implementations.local, "open", guarded, raising=False)


def test_a_local_file_without_permission_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for name in "abc":
        (corpus / f"{name}.flac").write_bytes(encoded())
        (corpus / f"{name}.txt").write_text(name)
    probed = probe(corpus).drop_columns("reject_reason")
    forbid(monkeypatch, "b.flac")
    assert reasons(probe(corpus)) == {"a.flac": None, "b.flac": "unreadable", "c.flac": None}
    assert reasons(Load(LoadSettings())(probed)) == {"a.flac": None, "b.flac": "unreadable", "c.flac": None}
    forbid(monkeypatch, "c.txt")
    assert reasons(probe(corpus)) == {"a.flac": None, "b.flac": None, "c.flac": "unreadable"}
    members = {"a.flac": encoded()}
    for name in ("1.tar", "2.tar"):
        write_tar(tmp_path / name, members)
    forbid(monkeypatch, "2.tar")
    assert probe(f"{tmp_path}/*.tar")["reject_reason"].to_pylist() == [None, "unreadable"]
    for name in ("1.parquet", "2.parquet"):
        pq.write_table(pa.table({"audio": [encoded()]}), tmp_path / name)
    forbid(monkeypatch, "1.parquet")
    assert probe(f"{tmp_path}/*.parquet")["reject_reason"].to_pylist() == ["unreadable", None]
