"""The driver's cost per shard of a large fleet, in processor time and memory, at 10^3 to 10^5 shards.

    python -m benchmarks.fleet_simulation engine|resume|again|ray|listing [--shards 1000 10000 ...]

``engine``   the engine's own part: a step whose receipts arrive as from 1,000 GPUs, in simulated time. Their commits
are real, to local disk and to a store in memory; the workers' costs are not counted.
``resume``   a step is resumed with the receipts of all shards but one present.
``again``    a finished recipe of eight steps, each of so many shards, is rerun as by `gristmill run`.
``ray``      Ray Data's part: the Ray runner with actors that sleep as a GPU would.
``listing``  the driver's work per record: listing a corpus and cutting it into shards.

Each row is a process of its own. Memory is its peak above its memory after imports.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.shards import canonical, checked, store
from gristmill.shards.dataset import SealedSet, put_seal, seal_tables
from gristmill.shards.engine import Progress, run_step, step_url
from gristmill.shards.index import Cut, ShardSpec
from gristmill.shards.receipt import Receipt, StoredFile, commit, receipt_url
from gristmill.shards.stage import BatchLimits, Resources, Stage
from gristmill.shards.step import ShardTask, Step

import pyarrow as pa

from benchmarks.loads import ROWS, light

SECONDS = 36.0  # of simulated work per shard
WORKERS = 1000  # simulated GPUs
STEPS = 8
USUAL = (1000, 10_000, 100_000)
SIZES = {"ray": (1000, 10_000), "listing": (200_000,)}
PLACES = {"again": ("local",), "ray": ("local",), "listing": ("local",)}

Moment = tuple[float, float]  # wall and processor seconds


class Fleet:
    """GPUs in simulated time: each takes the next shard when it has finished its last, some with a delay."""

    def __init__(self, workers: int = WORKERS, commits: bool = True) -> None:
        self.workers, self.commits = workers, commits
        self.asked = self.ended = (0.0, 0.0)
        self.apart = (0.0, 0.0)  # spent by the workers

    def execute(self, task: ShardTask, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Commit the shards in the order in which workers finish them."""
        self.asked = now()
        rng = random.Random(0)
        waiting = iter(specs)
        busy: list[tuple[float, str]] = []
        clock = 0.0
        for _ in specs[: self.workers]:
            heapq.heappush(busy, (SECONDS * rng.lognormvariate(0, 0.3), next(waiting).name))
        while busy:
            clock, shard = heapq.heappop(busy)
            begun = now()
            made = made_up(shard)
            write(store.join(task.url, made.data.path), shard.encode())
            sent = json.dumps((commit(task.url, made) if self.commits else made).to_json())
            wall, cpu = since(begun)
            self.apart = (self.apart[0] + wall, self.apart[1] + cpu)
            yield Receipt.from_json(json.loads(sent))
            spec = next(waiting, None)
            if spec is not None:
                heapq.heappush(busy, (clock + SECONDS * rng.lognormvariate(0, 0.3), spec.name))
        self.ended = now()

    def verify(self, url: str, receipts: Sequence[Receipt]) -> None:
        """Compare the files of committed shards with their digests: work of the workers as well."""
        begun = now()
        InProcessRunner().verify(url, receipts)
        wall, cpu = since(begun)
        self.apart = (self.apart[0] + wall, self.apart[1] + cpu)


class Sleeper:
    """Waits as if for a GPU."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(self.seconds)
        return batch


class Watch(Progress):
    """Records when receipts arrived, and the usage of Ray's own processes by then."""

    def __init__(self, servers: Callable[[], float]) -> None:
        self.servers = servers
        self.count = 0
        self.first = self.last = (0.0, 0.0)
        self.used = [0.0, 0.0]

    def advance(self, receipt: Receipt) -> None:
        """Record the first and the last moment."""
        self.count, self.last = self.count + 1, now()
        if self.count == 1:
            self.first, self.used[0] = self.last, self.servers()

    def end(self, sealed: SealedSet) -> None:
        """Measure the other processes once more."""
        self.used[1] = self.servers()


def now() -> Moment:
    """Return wall and processor seconds of this process."""
    return time.perf_counter(), time.process_time()


def since(begun: Moment, end: Moment | None = None) -> Moment:
    """Return the wall and processor seconds between two moments."""
    wall, cpu = end or now()
    return wall - begun[0], cpu - begun[1]


def memory(field: str) -> float:
    """Return this process's current (``VmRSS``) or peak (``VmHWM``) memory in bytes."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024.0 for line in status.splitlines() if line.startswith(field))


def made_up(shard: str) -> Receipt:
    """Return a receipt as long as real ones, of a file that holds the name of its shard."""
    sha = canonical.sha256(shard.encode())
    data = StoredFile(f"data/{shard}-{sha[:16]}.parquet", sha, 3600, len(shard), sha)
    attempt = {"host": "worker-0123", "seconds": {"gpu": SECONDS, "commit": 1.25}, "batches_halved": 0, "measures": {}}
    totals = {"duration": 36000 + len(shard) / 7}
    return Receipt(shard, data, None, None, data.rows, data.rows, 0, 0, totals=totals, attempt=attempt)


def corpus(url: str, shards: int, fingerprint: str | None = None) -> SealedSet:
    """Seal a set of made-up shards, whose files nothing reads."""
    receipts = (made_up(f"{number:06d}") for number in range(shards))
    return put_seal(url, "corpus", ROWS, receipts, fingerprint=fingerprint)


def write(url: str, data: bytes) -> None:
    """Write a file without waiting for the disk."""
    fs, path = store.filesystem(url)
    fs.makedirs(path.rpartition("/")[0], exist_ok=True)
    with fs.open(path, "wb") as out:
        out.write(data)


def lay(url: str, shards: int) -> None:
    """Write the shards of an earlier run."""
    for number in range(shards):
        made = made_up(f"{number:06d}")
        write(store.join(url, made.data.path), made.shard.encode())
        write(receipt_url(url, made.shard), checked.encode("receipt", made.to_json()))


def chain(source: SealedSet, number: int) -> Step:
    """Return one step of the recipe."""
    return Step(f"step{number}", light(source).stages, source)


# The measurements, each in a process of its own.


def engine(place: str, shards: int, commits: bool = True) -> dict[str, Any]:
    source = corpus(f"{place}/corpus", shards)
    step, fleet, before, begun = light(source), Fleet(commits=commits), memory("VmRSS"), now()
    sealed = run_step(step, place, fleet, 0)
    wall, cpu = since(begun)
    assert len(sealed.seal["shards"]) == shards
    parts = [since(begun, fleet.asked), since(fleet.asked, fleet.ended), since(fleet.ended)]
    parts[1] = (parts[1][0] - fleet.apart[0], parts[1][1] - fleet.apart[1])
    result = {
        "ms_cpu_a_shard": 1000 * (cpu - fleet.apart[1]) / shards,
        "ms_wall_a_shard": 1000 * (wall - fleet.apart[0]) / shards,
        **{f"{name}_s_cpu": part[1] for name, part in zip(("plan", "receipts", "seal"), parts, strict=True)},
        "workers_ms_wall_a_shard": 1000 * fleet.apart[0] / shards,
    }
    if "://" in place:  # the store itself is in this process
        return result
    held = {"bytes_a_shard": (memory("VmHWM") - before) / shards, "peak_mb": memory("VmHWM") / 1e6}
    files = {f"{name}_bytes": Path(sealed.url, f"{name}.json").stat().st_size / shards for name in ("seal", "step")}
    return {**result, **held, **files}


def resume(place: str, shards: int) -> dict[str, Any]:
    source = corpus(f"{place}/corpus", shards)
    step = light(source)
    lay(step_url(place, step, 0), shards - 1)
    fleet, begun = Fleet(), now()
    run_step(step, place, fleet, 0)
    plan, seal = since(begun, fleet.asked), since(fleet.ended)
    return {"plan_s": plan[0], "plan_s_cpu": plan[1], "seal_s": seal[0], "peak_mb": memory("VmHWM") / 1e6}


def again(place: str, shards: int) -> dict[str, Any]:
    from gristmill.pipelines.command.launch import carry_out
    from gristmill.pipelines.config import Common, Loaded
    from gristmill.pipelines.progress import RunProgress
    from gristmill.pipelines.report.report import Report
    from gristmill.pipelines.results import SourceWork
    from gristmill.pipelines.run import Run

    from pydantic import BaseModel

    class Empty(BaseModel):
        pass

    identity = {"shards": shards}

    def recipe(config: BaseModel, run: Run) -> Report:
        made = run.source("corpus", lambda: iter(()), identity)
        for number in range(STEPS):
            made = run.step(chain(made, number))
        return Report(title="Again", recipe={"name": "again"})

    module = ModuleType("again")
    module.run = recipe  # type: ignore[attr-defined]
    made_of = SourceWork("corpus", lambda: iter(()), identity, (), None).fingerprint
    sealed = corpus(store.join(place, "corpus", made_of[:16]), shards, made_of)
    for number in range(STEPS):
        step = chain(sealed, number)
        receipts = (made_up(f"{shard:06d}") for shard in range(shards))
        url, made_of = step_url(place, step, 0), step.fingerprint(0)
        sealed = put_seal(url, step.name, step.schema, receipts, fingerprint=made_of)
    loaded = Loaded("again", module, Common(recipe="again", out=place, runner="inprocess"), Empty())
    carry_out(loaded, RunProgress())  # writes the report
    read, plain = [], store.read_bytes

    def counted(url: str) -> bytes:
        read.append(url.rpartition("/")[2])
        return plain(url)

    store.read_bytes = counted
    begun = now()
    _, fresh = carry_out(loaded, RunProgress())
    wall, cpu = since(begun)
    assert not fresh
    result = {"sets": STEPS + 1, "seals_read": read.count("seal.json"), "seconds": wall, "seconds_cpu": cpu}
    return {**result, "peak_mb": memory("VmHWM") / 1e6}


def ray(place: str, shards: int, actors: int = 16, sleep: float = 0.1) -> dict[str, Any]:
    from gristmill.cluster import session
    from gristmill.cluster.ray_runner import RayRunner

    import psutil

    session.start(actors)
    rows = (pa.table([[f"{number:06d}"], ["x"], [1.0]], schema=ROWS) for number in range(shards))
    source = seal_tables(f"{place}/corpus", "corpus", rows)
    need = Resources(cpus=1.0, min_workers=actors, max_workers=actors)
    where = "benchmarks.fleet_simulation:Sleeper"
    gpu = Stage("gpu", where, params={"seconds": sleep}, batch=BatchLimits(), resources=need)
    near = [p for p in psutil.Process().children(recursive=True) if p.name() in ("raylet", "gcs_server")]
    watch = Watch(lambda: sum(sum(p.cpu_times()[:2]) for p in near))
    before, begun = memory("VmRSS"), now()
    sealed = run_step(Step("gpu", (gpu,), source), place, RayRunner(actors), 0, watch)
    assert sealed.records == shards
    wall, cpu = since(watch.first, watch.last)
    start, rest = since(begun, watch.first), shards - 1
    return {
        "actors": actors,
        "sleep_s": sleep,
        "until_first_s": start[0],
        "until_first_ms_cpu_a_shard": 1000 * start[1] / shards,
        "ms_wall_a_shard": 1000 * wall / rest,
        "ms_cpu_a_shard": 1000 * cpu / rest,
        "driver_busy": cpu / wall,
        "ray_servers_ms_cpu_a_shard": 1000 * (watch.used[1] - watch.used[0]) / rest,
        "bytes_a_shard": (memory("VmHWM") - before) / shards,
        "peak_mb": memory("VmHWM") / 1e6,
    }


def listing(place: str, records: int) -> dict[str, Any]:
    from gristmill.actors.sources.speech import list_sources

    lines = (
        json.dumps({"audio_filepath": f"audio/{n // 1000:06d}/{n:09d}.flac", "duration": 10.0, "text": "a" * 100})
        for n in range(records)
    )
    Path(place, "manifest.jsonl").write_text("\n".join(lines))
    begun = now()
    count = sum(table.num_rows for table in list_sources(f"{place}/manifest.jsonl"))
    listed = since(begun)
    number = -(-records // 2000)
    rows = pa.table([[f"r{n:08d}" for n in range(2000)], ["x" * 40] * 2000, [10.0] * 2000], schema=ROWS)
    source = seal_tables(f"{place}/listing", "listing", [rows] * number)
    begun = now()
    specs = Step("cut", light(source).stages, source, cut=Cut(rows=10**6, seconds=36000.0)).index()
    cut = since(begun)
    assert count == sum(spec.rows for spec in specs)
    return {"listing_us_cpu_a_record": 1e6 * listed[1] / records, "cutting_us_cpu_a_record": 1e6 * cut[1] / records}


KINDS: dict[str, Callable[..., dict[str, Any]]] = {
    function.__name__: function for function in (engine, resume, again, ray, listing)
}


def one(kind: str, where: str, size: int, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = KINDS[kind](folder if where == "local" else f"{where}://bench", size, **options)
    print(json.dumps(result))


def main() -> None:
    parser = argparse.ArgumentParser(description="The driver's cost per shard of a large fleet.")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--shards", type=int, nargs="+")
    parser.add_argument("--actors", type=int, nargs="+", default=[16])
    parser.add_argument("--sleep", type=float, default=0.1)
    parser.add_argument("--no-commits", action="store_true", help="engine: leave out the workers' part")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    actors = given.actors if given.kind == "ray" else [None]
    if given.one:
        options: dict[str, Any] = {"commits": not given.no_commits} if given.kind == "engine" else {}
        if given.kind == "ray":
            options = {"actors": actors[0], "sleep": given.sleep}
        one(given.kind, given.one, given.shards[0], **options)
        return
    for where in PLACES.get(given.kind, ("local", "memory")):
        for size in given.shards or SIZES.get(given.kind, USUAL):
            for number in actors:
                command = [sys.executable, "-m", "benchmarks.fleet_simulation", given.kind, "--one", where]
                command += ["--shards", str(size), "--sleep", str(given.sleep)]
                command += ["--actors", str(number)] if number else []
                command += ["--no-commits"] * given.no_commits
                made = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
                row = {"kind": given.kind, "store": where, "size": size, **json.loads(made.splitlines()[-1])}
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
