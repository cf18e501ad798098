"""Kills workers, Ray's own processes, the driver and the storage server at random moments of many small recipes.

`python -m benchmarks.soak --kills 200 --seed 1` starts an S3 server (SeaweedFS) and a Ray cluster of two nodes on this
machine, kills until the number is reached, lets the running recipe finish, and prints the redone batches and whether
every digest equals that of an undisturbed run and every audit is exact; exit code 1 if not. Killed drivers, nodes,
heads and storage servers are restarted. It only kills processes that it started.

The kinds: a worker of a stage ("actor"), another worker, an agent or the raylet of the second node, the driver, the
storage server; and the GCS or the raylet of the head, with which the driver ends: it must do so with a sentence and the
exit code of an interruption.

Intervals between kills are mostly in batches instead of seconds, so that slow machines make progress as well.

The kinds are drawn by WEIGHTS: restarting a driver or a node takes seconds, a worker tenths of a second.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.pipelines.command import interruption
from gristmill.pipelines.command.cli import reports_errors

import typer

from tests.fault.law_actors import corpus, law_step
from tests.ports import free_ports
from tests.weed import GRPC, Weed

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = {"actor": 56, "worker": 12, "agent": 4, "raylet": 6, "driver": 6, "storage": 4, "gcs": 6, "head": 6}
ENDS_WITHIN = 150.0  # seconds in which a driver must end whose GCS or raylet is gone
BUCKET = "s3://soak"
PAUSE = 0.1  # seconds per batch
ANY_TIME = 0.15  # share of the kills at any time, also while processes start
SHARDS, ROWS = 24, 16


@dataclass
class Kill:
    """A kill: its time (ns since 1970), kind, and the running recipe."""

    at: int
    kind: str
    recipe: int


@dataclass
class DriverLog:
    """The drivers' output: the running recipe, and the digests of finished ones."""

    recipe: int = 0
    digests: dict[int, str] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)  # error output of drivers that ended without being killed
    told: list[float] = field(default_factory=list)  # seconds in which drivers ended in order, their Ray being gone


def drive(first: int, folder: Path) -> None:
    """Run recipe after recipe, at least one, until a file `stop` exists."""
    from gristmill.cluster.ray_runner import RayRunner
    from gristmill.shards.dataset import open_sealed
    from gristmill.shards.engine import run_step

    source, runner, number = open_sealed(f"{BUCKET}/corpus"), RayRunner(), first
    while number == first or not (folder / "stop").exists():
        print(json.dumps({"begin": number}), flush=True)
        step = law_step(source, folder / "note" / str(number), PAUSE)
        sealed = run_step(step, f"{BUCKET}/out/{number}", runner, number)
        print(json.dumps({"done": number, "digest": sealed.digest}), flush=True)
        number += 1


def patiently(start: Callable[[], Any]) -> Any:
    """Start a node, with retries: on a busy machine it may not start within Ray's 30 s."""
    for _ in range(9):
        try:
            return start()
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return start()


def title(process: Any) -> str:
    """Return what a process of Ray calls itself; "" if it is gone."""
    import psutil

    try:
        return str(process.cmdline()[0])
    except (psutil.Error, IndexError):
        return ""


class Soak:
    """The processes under test, and their killer."""

    def __init__(self, kills: int, seed: int, every: float, minutes: float, folder: Path) -> None:
        self.kills, self.every, self.folder = kills, every, folder
        self.until = time.monotonic() + 60 * minutes
        self.random = random.Random(seed)
        self.done: list[Kill] = []
        self.log = DriverLog()
        self.driver: subprocess.Popen[str] | None = None
        self.storage = Weed(folder / "weed", free_ports(4, partner=GRPC))
        self.cluster: Any = None

    def start(self) -> None:
        os.environ |= dict(self.storage.environment)
        self.storage.start()
        self.storage.wait("soak")
        corpus(f"{BUCKET}/corpus", SHARDS, ROWS)
        self._start_cluster()

    def _start_cluster(self) -> None:
        from ray.cluster_utils import Cluster

        head = self._node("127.0.0.1") | {"include_dashboard": False, "dashboard_port": free_ports(1)[0]}
        self.cluster = patiently(lambda: Cluster(initialize_head=True, head_node_args=head))
        self.node = self._add()
        os.environ["RAY_ADDRESS"] = self.cluster.address

    def _node(self, address: str) -> dict[str, Any]:
        # Each node has its own address: a driver may attach to any node at its address, even to the one killed.
        return {"num_cpus": 1, "object_store_memory": 100 << 20, "node_ip_address": address}

    def _add(self) -> Any:
        return patiently(lambda: self.cluster.add_node(**self._node("127.0.0.2")))

    def run(self) -> None:
        """Kill the requested number of times, or until the time is over, then let the running recipe finish."""
        self._drive()
        while len(self.done) < self.kills and time.monotonic() < self.until:
            self._wait()
            kind = self.random.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
            recipe = self.log.recipe
            at = time.time_ns()
            if getattr(self, f"_kill_{kind}")():
                self.done.append(Kill(at, kind, recipe))
                if len(self.done) % 10 == 0:
                    print(f"{len(self.done)} kills, recipe {recipe}", file=sys.stderr, flush=True)
            self._drive()
        (self.folder / "stop").touch()
        while self.driver is not None:
            self.driver.wait()
            time.sleep(0.5)  # its last output may not have been read yet
            if self.log.recipe in self.log.digests:
                return
            self._drive()

    def _wait(self) -> None:
        """Wait for the next kill: mostly for a number of batches, so that slow machines progress, sometimes for a
        time."""
        if self.random.random() < ANY_TIME:
            time.sleep(self.random.expovariate(1 / self.every))
            return
        aim = self._batches() + 1 + int(self.random.expovariate(1 / self.every))
        while self._batches() < aim and self.driver is not None and self.driver.poll() is None:
            time.sleep(0.05)
        time.sleep(self.random.uniform(0, PAUSE))

    def _batches(self) -> int:
        return sum(len(os.listdir(folder)) for folder in (self.folder / "note").glob("*"))

    def end(self) -> None:
        if self.driver is not None and self.driver.poll() is None:
            self.driver.kill()
        if self.cluster is not None:
            self.cluster.shutdown()
            self.cluster = None

    def _drive(self) -> None:
        """Start a driver unless one is running."""
        if self.driver is not None and self.driver.poll() is None:
            return
        if self.driver is not None and self.driver.returncode not in (0, -9):
            self._fail((self.folder / "driver").read_text())
        first = len(self.log.digests)
        command = [sys.executable, "-m", "benchmarks.soak", "--drive", str(first), "--folder", str(self.folder)]
        with (self.folder / "driver").open("ab") as log:
            self.driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True)
        threading.Thread(target=self._listen, args=(self.driver,), daemon=True).start()

    def _fail(self, output: str) -> None:
        self.log.failed.append(output[-2000:])
        if len(self.log.failed) > 5:
            sys.exit("drivers end by themselves:\n" + "\n".join(self.log.failed))

    def _listen(self, driver: subprocess.Popen[str]) -> None:
        assert driver.stdout is not None
        for line in driver.stdout:
            event = json.loads(line)
            if "begin" in event:
                self.log.recipe = event["begin"]
            else:
                self.log.digests[event["done"]] = event["digest"]

    # The kinds; each returns whether there was something to kill.

    def _kill_actor(self) -> bool:
        return self._kill_process(actors=True)

    def _kill_worker(self) -> bool:
        return self._kill_process(actors=False)

    def _kill_process(self, actors: bool) -> bool:
        import psutil

        found = []
        for node in [self.cluster.head_node, self.node]:
            raylet = node.all_processes["raylet"][0].process.pid
            for process in psutil.Process(raylet).children(recursive=True):
                name = title(process)
                # A raylet ends with its agents, which are a kind of their own.
                if name.startswith("ray::") and "Agent" not in name and ("StageActor" in name) == actors:
                    found.append(process)
        if not found:
            return False
        target = self.random.choice(sorted(found, key=lambda process: process.pid))
        try:
            target.kill()
        except psutil.NoSuchProcess:
            return False
        return True

    def _kill_raylet(self) -> bool:
        self.cluster.remove_node(self.node, allow_graceful=False)
        time.sleep(self.random.uniform(0.0, 2.0))
        self.node = self._add()
        return True

    def _kill_agent(self) -> bool:
        """Kill an agent of the second node, whose raylet ends with it."""
        import psutil

        raylet = self.node.all_processes["raylet"][0].process
        agents = [one for one in psutil.Process(raylet.pid).children() if "Agent" in title(one)]
        if not agents:
            return False
        try:
            self.random.choice(sorted(agents, key=lambda process: process.pid)).kill()
            raylet.wait(ENDS_WITHIN)
        except psutil.NoSuchProcess:
            return False
        except subprocess.TimeoutExpired:
            return True  # it went on without
        return self._kill_raylet()

    def _kill_gcs(self) -> bool:
        return self._kill_cluster("gcs_server")

    def _kill_head(self) -> bool:
        return self._kill_cluster("raylet")

    def _kill_cluster(self, kind: str) -> bool:
        """Kill a process without which the driver cannot go on, see how it ends, and start the cluster again."""
        if self.driver is None or self.driver.poll() is not None:
            return False
        before = len((self.folder / "driver").read_text())
        begun = time.monotonic()
        self.cluster.head_node.all_processes[kind][0].process.kill()
        try:
            code: int | None = self.driver.wait(ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            code = None
            self.driver.kill()
            self.driver.wait()
        said = (self.folder / "driver").read_text()[before:]
        last = (said.strip().splitlines() or [""])[-1]
        # One that was killed while it started to join could not; one that had finished its recipe ends as asked.
        joins = code == 2 and "cannot be reached" in last
        kept = code == 130 and last.startswith("gristmill: ") and "committed work is kept" in last
        if code != 0:
            if (kept or joins) and "Traceback" not in said:
                self.log.told.append(time.monotonic() - begun)
            else:
                self._fail(f"{kind} was killed, exit code {code}: {said}")
        self.driver = None
        self.cluster.shutdown()
        self._start_cluster()
        return True

    def _kill_driver(self) -> bool:
        if self.driver is None or self.driver.poll() is not None:
            return False
        self.driver.kill()
        self.driver.wait()
        return True

    def _kill_storage(self) -> bool:
        self.storage.kill()
        time.sleep(self.random.uniform(0.2, 2.0))
        self.storage.start()
        return True


def redone(kills: list[Kill], notes: Path) -> tuple[Counter[str], int]:
    """Return the redone batches by kind, each attributed to the last kill before it, and the total of all batches."""
    times = [kill.at for kill in kills]
    again: Counter[str] = Counter()
    total = 0
    for folder in notes.iterdir():
        seen: set[str] = set()
        for path in sorted(folder.iterdir(), key=lambda path: int(path.name.partition("-")[0])):
            batch, total = path.read_text(), total + 1
            if batch in seen:
                again[kills[max(0, bisect(times, int(path.name.partition("-")[0])) - 1)].kind] += 1
            seen.add(batch)
    return again, total


def verdicts(log: DriverLog, folder: Path) -> dict[int, tuple[bool, bool]]:
    """Return for each recipe whether its digest equals the undisturbed run's, and whether its audit is exact."""
    from gristmill.cluster.inprocess import InProcessRunner
    from gristmill.shards.audit import audit_below
    from gristmill.shards.engine import run_step

    source = corpus(str(folder / "corpus"), SHARDS, ROWS)
    found = {}
    for number, digest in sorted(log.digests.items()):
        whole = run_step(law_step(source), str(folder / "whole" / str(number)), InProcessRunner(), number)
        audits = list(audit_below(f"{BUCKET}/out/{number}"))
        exact = [audit.digest for audit in audits] == [digest] and not any(audit.gaps for audit in audits)
        found[number] = (digest == whole.digest, exact)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=3.0, help="mean batches (at any time: seconds) between kills")
    parser.add_argument("--minutes", type=float, default=math.inf, help="kill no longer than that")
    parser.add_argument("--drive", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drive is not None:
        interruption.listen()
        try:
            reports_errors(drive)(given.drive, given.folder)
        except typer.Exit as end:
            return end.exit_code
        return 0
    from gristmill.cluster.session import LOOPBACK, SETTINGS, WORKER

    os.environ |= SETTINGS | WORKER | LOOPBACK | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "c" * 64}
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        soak = Soak(given.kills, given.seed, given.every, given.minutes, Path(name))
        try:
            soak.start()
            soak.run()
            wall = time.monotonic() - begun
            soak.end()
            found = verdicts(soak.log, soak.folder)
        finally:
            soak.end()
            soak.storage.kill()
        again, total = redone(soak.done, soak.folder / "note")
    recipes = defaultdict(set)
    for kill in soak.done:
        recipes[kill.kind].add(kill.recipe)
    heads = ("kills", "batches redone", "recipes hit", "digests equal", "audits exact")
    print(f"{'kind':8}", *(f"{head:>14}" for head in heads))
    rows = [(kind, sum(k.kind == kind for k in soak.done), again[kind], recipes[kind]) for kind in WEIGHTS]
    rows.append(("all", len(soak.done), sum(again.values()), set(found)))
    for kind, kills, batches, hit in rows:
        equal, exact = (sum(found[number][place] for number in hit if number in found) for place in (0, 1))
        print(f"{kind:8}", *(f"{value:14}" for value in (kills, batches, len(hit), equal, exact)))
    print(f"{len(found)} recipes of {SHARDS} shards, {total} batches, {wall:.0f} s; weights {WEIGHTS}")
    told = sorted(soak.log.told)
    if told:
        print(
            f"{len(told)} drivers whose GCS or raylet was gone ended with a sentence and its exit code, after "
            f"{told[len(told) // 2]:.1f} s (median), {told[-1]:.1f} s at most"
        )
    for line in soak.log.failed:
        print(f"a driver ended by itself: {line.strip().splitlines()[-1:]}")
    sound = all(equal and exact for equal, exact in found.values()) and sorted(found) == list(range(len(found)))
    return 0 if sound and not soak.log.failed else 1


if __name__ == "__main__":
    sys.exit(main())
