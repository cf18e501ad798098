"""A lease on an output: of several runs that want to work there, one works and the others wait.

The lease is for economy alone. What keeps the data right is that receipts are put if absent; a run that works without
the lease, because it was taken for dead, does work twice and no harm.

A claim is a numbered file below ``OUT/.lease``, put if absent; who puts it and then finds no other beside it holds the
lease. The holder writes a beat beside its claim again and again. Who waits watches by its own clock alone whether the
beat changes; one that stood still for long is of a holder that is dead, and the next number is claimed in its place. A
holder that was taken for dead finds its claim gone when it wakes. At the end claim and beat are removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gristmill.shards import store
from gristmill.shards.environment import seconds
from gristmill.shards.errors import GristmillError

FOLDER = ".lease"  # below OUT
SECONDS = 30.0  # without a beat, after which a holder is taken for dead
SETTING = "GRISTMILL_LEASE_SECONDS"  # the environment variable that replaces it
_BEATS = 6  # in that time

Watched = tuple[str, bytes | None]  # a claim and its newest beat


class LeaseLost(GristmillError):
    """Another run took this one for dead and works in its place. Exit code 1."""


@dataclass(frozen=True)
class Holder:
    """Who put a claim."""

    token: str
    machine: str  # the kernel that runs and the process namespace; "" where they cannot be told
    process: str  # its number and when it started
    host: str
    since: str  # by its own clock, to be shown only
    every: float  # seconds from beat to beat


class Lease:
    """The lease on one output, for one run. ``lost`` is called, in a thread, when another took it over."""

    def __init__(self, out: str, lost: Callable[[], None] | None = None) -> None:
        self.out, self.url = out, store.join(out, FOLDER)
        self.seconds = seconds(SETTING, SECONDS)
        self.held = False
        self._lost = threading.Event()
        self._tell_lost = lost
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None
        self._claim = ""
        self._holder = Holder("", "", "", "", "", 0.0)

    def take(self, waiting: Callable[[str], None]) -> None:
        """Take the lease, as soon as nobody living holds it; ``waiting`` is told once, in a sentence, who does."""
        watched: Watched | None = None
        begun = time.monotonic()
        told = ""
        while True:
            claims = self._claims()
            dead = None
            if claims:
                holder, now = self._look(claims[-1])
                if now != watched:
                    watched, begun = now, time.monotonic()
                limit = max(self.seconds, _BEATS * holder.every if holder else 0.0)
                if not (holder and _process_ended(holder)) and time.monotonic() - begun < limit:
                    if holder and holder.token != told:
                        told = holder.token
                        waiting(
                            f"another run is at work at {self.out} since {holder.since} (process "
                            f"{holder.process.partition('@')[0]} on {holder.host}), waiting"
                        )
                    time.sleep(min(1.0, self.seconds / (2 * _BEATS)))
                    continue
                dead = claims[-1]
            if self._put(claims, dead):
                return
            time.sleep(random.uniform(0.05, 0.5))  # two that came at one moment both step back

    def check(self) -> None:
        """Raise :class:`LeaseLost` if another run took the lease over."""
        if self._lost.is_set():
            raise LeaseLost(
                f"{self.out}: this run made no sign for so long that another one took its place; what it committed "
                "is kept, the same command waits for the other and goes on from there"
            )

    def release(self) -> None:
        """Give the lease back; nothing of it is left. Without effect where it is not held."""
        if not self.held:
            return
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        self.held = False
        # Where the storage fails, the lease runs out by itself; the error that matters is the run's own.
        with contextlib.suppress(OSError, GristmillError):
            if self._is_mine():
                store.remove(store.join(self.url, self._claim))
                store.remove(self._beat_url())
            if store.is_local(self.url):
                Path(store.filesystem(self.url)[1]).rmdir()  # refused if somebody else claimed by now

    # Claiming.

    def _claims(self) -> list[str]:
        return sorted(name for name in store.list_names(self.url) if name.endswith(".json"))

    def _look(self, claim: str) -> tuple[Holder | None, Watched]:
        """Return who put a claim, unless it is gone, and what to watch."""
        holder = _holder(store.read_if_present(store.join(self.url, claim)))
        return holder, (claim, store.read_if_present(store.join(self.url, _beat_name(claim))))

    def _put(self, seen: list[str], dead: str | None) -> bool:
        """Claim the number behind a dead holder's, or the first; tell whether the lease is held now."""
        claim = f"{int(dead.partition('.')[0]) + 1 if dead else 1:06d}.json"
        self._holder = _myself(self.seconds / _BEATS)
        if not store.put_if_absent(store.join(self.url, claim), json.dumps(vars(self._holder)).encode()):
            return False
        self._claim = claim
        # A listing from before may have been old: one who claims another number at this moment is seen by now, or
        # sees this one.
        if set(self._claims()) - set(seen) - {claim}:
            store.remove(store.join(self.url, claim))
            return False
        for old in seen:
            store.remove(store.join(self.url, old))
            store.remove(store.join(self.url, _beat_name(old)))
        self.held = True
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._beating.start()
        return True

    # Holding.

    def _beat(self) -> None:
        count = 0
        while True:
            count += 1
            # Storage that does not answer for a while costs the lease at most, and that is found out below.
            with contextlib.suppress(OSError, GristmillError):
                if not self._is_mine():
                    break
                store.write_bytes(self._beat_url(), f"{self._holder.token} {count}".encode())
            if self._ended.wait(self._holder.every):
                return
        self._lost.set()
        if self._tell_lost is not None and not self._ended.is_set():
            self._tell_lost()

    def _is_mine(self) -> bool:
        holder = _holder(store.read_if_present(store.join(self.url, self._claim)))
        return holder is not None and holder.token == self._holder.token

    def _beat_url(self) -> str:
        return store.join(self.url, _beat_name(self._claim))


def _beat_name(claim: str) -> str:
    return claim.replace(".json", ".beat")


def _holder(data: bytes | None) -> Holder | None:
    """Return who put a claim; nobody where it is gone or cannot be read, so that it holds until its time is up."""
    try:
        return None if data is None else Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None


def _myself(every: float) -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        machine=_machine(),
        process=f"{os.getpid()}@{_started(os.getpid())}",
        host=socket.gethostname(),
        since=datetime.now(UTC).isoformat(" ", "seconds"),
        every=every,
    )


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _started(process: int) -> str:
    """Return when a process of this machine started, in ticks since it was booted; "" where there is none."""
    try:
        # The name of the program, in parentheses, may hold anything.
        fields: list[Any] = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _process_ended(holder: Holder) -> bool:
    """Tell whether the holder is known to be dead, since it was a process of this very machine."""
    if not holder.machine or holder.machine != _machine():
        return False
    process, _, started = holder.process.partition("@")
    return _started(int(process)) != started
