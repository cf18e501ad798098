"""How pools are planned, and that an envelope gives back what was put in."""

from __future__ import annotations

import pyarrow as pa
import pytest

from cluster.envelope import open_receipt, pack, pack_error, unpack
from cluster.ray_runner import plan_pools
from shards.errors import UserError
from shards.stage import Resources, Stage
from shards.work import REJECTS, Work
from tests.fault.law_actors import table


def stages(*resources: Resources) -> list[Stage]:
    return [Stage(f"s{place}", "x:Y", resources=each) for place, each in enumerate(resources)]


def test_equal_stages_share_their_workers() -> None:
    (pool,) = plan_pools(stages(Resources(), Resources()), 4, 0, 100)
    assert (pool.places, pool.least, pool.most, pool.initial) == ((0, 1), 1, 4, 4)


def test_gpu_stages_stand_apart_and_start_at_full_size() -> None:
    gpu = Resources(gpus=0.5)
    pools = plan_pools(stages(Resources(), gpu, gpu), 8, 2, 100)
    assert [pool.places for pool in pools] == [(0,), (1,), (2,)]
    assert [pool.initial for pool in pools] == [1, 4, 4]


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_all_pools_fit_at_their_least_size(cpus: int) -> None:
    asked = [Resources(max_workers=3), Resources(min_workers=2), Resources(cpus=4)]
    pools = plan_pools(stages(*asked), cpus, 0, 100)
    assert sum(pool.least * pool.cpus for pool in pools) < cpus
    assert all(1 <= pool.least <= pool.initial <= pool.most for pool in pools)


def test_no_more_workers_than_shards() -> None:
    (pool,) = plan_pools(stages(Resources(min_workers=4)), 16, 0, 2)
    assert (pool.least, pool.most) == (2, 2)


def test_missing_gpu_is_told() -> None:
    with pytest.raises(UserError, match="stage s0 needs 1 GPU"):
        plan_pools(stages(Resources(gpus=1)), 4, 0, 10)


def test_envelope_gives_back_the_work() -> None:
    rejects = pa.table([["a"], ["a"], ["stage"], ["why"]], schema=REJECTS)
    rows = table(3, 5).replace_schema_metadata({"key": "value"})
    work = Work("000001", rows, 6, rejects=[rejects], origin="parent_id", seconds={"x": 0.5}, batches_halved=2)
    back = unpack(pack(work))
    assert back.table.equals(rows, check_metadata=True)
    assert (back.shard, back.records_in, back.origin, back.seconds, back.batches_halved) == (
        "000001",
        6,
        "parent_id",
        {"x": 0.5},
        2,
    )
    assert back.rejects[0].equals(rejects)
    assert unpack(pack(Work("e", rows.slice(0, 0), 0))).table.num_rows == 0


class Stubborn(Exception):
    """Cannot be made again from its text."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def test_errors_cross_as_themselves_where_they_can() -> None:
    with pytest.raises(UserError, match="no such") as caught:
        open_receipt(pack_error(UserError("no such")))
    assert "raised in a worker" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Stubborn: ab"):
        open_receipt(pack_error(Stubborn("a", "b")))
