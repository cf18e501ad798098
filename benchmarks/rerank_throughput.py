"""Hypotheses scored per second: the re-ranker's actor, and a whole step, against a plain numpy loop over the lists.

For each list, the loop computes weights times features by domain, the sigmoid and the best hypothesis. All three read
the same lists, of 20 hypotheses of 18 domains each; memory is that of a step's process with a tenth and with all of
them.
Run: ``python -m benchmarks.rerank_throughput [--hypotheses 1000000]``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

from gristmill.actors.nlu.rerank import LOGS, Rerank, RerankSettings, file_of, folder_ref
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.nlu.rerankers import DomainReranker
from gristmill.shards import store
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.engine import run_step
from gristmill.shards.schema import HYPOTHESIS
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa

from benchmarks.driver_memory import peak

LISTS, LENGTH, DOMAINS = 2500, 20, 18  # LISTS per shard
REPEATS = 3


def tables(lists: int) -> Iterator[pa.Table]:
    rng = np.random.Generator(np.random.Philox(0))
    for first in range(0, lists, LISTS):
        count = min(LISTS, lists - first)
        n = count * LENGTH
        columns = {
            "domain": pa.array([f"domain{d:02d}" for d in rng.integers(DOMAINS, size=n)]),
            "intent": pa.array(["intent"] * n),
            "slots": pa.array([[]] * n, HYPOTHESIS.field("slots").type),
            **{name: pa.array(np.log(rng.random(n)).astype(np.float32)) for name in LOGS},
            "errors": pa.array(np.zeros(n, np.int32)),
            "correct": pa.array(rng.random(n) < 0.1),
        }
        flat = pa.StructArray.from_arrays([columns[field.name] for field in HYPOTHESIS], fields=list(HYPOTHESIS))
        held = pa.ListArray.from_arrays(np.arange(count + 1, dtype=np.int32) * LENGTH, flat)
        yield pa.table({"id": [f"l{first + i:08d}" for i in range(count)], "hypotheses": held})


def weights(folder: str) -> dict[str, tuple[np.ndarray, float]]:
    rng = np.random.Generator(np.random.Philox(1))
    made = {}
    for domain in (f"domain{d:02d}" for d in range(DOMAINS)):
        values, bias = rng.uniform(0.2, 2.0, 3), float(rng.normal())
        one = DomainReranker(domain, "R3", tuple(values.tolist()), bias)
        store.write_bytes(file_of(folder, domain), one.to_bytes())
        made[domain] = (values, bias)
    return made


def loop(source: SealedSet, by_domain: dict[str, tuple[np.ndarray, float]]) -> int:
    best = 0
    for table in source.tables(["hypotheses"]):
        for one in table["hypotheses"]:
            flat = one.values
            logs = np.stack([flat.field(name).to_numpy() for name in LOGS])
            names = flat.field("domain").to_pylist()
            own = np.stack([by_domain[name][0] for name in names], 1)
            s = (own * logs).sum(0) + np.array([by_domain[name][1] for name in names])
            best += int(np.argmax(1 / (1 + np.exp(-s))))
    return best


def step(source: SealedSet, folder: str, out: str) -> None:
    run_step(Step("ranked", (Rerank.stage(folder=folder_ref(folder)),), source), out, InProcessRunner(), 0)


def timed(act: Callable[[], object]) -> float:
    begun = time.perf_counter()
    act()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hypotheses", type=int, default=1_000_000)
    parser.add_argument(
        "--alone", nargs=2, help=argparse.SUPPRESS
    )  # a source and a folder: prints the memory of a step
    given = parser.parse_args()
    lists = given.hypotheses // LENGTH
    with tempfile.TemporaryDirectory() as name:
        if given.alone:
            from gristmill.shards.dataset import open_sealed

            step(open_sealed(given.alone[0]), given.alone[1], f"{name}/out")
            print(peak())
            return
        folder = f"{name}/weights"
        by_domain = weights(folder)
        sizes = {size: seal_tables(f"{name}/lists{size}", "lists", tables(size)) for size in (lists // 10, lists)}
        source = sizes[lists]
        actor = Rerank(RerankSettings(), folder=folder)
        seconds: dict[str, list[float]] = {"loop": [], "actor": [], "step": []}
        for repeat in range(REPEATS):
            seconds["loop"].append(timed(lambda: loop(source, by_domain)))
            seconds["actor"].append(timed(lambda: [actor(table) for table in source.tables()]))
            seconds["step"].append(timed(lambda repeat=repeat: step(source, folder, f"{name}/out{repeat}")))
        middle = {kind: statistics.median(times) for kind, times in seconds.items()}
        command = [sys.executable, __file__, "--alone"]
        memory = {
            size: float(
                subprocess.run([*command, one.url, folder], stdout=subprocess.PIPE, text=True, check=True).stdout
            )
            for size, one in sizes.items()
        }
    for kind, took in middle.items():
        print(f"{kind:6} {took:6.2f} s, {lists * LENGTH / took:12,.0f} hypotheses/s (of {seconds[kind]})")
    for size, held in memory.items():
        print(f"step of {size * LENGTH:,} hypotheses: {held:.0f} MB")
    ratios = {f"{kind}_ratio": middle["loop"] / middle[kind] for kind in ("actor", "step")}
    print(json.dumps(ratios | {"growth_mb": memory[lists] - memory[lists // 10]}))


if __name__ == "__main__":
    main()
