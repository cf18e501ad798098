"""A Ray head on loopback with its metrics and dashboard, beside which a driver runs a small recipe and waits."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.cluster import heads
from tests.ports import free_ports

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Watched:
    """What a test sees of it."""

    folder: Path  # Ray's temporary folder
    address: str
    dashboard: str
    metrics: str
    token: str
    out: Path  # of the recipe


@contextlib.contextmanager
def watched() -> Iterator[Watched]:
    """Start the head and the driver, and wait until the recipe is through; end both."""
    ray = shutil.which("ray") or shutil.which("ray", path=str(Path(sys.executable).parent))
    if ray is None:
        pytest.skip("Ray is not installed")
    folder = Path(tempfile.mkdtemp(prefix="gm"))  # short: Ray makes sockets below it
    gcs, board, metrics, agent, grpc, scaler, server, client = free_ports(8)
    token = secrets.token_hex(16)
    environment = os.environ | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_metrics_report_interval_ms": "4000",
        "AUTOSCALER_METRIC_PORT": str(scaler),
        "DASHBOARD_METRIC_PORT": str(server),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    environment.pop("RAY_ADDRESS", None)
    command = [ray, "start", "--head", "--block", "--node-ip-address=127.0.0.1", f"--port={gcs}"]
    command += ["--dashboard-host=127.0.0.1", f"--dashboard-port={board}", f"--metrics-export-port={metrics}"]
    command += [f"--dashboard-agent-listen-port={agent}", f"--dashboard-agent-grpc-port={grpc}"]
    command += [f"--ray-client-server-port={client}", f"--temp-dir={folder}", "--num-cpus=4", "--num-gpus=1"]
    command += ["--object-store-memory=100000000", "--disable-usage-stats"]
    address = f"127.0.0.1:{gcs}"
    pages, series = f"http://127.0.0.1:{board}", f"http://127.0.0.1:{metrics}"
    made = Watched(folder, address, pages, series, token, folder / "watched")
    with (folder / "log").open("wb") as log, contextlib.ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        head = heads.start(command, environment, folder / "head.log", pages, token)
        stack.callback(heads.end, head, 0)  # at once: nothing of it is kept
        driver = subprocess.Popen(
            [sys.executable, "-m", "tests.cluster.watched_driver", str(made.out)],
            env=environment | {"RAY_ADDRESS": address},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            start_new_session=True,
        )
        stack.callback(heads.end, driver, 0)
        wait((made.out / "through").exists, 500, folder / "log", driver)
        yield made


def answers(url: str, token: str = "") -> bytes | None:
    """Return what is there, or ``None``."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.read()
    except OSError:
        return None


def wait(true, seconds: float, log: Path, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until something is true; fail with the end of a log."""
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end or (process is not None and process.poll() is not None):
            pytest.fail(f"it did not come up: {log.read_text(errors='replace')[-3000:]}")
        time.sleep(0.3)
