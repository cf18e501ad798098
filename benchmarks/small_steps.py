"""A small step on Ray after the first: by the warm workers of the crew, and by an execution of Ray Data, in one run.

    python -m benchmarks.small_steps [--steps 5] [--workers 2]

A step deals 40 records in 4 shards. Prints a JSON line for each way: the seconds of the first step, which starts what
it needs, and of the later ones (median, least, most).
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

from gristmill.actors.nlu.folds import Folds
from gristmill.cluster import session
from gristmill.cluster.crew import crew
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.index import Cut, ShardSpec
from gristmill.shards.receipt import Receipt
from gristmill.shards.step import ShardTask, Step

import pyarrow as pa


class OnRayData(RayRunner):
    """Makes all steps on Ray Data."""

    def execute(self, task: ShardTask, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Make the shards, in an execution of their own."""
        if not specs:
            return
        from gristmill.cluster import data_execution

        crew().end()
        pools, cpus = self._pools(task, len(specs), frozenset())
        yield from data_execution.execute(task, specs, pools, cpus, frozenset(), lambda: None, limited=True)


def timed(runner: RayRunner, out: str, source: SealedSet, number: int) -> float:
    """Return the seconds of a step."""
    begun = time.perf_counter()
    run_step(Step(f"dealt{number}", (Folds.stage(),), source, cut=Cut(rows=10)), out, runner, 0)
    return time.perf_counter() - begun


def main() -> None:
    """Time the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    ways: dict[str, Any] = {"crew": RayRunner(given.workers), "ray data": OnRayData(given.workers)}
    found: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as out:
        rows = pa.table({"id": [f"r{n:02d}" for n in range(40)], "text": ["lights on"] * 40})
        source = seal_tables(f"{out}/rows", "rows", [rows])
        session.start(given.workers)
        for name, runner in ways.items():
            for number in range(given.steps + 1):
                found[name].append(timed(runner, f"{out}/{name.replace(' ', '_')}", source, number))
    for name, (first, *later) in found.items():
        row = {"first_s": first, "median_s": statistics.median(later), "least_s": min(later), "most_s": max(later)}
        print(json.dumps({"way": name, **{key: round(value, 3) for key, value in row.items()}}))


if __name__ == "__main__":
    main()
