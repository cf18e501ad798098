"""What tells processes of this machine apart, so that one process can learn whether another has ended."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any


def this_machine() -> str:
    """Return the boot id of the kernel and the process namespace; "" if they are unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def this_process() -> str:
    """Return the process id and start time of this process, which no other process of this machine has."""
    return f"{os.getpid()}@{_started(os.getpid())}"


def has_ended(process: str, machine: str) -> bool:
    """Return whether a process is known to have ended, which can be checked for processes of this machine.

    ``process`` and ``machine`` are what :func:`this_process` and :func:`this_machine` returned in it.
    """
    if not machine or machine != this_machine():
        return False
    number, _, started = process.partition("@")
    return _started(int(number)) != started


def _started(process: int) -> str:
    """Return the start time of a process of this machine, in ticks since boot; "" if there is no such process."""
    try:
        # The program's name, in parentheses, may contain any character.
        fields: list[Any] = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
