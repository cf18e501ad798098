"""Which process made a file, so that what a dead one left can be told from what a live one uses."""

from __future__ import annotations

import functools
import hashlib
import os
from pathlib import Path
from typing import Any


@functools.cache
def machine() -> str:
    """Return the identity of this machine since it was started, and of its process namespace; "" if unknown."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def process(number: int | None = None) -> str:
    """Return the identity of a process of this machine, by default this one's: its number and its start."""
    number = os.getpid() if number is None else number
    return f"{number}@{_started(number)}"


def _started(number: int) -> str:
    """Return the start time of a process of this machine, in ticks since boot; "" if there is no such process."""
    try:
        # The program's name, in parentheses, may contain any character.
        fields: list[Any] = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def ended(where: str, which: str) -> bool:
    """Return whether the process ``which`` of the machine ``where`` is known to be dead: one of this machine."""
    number = which.partition("@")[0]
    return bool(where) and where == machine() and number.isdigit() and process(int(number)) != which


def tag() -> str:
    """Return this process's identity for the name of a file.

    Example:
        >>> in_use(tag()), in_use("00000000-1-1"), in_use("of-another-program")
        (True, False, False)
    """
    return f"{_short(machine())}-{process().replace('@', '-')}"


def in_use(found: str) -> bool:
    """Return whether the process whose :func:`tag` a name begins with is known to live: one of this machine."""
    where, which, now = _tagged(found)
    return where == _short(machine()) and which == now


def is_dead(found: str) -> bool:
    """Return whether the process whose :func:`tag` a name begins with is known to be dead: one of this machine."""
    where, which, now = _tagged(found)
    return bool(machine()) and where == _short(machine()) and bool(which) and which != now


def _tagged(found: str) -> tuple[str, str, str]:
    """Return a tag's machine, its process, and the one that has its number now; "" for a name without a tag."""
    where, number, started, *_ = [*found.split("-"), "", "", ""]
    return (where, f"{number}@{started}", process(int(number))) if number.isdigit() and started else ("", "", " ")


@functools.cache
def _short(where: str) -> str:
    return hashlib.sha256(where.encode()).hexdigest()[:8]
