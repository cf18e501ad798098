"""Rows of Parquet and Arrow files: what one value costs, and the types of columns that are read."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings

NOT_UTF8 = b"\xed\xa0\xbd"


def sound(seconds: float = 0.5) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, 0.3 * np.sin(np.arange(round(seconds * 8000)) * 0.1), 8000, format="WAV")
    return file.getvalue()


def probed(path: Path, columns: dict[str, pa.Array]) -> list[dict[str, Any]]:
    table = pa.table(columns)
    if path.suffix == ".arrow":
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
    else:
        pq.write_table(table, path)
    (found,) = list_sources(str(path))
    return Probe(ProbeSettings())(found).to_pylist()


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_value_that_cannot_be_held_costs_its_row_only_where_it_is_needed(tmp_path: Path, suffix: str) -> None:
    """A text that is not UTF-8 rejects its row; a column that nobody needs rejects none."""
    texts = pa.array([b"one", NOT_UTF8, b"three", b"four"]).view(pa.string())
    columns = {
        "audio": pa.array([sound()] * 4),
        "text": texts,
        "speaker": pa.array([b"a", b"b", b"c", NOT_UTF8]).view(pa.string()).dictionary_encode(),
        "note": pa.array([NOT_UTF8] * 3 + [b"n"], pa.large_binary()).view(pa.large_string()),
        "date": pa.array([2**62, 0, 2**62, 0], pa.timestamp("us")),
        "day": pa.array([2**31 - 1] * 4, pa.date32()),
    }
    found = probed(tmp_path / f"a.{suffix}", columns)
    assert [row["reject_reason"] for row in found] == [None, "not UTF-8", None, "not UTF-8"]
    assert [row["text"] for row in found] == ["one", None, "three", None]
    assert found[0]["extra"] == '{"date": 4611686018427387904, "day": 2147483647}'


def test_a_path_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(sound())
    paths = pa.array([b"a.wav", NOT_UTF8]).view(pa.string())
    audio = pa.StructArray.from_arrays([pa.nulls(2, pa.binary()), paths], names=["bytes", "path"])
    for number, column in enumerate((paths, audio)):
        found = probed(tmp_path / f"{number}.parquet", {"audio": column})
        assert [row["reject_reason"] for row in found] == [None, "not UTF-8"]


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_audio_in_categories_or_of_one_size(tmp_path: Path, suffix: str) -> None:
    data = [sound(), sound()]
    kinds = (pa.array(data).dictionary_encode(), pa.array(data, pa.binary(len(data[0]))))
    for number, column in enumerate(kinds):
        found = probed(tmp_path / f"{number}.{suffix}", {"audio": column, "text": pa.array(["one", "two"])})
        assert [(row["text"], row["duration"], row["reject_reason"]) for row in found] == [
            ("one", 0.5, None),
            ("two", 0.5, None),
        ]


def test_a_speaker_of_a_type_that_is_not_read_is_told(tmp_path: Path) -> None:
    speakers = pa.array([{"id": 7}], pa.struct([("id", pa.int64())]))
    pq.write_table(pa.table({"audio": [sound()], "text": ["one"], "speaker": speakers}), tmp_path / "a.parquet")
    told: list[str] = []
    assert list(list_sources(str(tmp_path / "a.parquet"), say=told.append))
    assert told[0] == f"{tmp_path}: no speaker is read from speaker, of struct<id: int64>; expected plain values"
