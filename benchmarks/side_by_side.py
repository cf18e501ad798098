"""What making results side by side buys: a recipe on Ray beside its critical path, and the GPUs of a simulated fleet.

    python -m benchmarks.side_by_side recipe CONFIG [KEY=VALUE ...] [--workers 2] [--before CHECKOUT]
    python -m benchmarks.side_by_side fleet [--gpus 2] [--cpus 8] [--shards 24]

``recipe`` runs a recipe in this process's way (in-process), on Ray, and with ``--before`` on Ray by the code of another
checkout, each in a process of its own with a new output; without settings at the small size of
``benchmarks/plan_accuracy.py``. The critical path is the longest chain of results by the
seconds that each took in-process; the timetable is what these seconds take on so many workers, if nothing but the
results took any (``pipelines/timetable.py``). Prints a JSON line for each way.

``fleet`` runs three corpora through a stage on CPUs (features) and one on GPUs (labels), with six more steps on CPUs
that nothing waits for, by actors that sleep; once side by side and once one result after the other, as runs were
before. Prints for each way the seconds, and the share of the GPUs that was busy in each tenth of the time from the
first labelled shard to the last, by the receipts.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gristmill.cluster import session
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.pipelines.config import load
from gristmill.pipelines.run import Run
from gristmill.shards.index import Cut
from gristmill.shards.process import prepare
from gristmill.shards.receipt import committed_shards, read_receipts
from gristmill.shards.stage import BatchLimits, Resources, Stage
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa

if TYPE_CHECKING:
    from gristmill.pipelines.scheduler import Halt

ROOT = Path(__file__).resolve().parent.parent
TENTHS = 10


# A recipe and its critical path.


def made(config: str, overrides: list[str], runner: str, workers: int) -> dict[str, Any]:
    """Run a recipe; return its seconds, those of Ray's start, and its results."""
    prepare()
    begun = time.perf_counter()
    if runner == "ray":
        session.start(workers)
    started = time.perf_counter()
    loaded = load(config, overrides)
    cluster = RayRunner(workers) if runner == "ray" else InProcessRunner()
    run = Run(loaded.common.out, cluster, loaded.common.seed, seeds=loaded.common.seeds)
    loaded.run(loaded.config, run)
    if hasattr(run, "finish"):  # an earlier checkout has made all by now
        run.finish()
    ended = time.perf_counter()
    results = [
        {"name": t.name, "kind": t.kind, "digest": t.digest, "inputs": t.inputs, "seconds": t.seconds}
        for t in run.trace
    ]
    return {"seconds": ended - started, "start": started - begun, "results": results}


def critical_path(results: list[dict[str, Any]]) -> tuple[float, list[str]]:
    """Return the seconds of the longest chain of results, and their names."""
    longest: dict[str, tuple[float, list[str]]] = {}
    for one in results:
        before = max((longest[key] for key in one["inputs"] if key in longest), default=(0.0, []))
        longest[one["digest"]] = before[0] + one["seconds"], [*before[1], one["name"]]
    return max(longest.values())


def timetable(results: list[dict[str, Any]], workers: int) -> float:
    """Return the seconds that results take on so many workers, by the seconds of each."""
    from gristmill.pipelines.timetable import Booking, span  # earlier checkouts, whose runs this file makes, have none

    place_of: dict[str, int] = {}
    parts = []
    for place, one in enumerate(results):
        needs = [place_of[key] for key in one["inputs"] if key in place_of]
        busy = 0 if one["kind"] == "source" else workers if one["kind"] == "step" else 1
        parts.append(Booking(one["seconds"] / max(1, busy), needs, busy, divides=one["kind"] == "step"))
        place_of[one["digest"]] = place
    return span(parts, workers)


def in_process_of_its_own(root: Path, config: str, overrides: list[str], runner: str, workers: int) -> dict[str, Any]:
    """Run a recipe by the code of a checkout, with a new output."""
    with tempfile.TemporaryDirectory() as folder:
        given = [config, *overrides, f"out={folder}/out", f"runner={runner}"]
        command = [sys.executable, str(Path(__file__).resolve()), "one", *given, "--workers", str(workers)]
        environment = os.environ | {"PYTHONPATH": str(root)}
        done = subprocess.run(command, env=environment, cwd=root, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(done.stdout.splitlines()[-1]))


def recipe(given: argparse.Namespace) -> None:
    """Compare the ways of making a recipe."""
    from benchmarks.plan_accuracy import SMALL

    overrides = given.overrides or SMALL.get(Path(given.config).stem, [])
    ways = [("in-process", ROOT, "inprocess"), ("ray", ROOT, "ray")]
    if given.before:
        ways.append(("ray, before", given.before.resolve(), "ray"))
    found = {}
    for name, root, runner in ways:
        found[name] = one = in_process_of_its_own(root, given.config, overrides, runner, given.workers)
        path, names = critical_path(found["in-process"]["results"])
        row = {
            "way": name,
            "seconds": round(one["seconds"], 1),
            "start_s": round(one["start"], 1),
            "work_s": round(sum(t["seconds"] for t in one["results"]), 1),
            "critical_path_s": round(path, 1),
            "of_the_critical_path": round(one["seconds"] / path, 2),
            "timetable_s": round(timetable(found["in-process"]["results"], given.workers), 1),
            "same_digests": digests(one) == digests(found["in-process"]),
        }
        print(json.dumps(row), flush=True)
    print(json.dumps({"critical_path": names}), flush=True)


def digests(one: dict[str, Any]) -> dict[str, list[str]]:
    """Return the digests of the results by name."""
    named: dict[str, list[str]] = {}
    for result in one["results"]:
        named.setdefault(result["name"], []).append(result["digest"])
    return {name: sorted(values) for name, values in named.items()}


# A simulated fleet.


class Busy:
    """Waits as if for a GPU or for computation."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(self.seconds)
        return batch


class InTurn(RayRunner):
    """Makes one result after the other."""

    @contextlib.contextmanager
    def side_by_side(self) -> Iterator[Halt | None]:
        """Enter nothing."""
        yield None


def stage(name: str, seconds: float, **resources: float) -> Stage:
    """Return a stage that waits for so many seconds a shard."""
    limits = BatchLimits(rows=1 << 20)
    asked = Resources(**resources)  # type: ignore[arg-type]
    return Stage(name, "benchmarks.side_by_side:Busy", params={"seconds": seconds}, batch=limits, resources=asked)


def fleet(given: argparse.Namespace) -> None:
    """Run the simulated fleet both ways."""
    import ray

    session.authenticate(joins=False)
    ray.init(address="local", num_cpus=given.cpus, num_gpus=given.gpus, include_dashboard=False, log_to_driver=False)
    for name, kind in (("side by side", RayRunner), ("in turn", InTurn)):
        with tempfile.TemporaryDirectory() as out:
            run = Run(out, kind())
            labelled = []
            for corpus in range(3):
                ids = pa.table({"id": [f"{corpus}-{n:04d}" for n in range(given.shards)]})
                listed = run.table(f"corpus{corpus}", ids)
                cut = Cut(rows=1)
                features = run.step(Step(f"features{corpus}", (stage("features", given.cpu_seconds),), listed, cut=cut))
                label = stage("label", given.gpu_seconds, cpus=0.0, gpus=1.0)
                labelled.append(run.step(Step(f"labels{corpus}", (label,), features)))
                for copy in range(2):
                    run.step(Step(f"copy{corpus}{copy}", (stage("noise", given.cpu_seconds),), listed, cut=cut))
            begun = time.time()
            run.finish()
            seconds = time.time() - begun
            spans = []
            for one in labelled:
                for receipt in read_receipts(one.url, committed_shards(one.url)):
                    spent = receipt.attempt["seconds"]
                    end = receipt.attempt["at"] - spent.get("commit", 0.0)
                    spans.append((end - spent["label"], end))
            first, last = min(start for start, _ in spans), max(end for _, end in spans)
            shares = busy_shares(spans, first, last, given.gpus)
            row = {
                "way": name,
                "seconds": round(seconds, 1),
                "until_first_labels_s": round(first - begun, 1),
                "gpus_busy": round(float(np.mean(shares)), 2),
                "by_tenths": [round(float(share), 2) for share in shares],
            }
            print(json.dumps(row), flush=True)


def busy_shares(spans: list[tuple[float, float]], first: float, last: float, gpus: int) -> np.ndarray:
    """Return the share of the GPUs that was busy in each tenth of the time."""
    edges = np.linspace(first, last, TENTHS + 1)
    busy = np.zeros(TENTHS)
    for start, end in spans:
        busy += np.clip(np.minimum(end, edges[1:]) - np.maximum(start, edges[:-1]), 0.0, None)
    return np.asarray(busy / (np.diff(edges) * gpus))


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    kinds = parser.add_subparsers(required=True, dest="kind")
    for name in ("recipe", "one"):
        kind = kinds.add_parser(name)
        kind.add_argument("config")
        kind.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
        kind.add_argument("--workers", type=int, default=2)
        kind.add_argument("--before", type=Path)
    kind = kinds.add_parser("fleet")
    for name, default in (("gpus", 2), ("cpus", 8), ("shards", 24)):
        kind.add_argument(f"--{name}", type=int, default=default)
    kind.add_argument("--gpu-seconds", type=float, default=2.0)
    kind.add_argument("--cpu-seconds", type=float, default=2.0)
    given = parser.parse_args()
    if given.kind == "recipe":
        recipe(given)
    elif given.kind == "one":
        runner = next(one.partition("=")[2] for one in given.overrides if one.startswith("runner="))
        print(json.dumps(made(given.config, given.overrides, runner, given.workers)))
    else:
        fleet(given)


if __name__ == "__main__":
    main()
