"""Files of the export's stages: safe names, and bytes that depend on the records only."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors import export
from gristmill.actors.audio import encode
from gristmill.shards.errors import GristmillError, UserError
from gristmill.shards.schema import AUDIO, SPEECH
from gristmill.shards.work import StageWorker, Work


def speech(ids: list[str]) -> pa.Table:
    rows = []
    for number, name in enumerate(ids):
        samples = np.random.default_rng(number // 2).uniform(-0.5, 0.5, 800).astype(np.float32)  # two and two alike
        rows.append({"id": name, "audio": {"bytes": encode(samples, 8000), "path": None}, "text": f"text {number}"})
    return pa.Table.from_pylist(rows, schema=SPEECH)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def written(form: str, dest: Path, table: pa.Table) -> pa.Table:
    return StageWorker(export.writer(form, str(dest), table.schema), 0)(Work("s", table, len(table))).table


def test_a_name_never_leads_out_of_the_destination(tmp_path: Path) -> None:
    ids = ["../../up.wav", "/etc/passwd", "a b/ü.flac", "x" * 500, "..", "c.d.e"]
    table = speech(ids)
    made = written("nemo", tmp_path / "dest", table)
    paths = made["file_path"].to_pylist()
    assert sorted(files(tmp_path)) == sorted(f"dest/{path}" for path in paths)
    assert all(len(path) < 110 and ".." not in path and path.isascii() for path in paths)
    assert len(set(paths)) == len(ids), "records of equal audio are files of their own"
    audio = {row["id"]: row["audio"]["bytes"] for row in table.to_pylist()}
    for row in made.to_pylist():
        assert (tmp_path / "dest" / row["file_path"]).read_bytes() == audio[row["id"]], "FLAC is passed on as it is"


def test_a_tar_depends_on_its_records_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = speech(["a/../b.wav", "a/c.d"])
    made = written("webdataset", tmp_path / "one", table)
    monkeypatch.setattr("time.time", lambda: 1e9)
    written("webdataset", tmp_path / "two", table)
    assert files(tmp_path / "one") == files(tmp_path / "two")
    ((name, data),) = files(tmp_path / "one").items()
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        members = tar.getmembers()
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname, m.mode) for m in members} == {(0, 0, 0, "", "", 0o644)}
        keys = [m.name.split(".")[0] for m in members]
        assert [m.name.removeprefix(key) for m, key in zip(members, keys, strict=True)] == [
            ".flac",
            ".json",
            ".txt",
        ] * 2
    assert len(set(keys)) == 2
    for row, flac in zip(made.to_pylist(), table["audio"].to_pylist(), strict=True):
        assert (row["file_path"], row["file_bytes"]) == (name, len(data))
        assert data[row["file_place"] :].startswith(flac["bytes"]), "the place is where the audio begins"


def test_a_storage_that_fails_stops_the_run_and_quarantines_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for form in export.FORMATS:
        with pytest.raises(GristmillError, match="cannot be written"):
            written(form, tmp_path / "file", speech(["a"]))


def test_where_it_goes_is_in_no_fingerprint() -> None:
    identities = [export.writer("nemo", f"s3://key:canary@{place}/x", SPEECH).identity() for place in ("a", "b")]
    assert identities[0] == identities[1]
    assert "canary" not in str(identities)


def test_columns_that_a_format_cannot_hold_are_refused() -> None:
    schema = SPEECH.append(pa.field("where", pa.struct([("x", pa.int32())]))).append(pa.field("raw", pa.binary()))
    assert "where" not in export.writer("huggingface", "d", schema).params.columns
    assert {"where", "raw", "audio"}.isdisjoint(export.writer("lhotse", "d", schema).params.columns)
    assert export.writer("lhotse", "d", schema, ["text", "audio"]).params.columns == ("id", "text")
    for form, column in (("huggingface", "where"), ("nemo", "where"), ("webdataset", "raw")):
        with pytest.raises(UserError, match=f"--columns {column}: {form} does not support"):
            export.writer(form, "d", schema, [column])
    other = pa.schema([pa.field("id", pa.string()), pa.field("audio", pa.list_(AUDIO))])
    with pytest.raises(UserError, match="has no audio"):
        export.writer("nemo", "d", other)
