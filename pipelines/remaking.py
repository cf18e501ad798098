"""Sets of a run that `gristmill clean` has deleted: found by their seals, and made again when something needs them.

A run finds a cleaned set as any finished one, since its seal was kept, and looks for its tombstone only when the rows
are to be read: by a step or a training that is not done, or by the recipe itself. A run with nothing to do makes no
requests for it. What the recipe itself reads, with all results there, is noted: `gristmill clean` keeps that.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from gristmill.shards.cleaning import begin_again, end_again
from gristmill.shards.dataset import SealedSet
from gristmill.shards.plan import PlanNode, is_making, using
from gristmill.shards.tombstone import Cleaned


class Remaking:
    """The sets of one run, by URL, and how each is made again.

    ``begin`` is called before work, and again and again during it: it holds the lease of the output. ``say`` is told
    what is made again, and ``note`` the URL of what was.
    """

    def __init__(self, begin: Callable[[], None], say: Callable[[str], None], note: Callable[[str], None]) -> None:
        self.read: dict[str, None] = {}  # URLs of the sets that the recipe itself reads
        self._begin, self._say, self._note = begin, say, note
        self._makers: dict[str, tuple[PlanNode, SealedSet, Callable[[SealedSet], object]]] = {}
        self._lock = threading.RLock()
        self._whole: set[str] = set()  # found so since this run holds the lease

    def hold(self, node: PlanNode, sealed: SealedSet, make: Callable[[SealedSet], object]) -> SealedSet:
        """Return the set of a node for its recipe; ``make`` makes its shards again, to the same digest."""
        self._makers.setdefault(sealed.url, (node, sealed, make))
        return HeldSet(sealed.url, sealed.seal, self)

    def need(self, urls: Iterable[str]) -> None:
        """Make those of the sets again that were cleaned; the run holds the lease."""
        with self._lock:  # results are made side by side, and a set once
            self._need(urls)

    def _need(self, urls: Iterable[str]) -> None:
        for url in urls:
            if url not in self._makers or url in self._whole:
                continue
            if begin_again(url, self._begin):
                node, sealed, make = self._makers[url]
                self._say(f"{sealed.name}: was deleted by `gristmill clean`, and is needed: it is made again")
                with using(node):
                    make(sealed)
                end_again(url)
                self._note(url)
            self._whole.add(url)

    def opened(self, sealed: SealedSet) -> None:
        """Note that the rows of a set are read, unless that is of the work on one result, and not of the recipe."""
        if not is_making():
            self.read.setdefault(sealed.url)

    def renew(self, sealed: SealedSet) -> None:
        """Make a set again that was found to be cleaned when it was read."""
        self._begin()
        self._whole.discard(sealed.url)
        self.need([sealed.url])


@dataclass(frozen=True, eq=False)
class HeldSet(SealedSet):
    """A set of a run, as its recipe has it."""

    held: Remaking

    def read(self, shard: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows of one shard; raises :class:`~gristmill.shards.errors.Damaged`."""
        self.held.opened(self)
        try:
            return super().read(shard, columns)
        except Cleaned:
            self.held.renew(self)
            return super().read(shard, columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return SealedSet, (self.url, self.seal)  # a worker has no run
