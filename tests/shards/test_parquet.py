from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pyarrow as pa

from gristmill.shards import canonical
from gristmill.shards.parquet import decode_table, encode_table, read_table
from gristmill.shards.schema import FEATURE_FIELDS, SPEECH, TOPK_FIELDS

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


def test_columns_can_be_read_apart(root: str) -> None:
    from gristmill.shards.store import join, write_bytes

    table = make_table()
    write_bytes(join(root, "x.parquet"), encode_table(table))
    back = read_table(join(root, "x.parquet"), ["duration", "id"])
    assert sorted(back.column_names) == ["duration", "id"]
    assert back["id"].equals(table["id"])


def test_audio_is_marked_for_the_datasets_library() -> None:
    metadata = decode_table(encode_table(make_table(1))).schema.metadata
    assert json.loads(metadata[b"huggingface"])["info"]["features"]["audio"]["_type"] == "Audio"


def test_an_empty_table_keeps_its_columns() -> None:
    table = make_table(0)
    assert decode_table(encode_table(table)).schema.equals(table.schema)
