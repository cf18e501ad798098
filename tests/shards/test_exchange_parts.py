"""Parts of a dealt set: which one a key is in, and how one is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.shards import store
from gristmill.shards.errors import Damaged
from gristmill.shards.exchange import deal, group_names, hashes, part_of
from gristmill.shards.index import ByPart
from tests.shards.test_exchange import run_of, sealed


def test_a_reader_of_a_part_reads_no_other_and_compares_what_it_reads(tmp_path: Path) -> None:
    noise = np.random.default_rng(1).bytes
    table = pa.table(
        {"id": [f"r{n}" for n in range(400)], "key": list(range(400)), "blob": [noise(900) for _ in range(400)]}
    )
    run = run_of(tmp_path)
    dealt = run.step(deal("dealt", sealed(tmp_path, "rows", table, 400), ["key"], ["blob"], parts=2))
    path = Path(store.join(dealt.url, dealt.shards[0].path))
    first, last = ByPart(parts=2).shards(dealt)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 4] + b"damage" + whole[len(whole) // 4 + 6 :])
    assert last.slices[0].read_apart(["blob"]).num_rows == last.rows
    with pytest.raises(Damaged):
        first.slices[0].read_apart(["blob"])


def test_hashes_are_the_same_everywhere() -> None:
    texts = ["", "a", "abcdefgh", "abcdefghi", "\0", "शब्द", None]
    found = hashes(pa.array(texts)).tolist()
    assert found[:3] == [16294208416658607535, 6774081908283191102, 9245128965073422038]
    assert found[3:6] == [14690935847201975099, 6791897765849424158, 10593710728774737555]
    assert hashes(pa.array(["x", *texts, "y"]).slice(1, len(texts))).tolist() == found
    assert len(set(found)) == len(texts) - 1
    parts = np.bincount(part_of(hashes(pa.array([f"key-{n}" for n in range(64000)])), 64), minlength=64)
    assert 850 < parts.min() < parts.max() < 1150, "the parts are of like size"


def test_different_keys_have_different_names() -> None:
    table = pa.table({"a": ["x\ty", "x", "x\\", "x\\ty", None], "b": ["z", "y\tz", "z", "z", "z"]})
    names = group_names(table, ["a", "b"]).to_pylist()
    assert names[-1] is None
    assert len(set(names)) == len(names)
    numbers = pa.table({"n": pa.array([1, -2], pa.int8())})
    assert group_names(numbers, ["n"]).equals(group_names(numbers.cast(pa.schema([("n", pa.int64())])), ["n"]))
