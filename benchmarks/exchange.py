"""Rows by key beside DuckDB's and Polars' group-by: time of one thread each, and the memory of one worker.

    python -m benchmarks.exchange FOLDER                       # 10^7 rows by 10^6 keys; needs 2 GB of disk
    python -m benchmarks.exchange FOLDER --rows 1000000 --keys 100000 --rounds 1

Rows of a text key and a number are sealed in shards. They are counted and summed by key: by the two steps of
``shards/exchange.py`` in one process with a stated memory, and by DuckDB and Polars (``pip install duckdb polars``;
what is not installed is left out) from the same Parquet files with one thread, into a Parquet file. Each round runs
all, each in a new process; seconds are of its CPU. The growth of its resident memory is from after the imports to the
peak. The results are compared. Ratios of the medians are printed as JSON.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards.dataset import SealedSet, find_sealed, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.exchange import deal, merge
from gristmill.shards.reducers import Sums, SumSettings
from gristmill.shards.stage import Resources

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc

from benchmarks.apart import apart

SHARD = 250_000  # rows


def source(folder: Path, rows: int, keys: int) -> SealedSet:
    """Return the sealed rows: ``id``, ``user`` and ``amount``."""
    url = str(folder / f"rows-{rows}-{keys}")

    def tables() -> Iterator[pa.Table]:
        rng = np.random.Generator(np.random.Philox(key=[1, 2]))
        for start in range(0, rows, SHARD):
            at = pa.array(np.arange(start, min(rows, start + SHARD)))
            users = pa.array(rng.integers(0, keys, len(at)))
            names = [
                pc.binary_join_element_wise(text, one.cast(pa.string()), "")
                for text, one in (("r", at), ("user-", users))
            ]
            yield pa.table({"id": names[0], "user": names[1], "amount": rng.integers(0, 1000, len(at))})

    return find_sealed(url) or seal_tables(url, "rows", tables())


def ours(data: SealedSet, folder: Path, memory: int) -> dict[str, Any]:
    """Return the groups, the sum of their records and of their sums, by the exchange; and the seconds of its steps."""
    begun = time.process_time()
    dealt = run_step(deal("dealt", data, ["user"], ["amount"], memory=memory), str(folder), InProcessRunner(), 0)
    between = time.process_time()
    summing = Sums.stage(SumSettings(sums={"amount": "int64"}), resources=Resources(memory=memory))
    made = run_step(merge("sums", dealt, summing), str(folder), InProcessRunner(), 0)
    steps = {"deal_seconds": between - begun, "merge_seconds": time.process_time() - between, "parts": len(made.shards)}
    tables = [made.read(part, ["records", "amount"]) for part in range(len(made.shards))]
    found = [sum(pc.sum(table[name]).as_py() for table in tables) for name in ("records", "amount")]
    return {"result": [made.records, *found], **steps}


def duckdb(data: SealedSet, folder: Path, memory: int) -> dict[str, Any]:
    """Return the same by DuckDB."""
    import duckdb as peer

    files = [f"{data.url}/{entry.path}" for entry in data.shards]
    peer.execute("set threads = 1")
    made = str(folder / "duckdb.parquet")
    sums = f"select user, count(*) as records, sum(amount) as amount from read_parquet({files}) group by user"
    peer.execute(f"copy ({sums}) to '{made}' (format parquet, compression zstd)")
    row = peer.execute(f"select count(*), sum(records), sum(amount) from '{made}'").fetchone()
    return {"result": [int(one) for one in row or ()]}


def polars(data: SealedSet, folder: Path, memory: int) -> dict[str, Any]:
    """Return the same by Polars; the number of its threads is that of the environment, set in :func:`measured`."""
    import polars as peer

    files = [f"{data.url}/{entry.path}" for entry in data.shards]
    made = folder / "polars.parquet"
    lazy = peer.scan_parquet(files).group_by("user").agg(peer.len().alias("records"), peer.col("amount").sum())
    lazy.collect().write_parquet(made, compression="zstd")
    whole = peer.read_parquet(made)
    return {"result": [whole.height, int(whole["records"].sum()), int(whole["amount"].sum())]}


SYSTEMS = {"gristmill": ours, "duckdb": duckdb, "polars": polars}


def measured(name: str, data: SealedSet, folder: Path, memory: int) -> dict[str, Any]:
    """Return a system's result with its CPU seconds and the growth of its resident memory, in MB."""
    pa.set_cpu_count(1)
    if name != "gristmill":
        __import__(name)
    begun, held = time.process_time(), psutil.Process().memory_info().rss
    found = SYSTEMS[name](data, folder, memory)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {**found, "seconds": time.process_time() - begun, "growth_mb": (peak - held) / 1e6}


def measured_apart(name: str, data: SealedSet, folder: Path, memory: int) -> dict[str, Any]:
    """Return :func:`measured` of a new process."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    work = folder / "made"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    return apart(measured, name, data, work, memory)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--memory", type=int, default=512 << 20, help="bytes of a worker")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    data = source(args.folder, args.rows, args.keys)
    present = [name for name in SYSTEMS if name == "gristmill" or importlib.util.find_spec(name)]
    for name in SYSTEMS.keys() - set(present):
        print(f"{name} is not installed, and is left out")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in present}
    for _ in range(args.rounds):
        for name in present:
            runs[name].append(measured_apart(name, data, args.folder, args.memory))
            print(name, json.dumps(runs[name][-1]), flush=True)
    assert len({str(one["result"]) for own in runs.values() for one in own}) == 1, "the results differ"
    seconds = {name: statistics.median(one["seconds"] for one in own) for name, own in runs.items()}
    growth = {name: round(max(one["growth_mb"] for one in own)) for name, own in runs.items()}
    ratios = {f"gristmill/{name}": round(seconds["gristmill"] / seconds[name], 1) for name in present[1:]}
    print(json.dumps({"rows": args.rows, "keys": args.keys, "cpu_seconds": seconds, "growth_mb": growth} | ratios))


if __name__ == "__main__":
    main()
