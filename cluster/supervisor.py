"""Keeps a worker's machine in the cluster: ``python -m gristmill.cluster.supervisor HEAD:PORT [options of ray start]``.

A Ray worker that was cut off from its head ends or hangs, and does not reconnect by itself. The supervisor restarts it
each time, as soon as the head answers, until SIGTERM.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from gristmill.cluster.session import HEALTH, SETTINGS, WORKER

LOOK_SECONDS = 5.0  # between probes of the head, and time-out of each
CUT_SECONDS = 30.0  # without an answer from the head before the worker is ended
END_SECONDS = 20.0  # for the worker to end before it is killed


def keep(head: str, options: Sequence[str]) -> NoReturn:
    """Join the cluster of ``head`` (host:port), and rejoin it for ever; only a signal handler's exception ends it."""
    command = ["ray", "start", "--block", "--disable-usage-stats", f"--address={head}", *options]
    environment = {**SETTINGS, **WORKER, **HEALTH, **os.environ}
    while True:
        while not _answers(head):
            time.sleep(LOOK_SECONDS)
        worker = subprocess.Popen(command, env=environment, start_new_session=True)
        try:
            why = _stays(worker, head)
        finally:
            _end(worker)
        print(f"gristmill: Ray on {socket.gethostname()} {why}; it joins {head} again", file=sys.stderr, flush=True)
        time.sleep(LOOK_SECONDS)


def _stays(worker: subprocess.Popen[bytes], head: str) -> str:
    """Wait until the worker is no longer part of the cluster and return the reason."""
    heard = time.monotonic()
    while True:
        try:
            return f"ended (exit code {worker.wait(LOOK_SECONDS)})"
        except subprocess.TimeoutExpired:
            pass
        if _answers(head):
            heard = time.monotonic()
        elif (quiet := time.monotonic() - heard) > CUT_SECONDS:
            return f"was ended: the head gave no answer for {quiet:.0f} s"


def _end(worker: subprocess.Popen[bytes]) -> None:
    """End the worker's processes only: `ray stop` would end those of other clusters too."""
    if worker.poll() is None:
        worker.terminate()  # ends its raylet, which ends the rest
        try:
            worker.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()


def _answers(head: str) -> bool:
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host, int(port)), LOOK_SECONDS).close()
    except OSError:
        return False
    return True


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def main(arguments: Sequence[str]) -> NoReturn:
    """Run as a program."""
    if not arguments or ":" not in arguments[0]:
        sys.exit("gristmill: expected HOST:PORT of the cluster's head, then options of `ray start`")
    signal.signal(signal.SIGTERM, _terminated)
    keep(arguments[0], arguments[1:])


if __name__ == "__main__":
    main(sys.argv[1:])
