"""Ends a run with a sentence when the Ray that it runs on is gone.

A driver whose raylet or GCS (the cluster's state) is gone is ended by Ray's own C++ code after 15 or 60 seconds, with
no exception; one whose GCS or raylet hangs waits for ever. So a thread looks after both. It interrupts the main thread,
which has some seconds to leave the run in order, and then it ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

from gristmill.shards.errors import Interrupted

LOOK_SECONDS = 0.5  # between looks at the processes of a local Ray
ASK_SECONDS = 5.0  # for the GCS to answer
SILENT_SECONDS = 40.0  # before a silent GCS is given up: less than the 60 s after which Ray ends the process
LEAVE_SECONDS = 4.0  # for the main thread to leave the run: both are less than the 12 s in which Ray ends the process
KILL_SECONDS = 3.0  # for finding and killing what is left of a local Ray
PROCESSES = ("gcs_server", "raylet")
CODE = 130  # the exit code of an interruption

KEPT = "committed work is kept, and the same command resumes it"


class RayGone(Interrupted):
    """The Ray on which a run worked is gone. The process ends within seconds, unless it leaves Ray."""


class Guard:
    """Looks after the Ray of this process; ``kill`` kills what is left of a local one."""

    def __init__(self, kill: Callable[[], None]) -> None:
        import ray

        self._worker: Any = ray._private.worker
        self._of = node = self._worker._global_node
        self._kill = kill
        self._gcs = self._worker.global_worker.gcs_client
        self._node = ray.NodeID.from_hex(node.node_id)
        self._processes = {  # of a local Ray; of one that was joined there are none
            kind: found[0].process for kind, found in node.all_processes.items() if kind in PROCESSES
        }
        where = next((one for one in ray.nodes() if one["NodeID"] == node.node_id), None)
        self._raylet = (where["NodeManagerAddress"], where["NodeManagerPort"]) if where else None
        self._silent = 0.0  # seconds
        self._why: str | None = None
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="guard", daemon=True).start()

    @property
    def gone(self) -> bool:
        """Return whether Ray was found to be gone."""
        return self._why is not None

    def end(self) -> None:
        """Stop looking."""
        self._over.set()

    def check(self, error: BaseException) -> None:
        """Raise :class:`RayGone` if Ray is gone, of which ``error`` may be the consequence."""
        if self._over.is_set() or self._left():
            return
        self._why = self._why or self._dead_process() or self._dead_raylet()
        if self._why is None and not isinstance(error, KeyboardInterrupt):
            self._why = self._ask(0.0)
        if self._why is not None:
            raise RayGone(self._why)

    def _watch(self) -> None:
        while not self._over.wait(LOOK_SECONDS) and not self._left():
            why = self._why or self._dead_process() or self._dead_raylet() or self._ask(SILENT_SECONDS)
            if why is not None and not self._over.is_set() and not self._left():
                self._why = why
                self._leave(why)
                return

    def _leave(self, why: str) -> None:
        """Interrupt the main thread, and end the process unless it leaves Ray."""
        if callable(signal.getsignal(signal.SIGINT)):  # it may be ignored in a background process
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        if not self._over.wait(LEAVE_SECONDS):
            leave_now(f"gristmill: {why}", self._kill)

    def _left(self) -> bool:
        """Return whether this process has itself left Ray, as by ``ray.shutdown()`` or at its exit."""
        return self._worker._global_node is not self._of or not self._worker.global_worker.connected

    def _dead_process(self) -> str | None:
        for kind, process in self._processes.items():
            if (code := process.poll()) is not None:
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                return f"Ray's process {kind} on this machine has ended ({how}); {KEPT}"
        return None

    def _dead_raylet(self) -> str | None:
        """Return that the raylet of a cluster that was joined is gone, if its port is closed."""
        if self._processes or self._raylet is None:
            return None
        for _ in range(2):
            try:
                socket.create_connection(self._raylet, ASK_SECONDS).close()
                return None
            except ConnectionRefusedError:
                if self._over.wait(LOOK_SECONDS):
                    return None
            except OSError:
                return None  # slow, or no free descriptor: the GCS knows better
        return f"the raylet at {self._raylet[0]}:{self._raylet[1]}, this run's node of the cluster, has ended; {KEPT}"

    def _ask(self, patience: float) -> str | None:
        """Ask the GCS whether it lives, and whether it counts this run's node alive."""
        begun = time.monotonic()
        try:
            (alive,) = self._gcs.check_alive([self._node], timeout=ASK_SECONDS)
        except Exception:  # of several classes
            # A process that was suspended, as by Ctrl-Z, has waited for no answer meanwhile.
            self._silent += min(time.monotonic() - begun, ASK_SECONDS) + LOOK_SECONDS
            if self._silent < patience:
                return None
            return f"Ray's GCS, which keeps the state of the cluster, does not answer ({self._silent:.0f} s); {KEPT}"
        self._silent = 0.0
        return None if alive else f"Ray counts this run's node as dead: its raylet does not answer; {KEPT}"


def check_start() -> None:
    """Raise :class:`RayGone` if a process of a local Ray that this process was starting has ended."""
    import psutil

    for child in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if child.name() in PROCESSES and child.status() == psutil.STATUS_ZOMBIE:
                raise RayGone(f"Ray's process {child.name()} on this machine has ended while it started; {KEPT}")


_leaving = threading.Lock()


def leave_now(sentence: str, kill: Callable[[], None], code: int = CODE) -> None:
    """End this process at once with a sentence, after the processes of its local Ray.

    Returns only if the process is being ended already, by a thread or by what a signal interrupted.
    """
    if not _leaving.acquire(blocking=False):
        return
    # The main thread may be in the middle of writing to stderr, and a progress display may have hidden the cursor.
    shown = "\x1b[?25h\n" if os.isatty(2) else ""
    with contextlib.suppress(OSError):
        os.write(2, f"{shown}{sentence}\n".encode())
    killing = threading.Thread(target=kill, name="kill", daemon=True)
    killing.start()
    killing.join(KILL_SECONDS)
    os._exit(code)
