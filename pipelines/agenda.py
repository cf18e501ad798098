"""How far a run is as a whole: how many of its results are there, of how many, and the time to go."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

LEAST_MEASURED = 10.0  # estimated seconds of work behind which the estimates are corrected by the time that it took


@dataclass
class AgendaPart:
    """A result that is being made: of so many estimated seconds; ``share`` of it is done, ``first`` at its start."""

    name: str
    seconds: float | None
    first: float = 0.0
    share: float = 0.0
    since: float = 0.0  # Unix time at which it was begun
    ended: float | None = None  # and at which it had ended, while others go on beside it


@dataclass
class Agenda:
    """The results of a run: sets, artifacts and models, told as they are begun and made.

    What a recipe will make in all is known from `gristmill plan` or an earlier run with the same settings: ``expected``
    has the name of each result and the seconds that it is estimated to take, of which only those of missing results
    matter, and ``rest`` those outside all results. A result that was not expected is counted as it comes. So neither
    number ever falls. Without expectation the total is of what is ``declared``, which may grow as a recipe goes on by
    what it reads.

    Example:
        >>> agenda = Agenda([("texts", 1.0), ("kept", 60.0), ("model", 540.0)])
        >>> agenda.made("out/texts/0", "texts", 1.0, kept=True)
        >>> agenda.begin({"out/kept/0": "kept"})
        >>> agenda.made("out/kept/0", "kept", 30.0)
        >>> agenda.line()
        '2 of 3 done, about 4 min 30 s to go'
    """

    expected: Sequence[tuple[str, float | None]] = ()
    rest: float = 0.0
    declared: Callable[[], int] | None = None  # returns how many results the recipe has declared so far
    changed: Callable[[], None] | None = None  # called when a result is begun or there
    _waiting: dict[str, list[float | None]] = field(default_factory=dict)
    _under: dict[str, AgendaPart] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)  # URLs
    _here: threading.local = field(default_factory=threading.local)  # the URL that each thread began last
    _estimated: float = 0.0  # seconds of what this run has made
    _spent: float = 0.0

    def __post_init__(self) -> None:
        for name, seconds in self.expected:
            self._waiting.setdefault(name, []).append(seconds)

    def begin(self, parts: Mapping[str, str]) -> None:
        """Take the results whose work begins, side by side: their names by URL."""
        since = time.time()
        for url, name in parts.items():
            self._here.url = url
            if url not in self._under and url not in self._done:
                self._under[url] = replace(self._take(name), since=since)
        self._tell()

    def at(self, share: float, url: str = "", *, first: bool = False) -> None:
        """Take the share of a result that is done, of the one that this thread began last if no URL is given;
        ``first`` at its start."""
        part = self._under.get(url or getattr(self._here, "url", ""))
        if part is not None:
            part.share = min(1.0, share)
            part.first = share if first else part.first

    def ended(self, url: str) -> None:
        """Count a result whose time is not known yet, as others go on beside it."""
        self.at(1.0, url)
        if url in self._under:
            self._under[url].ended = time.time()
            self._done.add(url)
            self._tell()

    def made(self, url: str, name: str, seconds: float, *, kept: bool = False) -> None:
        """Count a result that took so many seconds, or was kept from before."""
        part = self._under.pop(url, None)
        if part is None:
            if url in self._done:
                return  # used twice
            part = self._take(name)
        self._done.add(url)
        if not kept and part.seconds is not None:
            self._estimated += part.seconds * (1 - part.first)
            self._spent += seconds
        self._tell()

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed()

    def _take(self, name: str) -> AgendaPart:
        waiting = self._waiting.get(name)
        return AgendaPart(name, waiting.pop(0) if waiting else None)

    @property
    def parts(self) -> dict[str, AgendaPart]:
        """The results that are being made, by URL."""
        return self._under.copy()

    @property
    def active(self) -> bool:
        """Whether anything was begun or made."""
        return bool(self._under or self._done)

    @property
    def done(self) -> int:
        """The number of results that are there."""
        return len(self._done)

    @property
    def total(self) -> int | None:
        """The number of results, as far as it is known: without expectation, of those that are declared."""
        if not self.expected:
            return self.declared() if self.declared is not None else None
        return len(self._done | self._under.keys()) + sum(map(len, self._waiting.values()))

    @property
    def left(self) -> float | None:
        """Estimated seconds to go, by the pace of this run so far; ``None`` if they are unknown."""
        waiting = [seconds for of_name in self._waiting.values() for seconds in of_name]
        under = [(part, part.seconds) for part in list(self._under.values()) if part.seconds is not None]
        if not self.expected or any(seconds is None for seconds in waiting):
            return None
        estimated = self._estimated + sum(seconds * (part.share - part.first) for part, seconds in under)
        # Of trainings that are begun together some may wait for room.
        going = [time.time() - part.since for part, _ in under if part.share > part.first]
        spent = self._spent + sum(going)
        pace = spent / estimated if estimated >= LEAST_MEASURED else 1.0
        left = sum(seconds * (1 - part.share) for part, seconds in under) + sum(filter(None, waiting)) + self.rest
        return left * pace

    def line(self) -> str:
        """Return it in words."""
        total, left = self.total, self.left
        if total is None:
            return f"{self.done} done"
        return f"{self.done} of {total} done" + (f", about {about(left)} to go" if left is not None else "")


def about(seconds: float) -> str:
    """Return a duration that is an estimate in readable form.

    Example:
        >>> about(7), about(42), about(135), about(1530), about(8000)
        ('10 s', '40 s', '2 min 15 s', '26 min', '2 h 15 min')
    """
    if seconds < 55:
        return f"{max(1, round(seconds / 10)) * 10} s"
    if seconds < 300:
        minutes, rest = divmod(round(seconds / 15) * 15, 60)
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {round(minutes % 60 / 5) * 5 % 60:02d} min"
