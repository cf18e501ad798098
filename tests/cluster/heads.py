"""A real head of a cluster for the tests, with token authentication, its own ports and folders, on loopback only."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.environment import without_ray
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]
_LAST = ("--dashboard-agent-listen-port=", "--ray-client-server-port=")  # what opens its port last
TOKEN = "canary" + "0123456789abcdef" * 4


@dataclass(frozen=True)
class Head:
    """A head that is up."""

    process: subprocess.Popen[bytes]
    gcs: str
    dashboard: str
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        """Return what a client of it needs."""
        return environment(**more)

    def nodes(self) -> int:
        """Return how many nodes are up."""
        return nodes(self.dashboard, TOKEN)


def nodes(dashboard: str, token: str) -> int:
    """Return how many nodes are up, of the cluster of a dashboard."""
    asked = urllib.request.Request(f"{dashboard}/api/v0/nodes", headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        found = json.load(answer)["data"]["result"]["result"]
    return sum(node["state"] == "ALIVE" for node in found)


def environment(**more: str) -> dict[str, str]:
    """Return the environment of the tests with the cluster's token, and nothing else of Ray."""
    given = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    return without_ray() | given | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"} | more


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Head]:
    """Start a head and end it, and it alone, with all its processes."""
    gcs, dashboard, client, agent, metrics = free_ports(5)
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--node-ip-address=127.0.0.1"]
    command += [f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--num-cpus=2"]
    command += [f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}", "--num-gpus=0"]
    command += [f"--metrics-export-port={metrics}", f"--temp-dir={folder}", "--object-store-memory=100000000"]
    if not Path(command[0]).exists():
        pytest.skip("Ray's command is not installed")
    surroundings = environment(
        # What its jobs run is this environment's Python; and it is on loopback only, as a session's own Ray is.
        PATH=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
        RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER="0",
    )
    del surroundings["PYTHONPATH"]  # a job has the code that was uploaded with it
    url = f"http://127.0.0.1:{dashboard}"
    process = start(command, surroundings, folder / "head.log", url, TOKEN)
    try:
        yield Head(process, f"127.0.0.1:{gcs}", url, folder)
    finally:
        end(process)


def start(
    command: Sequence[str], surroundings: Mapping[str, str], log: Path, dashboard: str, token: str
) -> subprocess.Popen[bytes]:
    """Start a head by a command and return it once its node, agent and server for Ray clients are up; the
    caller ends it.

    Its dashboard answers before, and who joins then waits for the node for a minute. Ray gives up if its processes
    start too slowly, as on a busy machine, and a head that is up ends with any of them, such as the server for clients,
    which gives up early; then it is started again.
    """
    ports = [int(word.partition("=")[2]) for word in command if word.startswith(_LAST)]
    for _ in range(4):
        with log.open("wb") as written:
            head = subprocess.Popen(
                command, env=surroundings, stdout=written, stderr=written, cwd=log.parent, start_new_session=True
            )
        try:
            while head.poll() is None:
                with contextlib.suppress(OSError):
                    if nodes(dashboard, token):
                        for port in ports:
                            socket.create_connection(("127.0.0.1", port), 10).close()
                        return head
                time.sleep(0.5)
        except BaseException:
            end(head, 0)
            raise
        end(head, 0)
    pytest.fail(f"the head ended: {log.read_text(errors='replace')[-2000:]}")


def end(process: subprocess.Popen[bytes], seconds: float = 20.0) -> None:
    """End a process and all it started: in order in so many seconds, and what is left of them by force."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    if seconds:
        process.send_signal(signal.SIGTERM)
        _, family = psutil.wait_procs(family, timeout=seconds)
    for one in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait(10)


def listening(head: Head) -> set[tuple[str, str]]:
    """Return the addresses and programs that listen, of the head and all it started."""
    found = set()
    root = psutil.Process(head.process.pid)
    for one in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            for connection in one.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip.removeprefix("::ffff:"), one.name()))
    return found
