"""A lease on an output: of several runs with the same output, one works and the others wait.

The lease only saves work. Correctness rests on receipts being put if absent: a run that continues without the lease,
because it was presumed dead, duplicates work but does no harm.

A claim is a numbered file below ``OUT/.lease``, put if absent; a run that puts one and then finds no other beside it
holds the lease. The holder keeps writing a heartbeat beside its claim. Waiting runs watch, by their own clock alone,
whether the heartbeat changes; when it stays the same for too long, the holder is presumed dead and the next number is
claimed. A holder that was presumed dead finds its claim gone when it wakes up. At the end, claim and heartbeat are
removed. At both ends the holder removes what dead writers left half-written below the output.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from gristmill.shards import owner, store
from gristmill.shards.environment import seconds
from gristmill.shards.errors import GristmillError, UserError

FOLDER = ".lease"  # below OUT
SECONDS = 30.0  # without a heartbeat before a holder is presumed dead
SETTING = "GRISTMILL_LEASE_SECONDS"  # environment variable that overrides it
_BEATS = 6  # heartbeats in that time
_NUMBERED = re.compile(r"\d+\.json")  # a claim

Watched = tuple[str, bytes | None]  # a claim and its newest heartbeat


class LeaseLost(GristmillError):
    """Another run presumed this one dead and took its place. Exit code 1."""


@dataclass(frozen=True)
class Holder:
    """The run that put a claim."""

    token: str
    machine: str  # boot id of the kernel and process namespace; "" if unknown
    process: str  # pid and start time
    host: str
    since: str  # by its own clock, for messages only
    every: float  # seconds between heartbeats


class Lease:
    """The lease on one output, for one run. ``lost`` is called, in a thread, when another run took it over."""

    def __init__(self, out: str, lost: Callable[[], None] | None = None) -> None:
        self.out, self.url = out, store.join(out, FOLDER)
        self.seconds = seconds(SETTING, SECONDS)
        self.held = False
        self._lost = threading.Event()
        self._on_lost = lost
        self._ended = threading.Event()
        self._beating: threading.Thread | None = None
        self._claim = ""
        self._holder = Holder("", "", "", "", "", 0.0)
        self._beaten = 0.0  # when it was last seen that the lease is this run's, by its own clock

    def take(self, waiting: Callable[[str], None]) -> None:
        """Take the lease as soon as no live run holds it; ``waiting`` is called with a sentence about each holder."""
        while not self._put(*self._free(waiting)):
            time.sleep(random.uniform(0.05, 0.5))  # two claims at the same moment both back off

    def take_at_once(self) -> None:
        """Take the lease unless a live run holds it.

        Raises:
            UserError: one does. Of a run on another machine that is seen by its next heartbeat.
        """
        while not self._put(*self._free(None)):
            time.sleep(random.uniform(0.05, 0.5))

    def refuse_held(self) -> None:
        """Raise as :meth:`take_at_once` if a live run holds the lease, and write nothing."""
        self._free(None)

    def is_free(self) -> bool:
        """Return whether it is seen at once that no run holds the lease: none has a claim, or the process of the last
        one has ended on this machine. Of another machine only time tells."""
        claims = self._claims()
        holder = self._look(claims[-1])[0] if claims else None
        return not claims or (holder is not None and owner.ended(holder.machine, holder.process))

    def _free(self, waiting: Callable[[str], None] | None) -> tuple[list[str], str | None]:
        """Return the claims there are, and the dead one to be followed, once no live run holds the lease; with nobody
        to tell of waiting, it is refused to wait for one that is seen to live."""
        watched: Watched | None = None
        begun = time.monotonic()
        announced = ""
        while claims := self._claims():
            holder, now = self._look(claims[-1])
            beats = watched is not None and watched[0] == now[0]  # it is known, and has beaten since
            if now != watched:
                watched, begun = now, time.monotonic()
                lives = holder is not None and (beats or holder.machine == owner.machine() != "")
            limit = max(self.seconds, _BEATS * holder.every if holder else 0.0)
            if (holder and owner.ended(holder.machine, holder.process)) or time.monotonic() - begun >= limit:
                return claims, claims[-1]
            if holder and waiting is None and lives:
                raise UserError(
                    f"{_at_work(self.out, holder)}; expected an output at which none works, so run this again later"
                )
            if holder and waiting is not None and holder.token != announced:
                announced = holder.token
                waiting(f"{_at_work(self.out, holder)}, waiting")
            time.sleep(min(1.0, self.seconds / (2 * _BEATS)))
        return [], None

    def confirm(self) -> None:
        """Raise as :meth:`check` before what cannot be undone: after a while without a heartbeat of its own, as when
        the process was stopped, it is looked whether the claim is still there."""
        self.check()
        if time.monotonic() - self._beaten > self._holder.every * 2:
            if not self._is_mine():
                self._lost.set()
            self._beaten = time.monotonic()
            self.check()

    @property
    def lost(self) -> bool:
        """Whether another run took it over."""
        return self._lost.is_set()

    def check(self) -> None:
        """Raise :class:`LeaseLost` if another run took the lease over."""
        if self._lost.is_set():
            raise LeaseLost(
                f"{self.out}: this run sent no heartbeat for so long that another one took its place; its committed "
                "shards are kept, the same command waits for the other run and continues from there"
            )

    def release(self) -> None:
        """Release the lease and remove its files; does nothing if it is not held."""
        if not self.held:
            return
        self._ended.set()
        if self._beating is not None:
            self._beating.join()
        self.held = False
        # If the storage fails, the lease expires by itself; the error that matters is the run's own.
        with contextlib.suppress(OSError, GristmillError):
            store.sweep(self.out)
            claim = store.join(self.url, self._claim)
            if self._is_mine():
                store.remove(claim)
            if not store.exists(claim):
                store.remove(self._beat_url())
            if store.is_local(self.url):
                Path(store.filesystem(self.url)[1]).rmdir()  # fails if another run has claimed by now

    # Claiming.

    def _claims(self) -> list[str]:
        return sorted(filter(_NUMBERED.fullmatch, store.list_names(self.url)))

    def _look(self, claim: str) -> tuple[Holder | None, Watched]:
        """Return the holder of a claim, unless it is gone, and the state to watch."""
        holder = _holder(store.read_if_present(store.join(self.url, claim)))
        return holder, (claim, store.read_if_present(store.join(self.url, _beat_name(claim))))

    def _put(self, seen: list[str], dead: str | None) -> bool:
        """Claim the number after a dead holder's, or the first; return whether the lease is held now."""
        claim = f"{int(dead.partition('.')[0]) + 1 if dead else 1:06d}.json"
        self._holder = _myself(self.seconds / _BEATS)
        if not store.put_if_absent(store.join(self.url, claim), json.dumps(vars(self._holder)).encode()):
            return False
        self._claim = claim
        # The earlier listing may have been stale: a run that claimed another number meanwhile is seen now, or sees
        # this claim.
        if set(self._claims()) - set(seen) - {claim}:
            store.remove(store.join(self.url, claim))
            return False
        for name in store.list_names(self.url):
            if name in seen or (not _NUMBERED.fullmatch(name) and name != _beat_name(claim)):
                store.remove(store.join(self.url, name))  # of dead holders, and what they left half-written
        store.sweep(self.out)
        self.held, self._beaten = True, time.monotonic()
        self._beating = threading.Thread(target=self._beat, name="lease", daemon=True)
        self._beating.start()
        return True

    # Holding.

    def _beat(self) -> None:
        count = 0
        while True:
            count += 1
            # Storage that does not answer for a while costs at most the lease, which the next look reveals.
            with contextlib.suppress(OSError, GristmillError):
                if not self._is_mine():
                    break
                store.write_bytes(self._beat_url(), f"{self._holder.token} {count}".encode())
                self._beaten = time.monotonic()
            if self._ended.wait(self._holder.every):
                return
        self._lost.set()
        if self._on_lost is not None and not self._ended.is_set():
            self._on_lost()

    def _is_mine(self) -> bool:
        holder = _holder(store.read_if_present(store.join(self.url, self._claim)))
        return holder is not None and holder.token == self._holder.token

    def _beat_url(self) -> str:
        return store.join(self.url, _beat_name(self._claim))


def _at_work(out: str, holder: Holder) -> str:
    process = holder.process.partition("@")[0]
    return f"another run has been working at {out} since {holder.since} (process {process} on {holder.host})"


def _beat_name(claim: str) -> str:
    return claim.replace(".json", ".beat")


def _holder(data: bytes | None) -> Holder | None:
    """Return the holder of a claim; ``None`` if it is gone or unreadable: an unreadable one holds until it expires."""
    try:
        holder = None if data is None else Holder(**json.loads(data))
    except (ValueError, TypeError):
        return None
    if holder is None or not isinstance(holder.every, int | float):
        return None
    texts = (value for name, value in vars(holder).items() if name != "every")
    return holder if all(isinstance(value, str) for value in texts) else None


def _myself(every: float) -> Holder:
    return Holder(
        token=uuid.uuid4().hex,
        machine=owner.machine(),
        process=owner.process(),
        host=socket.gethostname(),
        since=datetime.now(UTC).isoformat(" ", "seconds"),
        every=every,
    )
