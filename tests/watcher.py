"""A process that ends what a test run started, once the run has ended, in whatever way.

A run that is killed takes nothing with it: neither xdist's processes nor the Ray that a test had started. On Linux, a
watcher waits for the run's main process, and then kills whatever has the run's mark in its environment or is below it.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "GRISTMILL_TEST_RUN"  # environment variable, by which all that a run starts is known
_ENOUGH = 30.0  # seconds of looking for what is left


def watch() -> None:
    """Start a watcher of this process, unless another one watches it already, and mark what it will start."""
    if MARK in os.environ or not hasattr(os, "pidfd_open"):
        return
    os.environ[MARK] = mark = f"{os.getpid()}-{time.time_ns()}"
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), mark]
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    nothing = subprocess.DEVNULL
    # Away from the terminal, whose interrupts end the run, and from its output, which others may read to the end.
    subprocess.Popen(
        command, env=environment, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True, cwd="/"
    )


def _main(watched: int, mark: str) -> None:
    # If it has ended by now, or if its number is that of another process already, what is left is ended at once.
    with contextlib.suppress(ProcessLookupError):
        descriptor = os.pidfd_open(watched)
        if os.getppid() == watched:
            select.select([descriptor], [], [])
    end = time.monotonic() + _ENOUGH
    while time.monotonic() < end and (found := _family(f"{MARK}={mark}".encode())):
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)


def _family(marked: bytes) -> set[int]:
    """Return the processes with a mark, and those below them: a process that renames itself overwrites it."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            state, parent, *_ = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            if state not in "ZX":
                parents[int(folder.name)] = int(parent)
                if marked in (folder / "environ").read_bytes().split(b"\0"):
                    found.add(int(folder.name))
    new = found
    while new:
        new = {pid for pid, parent in parents.items() if parent in new} - found
        found |= new
    return found


if __name__ == "__main__":
    _main(int(sys.argv[1]), sys.argv[2])
