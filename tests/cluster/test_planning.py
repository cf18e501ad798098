"""Planning of pools, and round trips through envelopes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from gristmill.cluster.envelope import open_receipt, pack, pack_error, unpack
from gristmill.cluster.placement import GpuWorkers, Most, Placement, Workers
from gristmill.cluster.pools import Capacity, plan_pools
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import Step
from gristmill.shards.work import REJECTS, Work
from tests.fault.law_actors import corpus, table


def stages(*resources: Resources) -> list[Stage]:
    return [Stage(f"s{place}", "x:Y", resources=each) for place, each in enumerate(resources)]


def test_equal_stages_share_their_workers() -> None:
    (pool,) = plan_pools(stages(Resources(), Resources()), Capacity(4, 0), 100)
    assert (pool.places, pool.least, pool.most, pool.initial) == ((0, 1), 1, 4, 4)


def test_gpu_stages_stand_apart_and_start_at_full_size() -> None:
    gpu = Resources(gpus=0.5)
    pools = plan_pools(stages(Resources(), gpu, gpu), Capacity(8, 2), 100)
    assert [pool.places for pool in pools] == [(0,), (1,), (2,)]
    assert [pool.initial for pool in pools] == [1, 4, 4]


@pytest.mark.parametrize(("part", "workers"), [(0.5, 4), (0.4, 4), (0.6, 2), (0.1, 20), (1, 2), (2, 1)])
def test_a_fraction_of_a_gpu_is_on_one_gpu(part: float, workers: int) -> None:
    (pool,) = plan_pools(stages(Resources(gpus=part)), Capacity(8, 2), 100)
    assert pool.most == workers


@pytest.mark.parametrize("cpus", [1, 2, 4])
def test_all_pools_fit_at_their_least_size(cpus: int) -> None:
    asked = [Resources(max_workers=3), Resources(min_workers=2), Resources(cpus=4)]
    pools = plan_pools(stages(*asked), Capacity(cpus, 0), 100)
    assert sum(pool.least * pool.cpus for pool in pools) < cpus
    assert all(1 <= pool.least <= pool.initial <= pool.most for pool in pools)


def test_no_more_workers_than_shards() -> None:
    (pool,) = plan_pools(stages(Resources(min_workers=4)), Capacity(16, 0), 2)
    assert (pool.least, pool.most) == (2, 2)


def test_missing_gpu_is_reported() -> None:
    with pytest.raises(UserError, match="stage s0 needs 1 GPU"):
        plan_pools(stages(Resources(gpus=1)), Capacity(4, 0), 10)


def test_nodes_that_may_be_added_are_counted() -> None:
    """A head without CPUs, to which CPU and GPU nodes are added: plans are not limited to the current nodes."""
    decode, label = plan_pools(stages(Resources(), Resources(gpus=0.5)), Capacity(8, 2), 100, now=Capacity(1, 0))
    assert (decode.cpus, decode.least, decode.initial, decode.most) == (0.95, 1, 1, 8)
    assert (label.least, label.initial, label.most) == (4, 4, 4)
    (alone,) = plan_pools(stages(Resources()), Capacity(8, 0), 100, now=Capacity(2, 0))
    assert (alone.least, alone.initial, alone.most) == (1, 2, 8)


def test_placement_is_not_in_the_fingerprint(tmp_path: Path) -> None:
    placement = Placement(
        most=Most(gpus=4),
        cpu=Workers(cpus=2, labels={"ray.io/node-group": "cpu"}),
        gpu=GpuWorkers(gpus=0.25, max_workers=40, memory=1 << 30),
    )
    source = corpus(str(tmp_path), 1)
    plain = Step("s", tuple(stages(Resources(), Resources(gpus=1))), source)
    placed = replace(plain, stages=tuple(placement.placed(stage) for stage in plain.stages))
    assert placed.stages[0].resources == Resources(cpus=2, labels=(("ray.io/node-group", "cpu"),))
    assert placed.stages[1].resources == Resources(gpus=0.25, max_workers=40, memory=1 << 30)
    assert placed.fingerprint(1) == plain.fingerprint(1)


@pytest.mark.parametrize("given", [{"gpus": 1.5}, {"gpus": 0}, {"min_workers": 3, "max_workers": 2}, {"cpu": 1}])
def test_wrong_placements_are_refused(given: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match=next(iter(given))):
        GpuWorkers(**given)


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
    """Cannot be unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(one + two)


def test_errors_cross_unchanged_if_they_can_be_pickled() -> None:
    with pytest.raises(UserError, match="no such") as caught:
        open_receipt(pack_error(UserError("no such")))
    assert "raised in a worker" in caught.value.__notes__[0]
    with pytest.raises(RuntimeError, match="Stubborn: ab"):
        open_receipt(pack_error(Stubborn("a", "b")))
