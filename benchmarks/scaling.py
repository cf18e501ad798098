"""The speed-up of two workers over one, on a stage that keeps a core busy. Goal: 1.8.

Whole steps are timed, including the start of the workers, minus the time of a step of one shard; the two alternate.
Run: ``python -m benchmarks.scaling``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time

from gristmill.cluster import session
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import run_step
from gristmill.shards.index import Cut
from gristmill.shards.step import Step

from benchmarks.loads import corpus, heavy

RECORDS = 4000
ROUNDS = 12000  # about 6 ms per record
REPEATS = 3


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    session.start(2)
    with tempfile.TemporaryDirectory() as folder:
        whole, little = corpus(f"{folder}/whole", RECORDS), corpus(f"{folder}/little", 2)

        def timed(source: SealedSet, workers: int, name: str) -> float:
            step = Step("heavy", heavy(source, ROUNDS).stages, source, cut=Cut(rows=100))
            begun = time.perf_counter()
            run_step(step, f"{folder}/{name}", RayRunner(workers), 0)
            return time.perf_counter() - begun

        timed(little, 2, "warm")
        seconds: dict[int, list[float]] = {1: [], 2: []}
        fixed: dict[int, list[float]] = {1: [], 2: []}
        for repeat in range(REPEATS):
            for workers in (1, 2):
                fixed[workers].append(timed(little, workers, f"little-{workers}-{repeat}"))
                seconds[workers].append(timed(whole, workers, f"whole-{workers}-{repeat}"))
    one, two = (statistics.median(seconds[workers]) for workers in (1, 2))
    start = {workers: statistics.median(fixed[workers]) for workers in (1, 2)}
    print(f"1 worker {one:.1f} s, 2 workers {two:.1f} s, of which start-up {start[1]:.1f} s and {start[2]:.1f} s")
    result = {"ratio": one / two, "ratio_without_start": (one - start[1]) / (two - start[2]), "goal": 1.8}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
