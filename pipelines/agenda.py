"""How far a run is as a whole: how many of its results are there, of how many, and the time to go."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class AgendaPart:
    """A result that is being made, and the ``share`` of it that is done."""

    name: str
    since: float  # Unix time at which it was begun
    share: float = 0.0
    until: float | None = None  # and at which it ends by its own pace, once that is known
    ended: float | None = None  # and at which it had ended, while others go on beside it


@dataclass
class Agenda:
    """The results of a run: sets, artifacts and models, told as they are begun and made.

    What a recipe will make in all is known from `gristmill plan` or an earlier run with the same settings: ``expected``
    has the name of each result. One that was not expected is counted as it comes. So neither number ever falls. Without
    expectation the total is of what is ``declared``, which may grow as a recipe goes on by what it reads.

    Example:
        >>> agenda = Agenda(["texts", "kept", "model"])
        >>> agenda.made("out/texts/0", "texts")
        >>> agenda.begin({"out/kept/0": "kept"})
        >>> agenda.made("out/kept/0", "kept")
        >>> agenda.expect(270.0)
        >>> agenda.line()
        '2 of 3 done, about 4 min 30 s to go'
    """

    expected: Sequence[str] = ()
    declared: Callable[[], int] | None = None  # returns how many results the recipe has declared so far
    changed: Callable[[], None] | None = None  # called when a result is begun or there
    awaited: str = ""  # while another run is at work on the output, and this one waits: how far that one is
    _waiting: Counter[str] = field(default_factory=Counter)
    _taken: Counter[str] = field(default_factory=Counter)  # those begun or there, by name
    _may_grow: bool = False  # whether more may come than was expected
    _under: dict[str, AgendaPart] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)  # URLs
    _here: threading.local = field(default_factory=threading.local)  # the URL that each thread began last
    _until: float | None = None  # Unix time at which all is expected to be there

    def __post_init__(self) -> None:
        self._waiting.update(self.expected)

    def foresee(self, names: Sequence[str]) -> None:
        """Take the names of the results that another run had declared, which may have been on its way to more."""
        self.expected, self._may_grow = names, True
        self._waiting = Counter(names) - self._taken

    def begin(self, parts: Mapping[str, str]) -> None:
        """Take the results whose work begins, side by side: their names by URL."""
        since = time.time()
        for url, name in parts.items():
            self._here.url = url
            if url not in self._under and url not in self._done:
                self._take(name)
                self._under[url] = AgendaPart(name, since)
        self._tell()

    def at(self, share: float, url: str = "", *, left: float | None = None) -> None:
        """Take the share of a result that is done, of the one that this thread began last if no URL is given, and the
        seconds that it still takes by its own pace."""
        part = self._under.get(url or getattr(self._here, "url", ""))
        if part is not None:
            part.share, part.until = min(1.0, share), None if left is None else time.time() + left

    def ended(self, url: str) -> None:
        """Count a result whose time is not known yet, as others go on beside it."""
        self.at(1.0, url)
        if url in self._under:
            self._under[url].ended = time.time()
            self._done.add(url)
            self._tell()

    def made(self, url: str, name: str) -> None:
        """Count a result that was made, or kept from before."""
        if self._under.pop(url, None) is None:
            if url in self._done:
                return  # used twice
            self._take(name)
        self._done.add(url)
        self._tell()

    def expect(self, left: float | None) -> None:
        """Take the seconds that are expected to go from now, or ``None`` if they are unknown."""
        self._until = None if left is None else time.time() + left

    def _tell(self) -> None:
        if self.changed is not None:
            self.changed()

    def _take(self, name: str) -> None:
        self._taken[name] += 1
        if self._waiting[name]:
            self._waiting[name] -= 1

    @property
    def parts(self) -> dict[str, AgendaPart]:
        """The results that are being made, by URL."""
        return self._under.copy()

    @property
    def active(self) -> bool:
        """Whether anything was begun or made, or is waited for."""
        return bool(self._under or self._done or self.awaited)

    @property
    def done(self) -> int:
        """The number of results that are there."""
        return len(self._done)

    @property
    def total(self) -> int | None:
        """The number of results, as far as it is known: without expectation, of those that are declared."""
        declared = self.declared() if self.declared is not None else None
        if not self.expected:
            return declared
        known = len(self._done | self._under.keys()) + self._waiting.total()
        return max(known, declared or 0) if self._may_grow else known

    @property
    def left(self) -> float | None:
        """Seconds to go, as far as they are expected."""
        return None if self._until is None else max(0.0, self._until - time.time())

    def line(self) -> str:
        """Return it in words."""
        if self.awaited:
            return f"waits for the run that is at work: {self.awaited}"
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
