"""A worker's supervisor restarts Ray when it ends, and ends it when the head is silent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FAST = "import sys, gristmill.cluster.supervisor as s; s.LOOK_SECONDS, s.CUT_SECONDS = 0.2, 1.0; s.main(sys.argv[1:])"
# A stub for Ray: records its arguments; ends at once if the file "broken" exists, else on a signal.
STUB = '#!/bin/sh\necho "$@" >> "$NOTES/calls"\n[ -e "$NOTES/broken" ] && exit 7\nexec sleep 600\n'


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_worker_comes_back(tmp_path: Path) -> None:
    stub, calls, broken = tmp_path / "ray", tmp_path / "calls", tmp_path / "broken"
    stub.write_text(STUB)
    stub.chmod(0o755)
    broken.touch()
    head = socket.create_server(("127.0.0.1", 0), backlog=4000)  # accepts no connections
    address = f"127.0.0.1:{head.getsockname()[1]}"
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "NOTES": str(tmp_path), "PYTHONPATH": str(ROOT)}
    log = tmp_path / "log"
    with log.open("wb") as out:
        command = [sys.executable, "-c", FAST, address, "--num-cpus=3"]
        supervisor = subprocess.Popen(command, env=environment, stderr=out)

    def called() -> int:
        return len(calls.read_text().splitlines()) if calls.exists() else 0

    try:
        until(lambda: called() >= 2)
        assert (
            calls.read_text().splitlines()[0] == f"start --block --disable-usage-stats --address={address} --num-cpus=3"
        )
        assert "ended (exit code 7); it joins" in log.read_text()

        broken.unlink()
        before = called()
        until(lambda: called() > before)
        head.close()
        until(lambda: "was ended: the head gave no answer" in log.read_text())
        before = called()
        with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
            until(lambda: called() > before)
            supervisor.send_signal(signal.SIGTERM)
            assert supervisor.wait(120) == 0
    finally:
        supervisor.kill()
        supervisor.wait()
