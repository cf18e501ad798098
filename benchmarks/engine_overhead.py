"""The engine's cost per record, against a plain loop and against Ray Data's default ``map_batches``.

All read the same Parquet files of 2,000 records, call the same actor on batches of 64 and write Parquet. The time of a
run is a fixed cost plus a cost per record: each variant is run at two sizes, and both terms are printed. Overhead is
the cost per record minus that of the plain loop. Run: ``python -m benchmarks.engine_overhead``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from gristmill.cluster import session
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import run_step
from gristmill.shards.store import join

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.loads import SHARD, Light, corpus, light

SIZES = (2, 102)  # shards
REPEATS = 3


def plain(source: SealedSet, out: str) -> None:
    """A hand-written loop."""
    actor = Light()
    Path(out).mkdir()
    for shard in source.shards:
        table = pq.read_table(join(source.url, shard.path))
        made = [actor(table.slice(start, 64)) for start in range(0, table.num_rows, 64)]
        pq.write_table(pa.concat_tables(made), f"{out}/{shard.name}.parquet", compression="zstd")


def ray_default(source: SealedSet, out: str) -> None:
    """Ray Data as in its guide: one actor, batches of 64."""
    import ray

    files = [join(source.url, shard.path) for shard in source.shards]
    compute = ray.data.ActorPoolStrategy(size=1)
    dataset = ray.data.read_parquet(files).map_batches(Light, batch_size=64, batch_format="pyarrow", compute=compute)
    dataset.write_parquet(out)


def engine(runner: InProcessRunner | RayRunner) -> Callable[[SealedSet, str], None]:
    return lambda source, out: run_step(light(source), out, runner, 0) and None


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    session.start(2)
    ways = {
        "plain loop": plain,
        "engine, in process": engine(InProcessRunner()),
        "engine, Ray, 1 worker": engine(RayRunner(1)),
        "Ray Data default": ray_default,
    }
    with tempfile.TemporaryDirectory() as folder:
        sources = [corpus(f"{folder}/corpus-{size}", size * SHARD) for size in SIZES]
        seconds: dict[str, list[list[float]]] = {name: [[], []] for name in ways}
        for repeat in range(REPEATS + 1):  # the first is a warm-up
            for name, way in ways.items():
                for place, source in enumerate(sources):
                    begun = time.perf_counter()
                    way(source, f"{folder}/{name}-{place}-{repeat}")
                    if repeat:
                        seconds[name][place].append(time.perf_counter() - begun)
    records = [size * SHARD for size in SIZES]
    each = {}
    for name, (small, large) in seconds.items():
        first, last = statistics.median(small), statistics.median(large)
        each[name] = (last - first) / (records[1] - records[0])
        print(f"{name:24} fixed {first - each[name] * records[0]:6.2f} s   {each[name] * 1e6:8.2f} us per record")
    over = {name: (cost - each["plain loop"]) * 1e6 for name, cost in each.items() if name != "plain loop"}
    for name, cost in over.items():
        print(f"{name:24} overhead {cost:8.2f} us per record")
    ratio = over["Ray Data default"] / max(over["engine, Ray, 1 worker"], 1e-9)
    print(json.dumps({"overhead_us": over, "default_over_engine_ratio": ratio, "goal_us": 30, "goal_ratio": 10}))


if __name__ == "__main__":
    main()
