from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.shards import canonical, parquet
from gristmill.shards.errors import Damaged
from gristmill.shards.parquet import decode_table, describe, encode_table, read_table
from gristmill.shards.schema import FEATURE_FIELDS, SPEECH, TOPK_FIELDS
from gristmill.shards.store import join, write_bytes

MAKE = """
import hashlib, sys
sys.path[:0] = {path!r}
from test_parquet import make_table
from gristmill.shards.parquet import encode_table
print(hashlib.sha256(encode_table(make_table())).hexdigest())
"""


def make_table(rows: int = 50) -> pa.Table:
    rng = np.random.default_rng(0)
    schema = pa.schema([*SPEECH, *FEATURE_FIELDS, *TOPK_FIELDS], metadata={"b": "2", "a": "1"})
    records = [
        {
            "id": f"r{i}",
            "audio": {"bytes": rng.bytes(100), "path": None},
            "sampling_rate": 16000,
            "duration": float(rng.random()),
            "text": None if i % 7 == 0 else f"text {i}",
            "confidence": float(np.float32(rng.random())),
            "features": rng.normal(size=20).astype(np.float16).tolist(),
            "feature_frames": 5,
            "topk_ids": rng.integers(0, 500, 12).tolist(),
            "topk_logprobs": (-rng.random(12)).astype(np.float16).tolist(),
            "tail_logmass": (-rng.random(4)).astype(np.float16).tolist(),
            "topk_frames": 4,
        }
        for i in range(rows)
    ]
    return pa.Table.from_pylist(records, schema=schema)


def test_a_table_comes_back_as_it_was() -> None:
    table = make_table()
    back = decode_table(encode_table(table))
    assert back.equals(table)
    assert {k: v for k, v in back.schema.metadata.items() if k != b"huggingface"} == table.schema.metadata


def test_bytes_do_not_depend_on_chunks_or_the_order_of_metadata() -> None:
    table = make_table()
    whole = encode_table(table)
    chunked = pa.concat_tables([table.slice(0, 7), table.slice(7, 13), table.slice(20)])
    assert encode_table(chunked) == whole
    assert encode_table(table.replace_schema_metadata({"a": "1", "b": "2"})) == whole
    longer = pa.concat_tables([make_table(3), table]).slice(3)
    assert encode_table(longer) == whole


def test_another_process_writes_the_same_bytes() -> None:
    code = MAKE.format(path=[p for p in sys.path if p] + [__file__.rpartition("/")[0]])
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert made.stdout.strip() == canonical.sha256(encode_table(make_table()))


def test_columns_can_be_read_apart(root: str, monkeypatch) -> None:
    table = make_table()
    data = encode_table(table)
    file = describe(data, table.num_rows, lambda sha: "x.parquet")
    write_bytes(join(root, "x.parquet"), data)
    for small in (0, len(data)):  # its pages alone, or the whole file
        monkeypatch.setattr(parquet, "SMALL", small)
        back = read_table(root, file, ["duration", "id"])
        assert back.column_names == ["duration", "id"]
        assert back["id"].equals(table["id"])
        assert back.schema.metadata == decode_table(data).schema.metadata


def test_every_flipped_bit_of_a_file_is_found_or_changes_no_value(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(parquet, "SMALL", 0)
    table = make_table(3)
    data = encode_table(table)
    file = describe(data, table.num_rows, lambda sha: "x.parquet")
    columns = table.column_names
    write_bytes(str(tmp_path / "x.parquet"), data)
    sound = read_table(str(tmp_path), file, columns)
    found = 0
    for bit in np.random.default_rng(0).permutation(8 * len(data))[:1500].tolist():
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "x.parquet").write_bytes(damaged)
        try:
            assert read_table(str(tmp_path), file, columns).equals(sound), bit
        except Damaged:
            found += 1
        with pytest.raises(Damaged, match="not those that were committed"):
            read_table(str(tmp_path), file)
    assert found > 1000


def test_a_file_in_the_place_of_another_is_found(tmp_path: Path, monkeypatch) -> None:
    """The two are alike in all that a footer tells: sizes, counts, smallest and largest values."""
    flags = [[True, False, True, False], [True, True, False, False]]
    pair = [encode_table(pa.table({"id": list("abcd"), "ok": one})) for one in flags]
    assert len({len(data) for data in pair}) == 1
    files = [describe(data, 4, lambda sha: f"{sha}.parquet") for data in pair]
    for file, data in zip(files, reversed(pair), strict=True):
        (tmp_path / file.path).write_bytes(data)
    for small in (0, 1 << 20):
        monkeypatch.setattr(parquet, "SMALL", small)
        for file in files:
            with pytest.raises(Damaged, match="not those that were committed"):
                read_table(str(tmp_path), file, ["ok"])


@pytest.mark.parametrize("small", [0, 1 << 20])
def test_a_missing_and_a_cut_file_are_damage(root: str, monkeypatch, small: int) -> None:
    monkeypatch.setattr(parquet, "SMALL", small)
    data = encode_table(make_table())
    file = describe(data, 1, lambda sha: "x.parquet")
    with pytest.raises(Damaged, match=r"x\.parquet: the file is missing"):
        read_table(root, file, ["id"])
    write_bytes(join(root, "x.parquet"), data[:-9])
    for columns in (["id"], None):
        with pytest.raises(Damaged, match=f"holds {len(data) - 9} bytes, {len(data)} were committed"):
            read_table(root, file, columns)


def test_audio_is_marked_for_the_datasets_library() -> None:
    metadata = decode_table(encode_table(make_table(1))).schema.metadata
    assert json.loads(metadata[b"huggingface"])["info"]["features"]["audio"]["_type"] == "Audio"


def test_an_empty_table_keeps_its_columns() -> None:
    table = make_table(0)
    assert decode_table(encode_table(table)).schema.equals(table.schema)
