"""Deadlines for an execution on Ray, so that no run waits for ever for a shard on a lost machine.

Ray detects dead processes by itself. A machine that was cut off silently it detects late, and the execution may then
hang. So the driver watches two things: whether shards still arrive, and whether each node still answers at its port.
When no shard arrives for too long, the execution is ended and a new one is started for the shards without a receipt,
on the nodes that answer. Leftover work of the old one does no harm: receipts are put if absent (law 3).
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from gristmill.cluster.joining import answers
from gristmill.shards.environment import seconds
from gristmill.shards.receipt import Receipt

SETTING = "GRISTMILL_STALL_SECONDS"  # environment variable that overrides SECONDS
SECONDS = 60.0  # minimum without a shard before an execution is restarted, once some have arrived
MEDIANS = 10  # minimum in medians of the time that a shard takes
FIRST = 60  # factor until the first shards arrive: models are loaded, and the time of a shard is unknown
BY_LOSS = (20.0, 2)  # SECONDS and MEDIANS when a node of the execution does not answer or is gone
PROBE_SECONDS = 3.0  # between probes of the nodes, and time-out of each
SILENT = 4  # failed probes in a row
KNOWN = 3  # shards that must have arrived before their median is used


class Stalled(Exception):
    """No shard arrived for too long. ``nodes`` are those to avoid."""

    def __init__(self, why: str, nodes: frozenset[str]) -> None:
        super().__init__(why)
        self.nodes = nodes


class Watch:
    """Watches the pace of a step's shards, over all its executions."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.least, self._clock = seconds(SETTING, SECONDS), clock
        self._took: list[float] = []
        self._since = clock()
        self._patience = 1.0

    def begin(self) -> None:
        """Start the clock of an execution."""
        self._since = self._clock()

    def heard(self, receipt: Receipt) -> None:
        """Record the arrival of a shard."""
        self._since, self._patience = self._clock(), 1.0
        self._took.append(sum(receipt.attempt.get("seconds", {}).values()))

    def limit(self, *, lost: bool) -> float:
        """Return the seconds without a shard after which an execution has stalled.

        Each execution without any shard doubles them, so that slow shards are not interrupted for ever.
        """
        least, medians, known = self.least, MEDIANS, KNOWN
        if lost:
            least, medians, known = min(least, BY_LOSS[0]), BY_LOSS[1], 1
        if len(self._took) >= known:
            least = max(least, medians * statistics.median(self._took[-1000:]))
        elif not lost:
            least *= FIRST
        return least * self._patience

    def check(self, nodes: Nodes) -> None:
        """Raise :class:`Stalled` if no shard arrived for too long."""
        quiet = self._clock() - self._since
        if quiet <= self.limit(lost=bool(nodes.lost)):
            return
        self._patience *= 2
        lost = f"; {nodes.lost} of its nodes gone or silent" if nodes.lost else ""
        raise Stalled(f"no shard arrived for {quiet:.0f} s{lost}", nodes.silent)


class Nodes:
    """Watches which nodes of the cluster answer, in a thread. ``silent`` nodes do not, though Ray counts them alive."""

    def __init__(self) -> None:
        self.lost = 0  # nodes that answered in this execution and now do not, or are gone
        self.silent: frozenset[str] = frozenset()
        self._misses: dict[str, int] = {}
        self._known: set[str] = set()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="nodes", daemon=True).start()

    def begin(self) -> None:
        """Start an execution: nodes lost before do not count."""
        self._known, self.lost = set(), 0

    def end(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        import ray

        with ThreadPoolExecutor(64) as pool:
            while not self._over.wait(PROBE_SECONDS):
                known = self._known
                try:
                    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
                except Exception:  # of several classes; the GCS is looked after elsewhere
                    continue
                answers = dict(zip(alive, pool.map(_answers, alive.values()), strict=True))
                self._misses = {n: 0 if here else self._misses.get(n, 0) + 1 for n, here in answers.items()}
                self.silent = frozenset(name for name, misses in self._misses.items() if misses >= SILENT)
                known |= {name for name, here in answers.items() if here}
                self.lost = len(known - (alive.keys() - self.silent))


def _answers(node: dict[str, Any]) -> bool:
    return answers((node["NodeManagerAddress"], node["NodeManagerPort"]), PROBE_SECONDS)


def say(stall: Stalled, step: str, left: int) -> None:
    """Report on stderr that a step is restarted."""
    print(f"gristmill: step {step}: {stall}; the {left} remaining shards are restarted", file=sys.stderr)
