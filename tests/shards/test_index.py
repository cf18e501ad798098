from __future__ import annotations

import pytest

from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut, Join, cut_shards, keep_shards
from tests.pipelines.tiny import texts


def sealed(folder, *sizes: int, name: str = "s") -> SealedSet:
    starts = [sum(sizes[:i]) for i in range(len(sizes))]
    return seal_tables(
        str(folder / name), name, [texts(n, start=start) for n, start in zip(sizes, starts, strict=True)]
    )


def ids(source: SealedSet, cut: Cut) -> list[list[str]]:
    return [spec.read()["id"].to_pylist() for spec in cut_shards(source, cut)]


@pytest.mark.parametrize("sizes", [(10,), (3, 7), (1, 1, 1, 7), (4, 4, 2)])
def test_shards_hold_every_row_once_in_order_however_the_input_was_cut(tmp_path, sizes: tuple[int, ...]) -> None:
    made = ids(sealed(tmp_path, *sizes), Cut(rows=4))
    assert [len(shard) for shard in made] == [4, 4, 2]
    assert [record for shard in made for record in shard] == [f"t/{i:05d}" for i in range(10)]


def test_seconds_end_a_shard(tmp_path) -> None:
    # Each record lasts 2 s.
    assert [len(shard) for shard in ids(sealed(tmp_path, 10), Cut(seconds=6.5))] == [3, 3, 3, 1]


def test_a_row_above_the_limit_is_a_shard_of_its_own(tmp_path) -> None:
    assert [len(shard) for shard in ids(sealed(tmp_path, 3), Cut(seconds=0.5))] == [1, 1, 1]


def test_bytes_end_a_shard(tmp_path) -> None:
    import pyarrow as pa

    table = texts(6)
    table = table.append_column("size", pa.array([10, 10, 10, 25, None, 1], pa.int64()))
    source = seal_tables(str(tmp_path / "s"), "s", [table])
    assert [len(shard) for shard in ids(source, Cut(bytes=20))] == [2, 1, 1, 2]


def test_kept_shards_are_the_inputs_own(tmp_path) -> None:
    specs = list(keep_shards(sealed(tmp_path, 2, 3)))
    assert [(spec.name, spec.rows) for spec in specs] == [("000000", 2), ("000001", 3)]


def test_a_join_of_sets_that_were_cut_otherwise_is_refused(tmp_path) -> None:
    left, right = sealed(tmp_path, 2, 3), sealed(tmp_path, 5, name="r")
    with pytest.raises(UserError, match="r cannot be joined to s: it has no shard 000001"):
        list(keep_shards(left, (Join(right, ("text",)),)))
