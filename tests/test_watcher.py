"""A test run that is killed leaves nothing behind of what its tests had started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.watcher import MARK

ROOT = Path(__file__).resolve().parents[1]
# The first process has a session of its own, as a head of Ray; the second one is its child and has no mark.
RUN = """
import os, subprocess, sys, time
from pathlib import Path
from tests import watcher
watcher.watch()
below = "import subprocess as s, time; print(s.Popen(['sleep', '1000'], env={}).pid, flush=True); time.sleep(1000)"
started = subprocess.Popen([sys.executable, "-c", below], stdout=subprocess.PIPE, text=True, start_new_session=True)
print(started.pid, started.stdout.readline(), flush=True)
time.sleep(1000)
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="only Linux has pidfd_open")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_what_a_run_started_ends_with_it(number: signal.Signals) -> None:
    surroundings = {name: value for name, value in os.environ.items() if name != MARK} | {"PYTHONPATH": str(ROOT)}
    run = subprocess.Popen(
        [sys.executable, "-c", RUN], env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert run.stdout is not None
    started = [psutil.Process(int(pid)) for pid in run.stdout.readline().split()]
    assert len(started) == 2
    run.send_signal(number)
    run.wait(30)
    for _ in range(300):
        if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in started):
            return
        time.sleep(0.1)
    pytest.fail("what the run had started is left")
