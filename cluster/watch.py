"""Deadlines of our own over an execution on Ray, so that no run waits for ever for what a lost machine held.

Ray finds dead processes by itself. A machine that is cut off in silence it finds late, and the execution may then
wait for good. So the driver looks at two things: whether shards still come, and whether each node still answers at its
port. When no shard comes for too long, the execution is ended and a new one is begun for the shards that have no
receipt, on the nodes that answer. What the old one still does does no harm: receipts are put if absent (law 3).
"""

from __future__ import annotations

import queue
import socket
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, ClassVar

from ray.data._internal.execution.execution_callback import ExecutionCallback

from gristmill.shards.environment import seconds
from gristmill.shards.receipt import Receipt

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

SETTING = "GRISTMILL_STALL_SECONDS"  # the environment variable that replaces the next number
SECONDS = 60.0  # without a shard, after which an execution is begun anew, once some have come
MEDIANS = 10  # and as many times as long as a shard takes
FIRST = 60  # times as long until the first shards come: models are loaded, and nobody knows what a shard takes
BY_LOSS = (20.0, 2)  # the same two numbers where a node that was there does not answer, or is gone
PROBE_SECONDS = 3.0  # between two looks at the nodes, and that each is given to answer
SILENT = 4  # looks in a row without an answer
KNOWN = 3  # shards that must have come before their time says anything
END_SECONDS = 15.0  # that an execution is given to end


class Stalled(Exception):
    """No shard came for too long. ``nodes`` are those to stay away from."""

    def __init__(self, why: str, nodes: frozenset[str]) -> None:
        super().__init__(why)
        self.nodes = nodes


class Watch:
    """Looks at the pace of a step's shards, over all its executions."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.least, self._clock = seconds(SETTING, SECONDS), clock
        self._took: list[float] = []
        self._since = clock()
        self._patience = 1.0

    def begin(self) -> None:
        """An execution begins."""
        self._since = self._clock()

    def heard(self, receipt: Receipt) -> None:
        """A shard came."""
        self._since, self._patience = self._clock(), 1.0
        self._took.append(sum(receipt.attempt.get("seconds", {}).values()))

    def limit(self, *, lost: bool) -> float:
        """Return how many seconds without a shard are too many.

        Each execution in which none came doubles it, so that shards which take long are not ended again and again.
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
        """Raise :class:`Stalled` if no shard came for too long."""
        quiet = self._clock() - self._since
        if quiet <= self.limit(lost=bool(nodes.lost)):
            return
        self._patience *= 2
        lost = f"; {nodes.lost} of its nodes gone or silent" if nodes.lost else ""
        raise Stalled(f"no shard came for {quiet:.0f} s{lost}", nodes.silent)


class Nodes:
    """Watches which nodes of the cluster answer, from a thread of its own. ``silent`` are those Ray takes for alive."""

    def __init__(self) -> None:
        self.lost = 0  # nodes that were there in this execution and now do not answer or are gone
        self.silent: frozenset[str] = frozenset()
        self._misses: dict[str, int] = {}
        self._known: set[str] = set()
        self._over = threading.Event()
        threading.Thread(target=self._watch, name="nodes", daemon=True).start()

    def begin(self) -> None:
        """An execution begins: what is lost already does not count for it."""
        self._known, self.lost = set(), 0

    def end(self) -> None:
        """Stop watching."""
        self._over.set()

    def _watch(self) -> None:
        import ray

        with ThreadPoolExecutor(64) as pool:
            while not self._over.wait(PROBE_SECONDS):
                known = self._known
                alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
                answers = dict(zip(alive, pool.map(_answers, alive.values()), strict=True))
                self._misses = {n: 0 if here else self._misses.get(n, 0) + 1 for n, here in answers.items()}
                self.silent = frozenset(name for name, misses in self._misses.items() if misses >= SILENT)
                known |= {name for name, here in answers.items() if here}
                self.lost = len(known - (alive.keys() - self.silent))


def _answers(node: dict[str, Any]) -> bool:
    try:
        socket.create_connection((node["NodeManagerAddress"], node["NodeManagerPort"]), PROBE_SECONDS).close()
    except OSError:
        return False
    return True


class Execution:
    """The blocks of a dataset, taken in a thread of its own, so that nobody waits longer for them than he wants to."""

    def __init__(self, dataset: Any) -> None:
        self._blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        self._came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._executors = Started.take()
        self._thread = threading.Thread(target=self._take, name="execution", daemon=True)
        self._thread.start()

    def blocks(self, look: Callable[[], None]) -> Iterator[Any]:
        """Give the blocks as they come; ``look`` is called each second in which none does, and may raise."""
        while True:
            try:
                block = self._came.get(timeout=1.0)
            except queue.Empty:
                look()
                continue
            if block is None:
                return
            if isinstance(block, BaseException):
                raise block
            yield block

    def end(self) -> None:
        """End the workers at once, if the run stops early; an execution that hangs is left to itself."""
        if not self._thread.is_alive():
            return
        for executor in self._executors:
            ending = threading.Thread(target=executor.shutdown, args=(True,), name="end of an execution", daemon=True)
            ending.start()
            ending.join(END_SECONDS)
            if ending.is_alive():
                # It waits for an answer to each task in turn, also from a machine that gives none, before it comes to
                # the workers of the pools behind; they would keep their CPUs.
                for operator in executor._topology or ():
                    if hasattr(operator, "_actor_pool"):
                        operator._actor_pool.shutdown(force=True)

    def _take(self) -> None:
        try:
            for block in self._blocks:
                self._came.put(block)
            self._came.put(None)
        except BaseException as error:
            self._came.put(error)


class Started(ExecutionCallback):
    """Keeps hold of executors as they start: Ray Data gives theirs away only with the first block."""

    _held: ClassVar[list[StreamingExecutor]] = []

    @classmethod
    def take(cls) -> list[StreamingExecutor]:
        """Return the list for the executors that start from now on."""
        cls._held = []
        return cls._held

    def before_execution_starts(self, executor: StreamingExecutor) -> None:
        """Hold it."""
        self._held.append(executor)


def say(stall: Stalled, step: str, left: int) -> None:
    """Tell the user that a step is begun anew."""
    print(f"gristmill: step {step}: {stall}; the {left} shards that are left are begun anew", file=sys.stderr)
