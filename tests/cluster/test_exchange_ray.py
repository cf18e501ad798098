"""Rows by key on Ray: the bytes of one process, whatever the workers and their deaths."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.engine import Progress, Runner, run_step
from gristmill.shards.exchange import deal, merge
from gristmill.shards.receipt import Receipt
from gristmill.shards.reducers import First, FirstSettings
from gristmill.shards.stage import Resources

pytestmark = pytest.mark.usefixtures("ray_session")
SHARDS, ROWS, PARTS = 12, 200, 8


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> SealedSet:
    rng = np.random.default_rng(3)
    tables = [
        pa.table(
            {
                "id": [f"{shard:02d}-{row:03d}" for row in range(ROWS)],
                "user": [f"u{n}" for n in rng.integers(0, 300, ROWS)],
                "turn": rng.integers(0, 9, ROWS),
            }
        )
        for shard in range(SHARDS)
    ]
    return seal_tables(str(tmp_path_factory.mktemp("turns")), "turns", tables)


class Killer(Progress):
    """Kills all workers when the first shard of each step is committed."""

    def __init__(self) -> None:
        self.killed: dict[str, int] = {}
        self.current = ""

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        self.current = name

    def advance(self, receipt: Receipt) -> None:
        if self.current not in self.killed:
            workers = [
                p for p in psutil.Process().children(recursive=True) if p.name().startswith("ray::WarmStageActor")
            ]
            for worker in workers:
                worker.kill()
            self.killed[self.current] = len(workers)


def digests(source: SealedSet, out: Path, runner: Runner, progress: Progress | None = None) -> list[str]:
    """Deal and merge with little memory, so that the parts are sorted on disk; return the sets' digests."""
    dealt = run_step(deal("dealt", source, ["user"], ["turn"], parts=PARTS), str(out), runner, 0, progress)
    first = First.stage(FirstSettings(order=("turn",), n=4, columns=("turn",)), resources=Resources(memory=1 << 14))
    made = run_step(merge("first", dealt, first), str(out), runner, 0, progress)
    assert [gap for result in audit_below(str(out)) for gap in result.gaps] == []
    return [dealt.digest, made.digest]


@pytest.fixture(scope="module")
def alone(source: SealedSet, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    return digests(source, tmp_path_factory.mktemp("alone"), InProcessRunner())


@pytest.mark.parametrize(
    ("workers", "killed"),
    [
        pytest.param(1, False, marks=pytest.mark.slow),
        (2, True),
        pytest.param(4, False, marks=pytest.mark.slow),
    ],
)
def test_the_same_bytes_whatever_the_workers(
    tmp_path: Path, source: SealedSet, alone: list[str], workers: int, killed: bool
) -> None:
    killer = Killer() if killed else None
    assert digests(source, tmp_path, RayRunner(workers), killer) == alone
    assert killer is None or all(killer.killed[name] for name in ("dealt", "first"))
