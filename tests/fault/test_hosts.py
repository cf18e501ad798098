"""Two hosts with S3 storage between them; the cable is cut in silence, for a while and for good."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.session import HEALTH
from gristmill.shards.audit import audit_below
from gristmill.shards.engine import run_step
from tests.fault.hosts import Hosts, need_namespaces
from tests.fault.hosts_driver import SHARDS
from tests.fault.law_actors import corpus, law_step
from tests.pipelines.speech.test_distill import CONFIG, SMALL
from tests.weed import Weed

PORT = 6390
PATIENCE = 280.0  # seconds for anything at all; what hangs is seen by it


class Driver:
    """The driver on the head, and what it tells."""

    def __init__(self, hosts: Hosts, environment: dict[str, str]) -> None:
        self.environment = environment
        command = [*hosts.head.inside(), sys.executable, "-m", "tests.fault.hosts_driver"]
        self.log = hosts.head.folder / "driver"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._lines: queue.Queue[list[str]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.split())
        self._lines.put(["ended"])

    def order(self, *words: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(words) + "\n")
        self.process.stdin.flush()

    def hear(self) -> list[str]:
        words = self._lines.get(timeout=PATIENCE)
        assert words != ["ended"], self.log.read_text()[-4000:]
        return words

    def rest(self) -> tuple[set[str], list[str]]:
        """Return the hosts of the shards that still come, and the seal."""
        hosts = set()
        while (words := self.hear())[0] == "shard":
            hosts.add(words[2])
        return hosts, words


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Hosts, Driver]]:
    pytest.importorskip("ray")
    need_namespaces()
    hosts = Hosts(tmp_path_factory.mktemp("hosts"))
    try:
        server = Weed(
            hosts.head.folder / "weed", (8333, 9333, 8080, 8888), hosts.head.address, tuple(hosts.head.inside())
        )
        server.start()
        environment = {**os.environ, **server.environment, **HEALTH, "RAY_AUTH_MODE": "token"}
        environment |= {"RAY_AUTH_TOKEN": "b" * 64, "RAY_ADDRESS": f"{hosts.head.address}:{PORT}"}
        environment |= {"GRISTMILL_STORAGE_SECONDS": "20", "RAY_USAGE_STATS_ENABLED": "0"}
        environment["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]])
        common = ["--num-cpus=1", f"--object-store-memory={100 << 20}"]
        start = ["ray", "start", "--head", "--block", "--include-dashboard=false", f"--port={PORT}", *common]
        hosts.head.run([*start, f"--node-ip-address={hosts.head.address}"], environment, "ray")
        supervisor = [sys.executable, "-m", "gristmill.cluster.supervisor", environment["RAY_ADDRESS"], *common]
        hosts.worker.run([*supervisor, f"--node-ip-address={hosts.worker.address}"], environment, "ray")
        # Whoever may wait for the server must be where it is.
        wait = "import sys; from tests.fault.hosts_storage import wait; wait(*sys.argv[1:])"
        subprocess.run(
            [*hosts.head.inside(), sys.executable, "-c", wait, server.endpoint, "hosts"],
            env=environment,
            check=True,
            timeout=PATIENCE,
        )
        driver = Driver(hosts, environment)
        driver.order("nodes", "2")
        assert driver.hear() == ["nodes", "2"]
        yield hosts, driver
    finally:
        hosts.end()


def digest(tmp_path: Path, seed: int) -> str:
    source = corpus(str(tmp_path / "corpus"), SHARDS)
    return run_step(law_step(source), str(tmp_path / "whole"), InProcessRunner(), seed).digest


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_distillation_recipe_gives_the_same_bytes(hosts: tuple[Hosts, Driver], tmp_path: Path) -> None:
    here, driver = hosts
    recipe = [
        sys.executable,
        "-m",
        "gristmill.pipelines.command.cli",
        "run",
        CONFIG,
        *(one for one in SMALL if "runner=" not in one),
    ]

    def inside(*command: str) -> str:
        done = subprocess.run(
            [*here.head.inside(), *command], env=driver.environment, capture_output=True, text=True, timeout=1400
        )
        assert done.returncode == 0, done.stderr[-4000:]
        return done.stdout

    inside(*recipe, "out=s3://hosts/distill")
    found = json.loads(inside(sys.executable, "-m", "tests.fault.hosts_made", "s3://hosts/distill"))
    assert found["hosts"] == ["head", "worker"]
    assert found["gaps"] == []
    alone = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "AWS_"))}
    subprocess.run([*recipe, f"out={tmp_path}", "runner=inprocess"], env=alone, check=True, timeout=1400)
    assert found["made"] == sorted([audit.name, audit.digest] for audit in audit_below(str(tmp_path)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_hosts_work_and_a_healed_one_comes_back(hosts: tuple[Hosts, Driver], tmp_path: Path) -> None:
    here, driver = hosts
    driver.order("run", "s3://hosts/whole", "1")
    assert driver.rest() == ({"head", "worker"}, ["sealed", digest(tmp_path, 1), "0"])

    driver.order("run", "s3://hosts/cut", "2")
    for _ in range(6):
        driver.hear()
    here.cut()
    begun = time.monotonic()
    _, sealed = driver.rest()
    print(f"cut for good: sealed {time.monotonic() - begun:.0f} s later")
    assert sealed == ["sealed", digest(tmp_path, 2), "0"]
    driver.order("nodes", "1")
    assert driver.hear() == ["nodes", "1"]

    here.heal()
    begun = time.monotonic()
    driver.order("nodes", "2")
    assert driver.hear() == ["nodes", "2"]
    print(f"healed: joined again {time.monotonic() - begun:.0f} s later")
    driver.order("run", "s3://hosts/again", "3")
    assert driver.rest() == ({"head", "worker"}, ["sealed", digest(tmp_path, 3), "0"])


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_cable_is_cut_for_a_while(hosts: tuple[Hosts, Driver], tmp_path: Path) -> None:
    here, driver = hosts
    driver.order("run", "s3://hosts/while", "4")
    for _ in range(6):
        driver.hear()
    here.cut()
    time.sleep(12)
    here.heal()
    _, sealed = driver.rest()
    assert sealed == ["sealed", digest(tmp_path, 4), "0"]
