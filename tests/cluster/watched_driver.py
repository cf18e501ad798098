"""A recipe whose work shows in every series: rejects, quarantine, batches run again, measures, a GPU."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa

from gristmill.cluster.metrics import Price, TrainingMetrics, tell_progress
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.dataset import seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.index import Cut
from gristmill.shards.stage import BatchLimits, Resources, Stage
from gristmill.shards.step import Step

RECORDS = 24


class Checks:
    """Turns a record down with a reason that tells of it, breaks at another, and runs out of memory once a process."""

    def __init__(self) -> None:
        self.full = True

    def __call__(self, batch: pa.Table) -> pa.Table:
        ids = batch["id"].to_pylist()
        if self.full and len(ids) > 1:
            self.full = False
            raise MemoryError("full")
        if "r00" in ids:
            raise ValueError("this record breaks")
        time.sleep(0.05 * len(ids))
        reasons = [f"louder than {i} dB: {i}" if i.endswith("7") else None for i in ids]
        return batch.append_column("reject_reason", pa.array(reasons, pa.string()))


class Labels:
    """Gives the columns that the teacher and the mixer measure; only one of them is stored."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(0.05 * batch.num_rows)
        batch = batch.append_column("snr", pa.array([-5.0 + n % 3 for n in range(batch.num_rows)], pa.float32()))
        return batch.append_column("label_entropy", pa.array([0.5] * batch.num_rows, pa.float32()))


def steps(source: Any) -> Step:
    """Return the step: a check on a CPU, then labels on half a GPU."""
    labels = Stage(
        "labels",
        f"{__name__.replace('__main__', 'tests.cluster.watched_driver')}:Labels",
        adds=(pa.field("snr", pa.float32()),),
        resources=Resources(cpus=0.5, gpus=0.5, max_workers=1),
        deterministic=False,
        measures=("snr", "label_entropy"),
    )
    checks = Stage("checks", labels.actor.replace("Labels", "Checks"), batch=BatchLimits(rows=4))
    return Step("labelled", (checks, labels), source, cut=Cut(rows=4), max_quarantine=0.1)


def main(out: str) -> None:
    """Run it, say so, and stay: series last as long as the process that records them."""
    rows = [{"id": f"r{number:02d}", "duration": 2.0} for number in range(RECORDS)]
    source = seal_tables(f"{out}/records/0", "records", [pa.Table.from_pylist(rows)])
    runner = RayRunner(run=Path(out).name, price=Price(cpu_hour=0.05, gpu_hour=2.0))
    run_step(steps(source), out, runner, 0)
    import ray

    Path(out, "asked").write_text(ray.get(ray.remote(lambda: os.environ.get("RAY_ADDRESS", "")).remote()))
    TrainingMetrics(Path(out).name, "student").point({"step": 4, "steps": 10, "loss": 0.2})
    tell_progress(Path(out).name, 0.25)
    Path(out, "through").touch()
    sys.stdin.read()


if __name__ == "__main__":
    main(sys.argv[1])
