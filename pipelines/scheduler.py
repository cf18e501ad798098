"""The schedule of a run: what is ready is made side by side, or one thing at a time, whatever the recipe's order.

What workers make has a thread of the driver that waits for them; what the driver makes itself, such as sources, is made
by the thread that asks, one after the other. What is most urgent comes first: sources, as bad input
is told before hours of work, and then what the longest path to the end begins with.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from gristmill.shards.engine import Runner
from gristmill.shards.errors import one_line
from gristmill.shards.job import Job, TrainListener
from gristmill.shards.plan import Plan, PlanNode

_WEIGHT = {"training": 10.0}  # of a result in the length of a path: how long each takes is not known before
_TOLD = 60  # characters of an error while other work goes on
LEAVE_SECONDS = 2.0  # for what runs beside to end at an interruption

Halt = Callable[[bool], None]


class Cluster(Runner, Protocol):
    """Makes shards and trains models, in this process or on a cluster.

    ``waited`` are the seconds in which its steps had no share of the cluster, as others were more urgent.
    """

    waited: float

    def train(self, jobs: Sequence[tuple[Job, str]], listener: TrainListener | None = None) -> None:
        """Train, fit or build each job and commit its artifact at the given URL, as many in parallel as fit; tell a
        listener how they go."""
        ...

    def at(self, urgency: tuple[float, ...]) -> Cluster:
        """Return it for work that is so urgent beside other work: the greater, the more."""
        ...

    def parallel(self) -> int:
        """Return how many workers make results side by side; 0 if this process makes one after the other."""
        ...

    def side_by_side(self) -> AbstractContextManager[Halt | None]:
        """Enter work whose parts may run at once, each in a thread; yields what halts them, or ``None`` if they must
        run one after the other."""
        ...


class Scheduler:
    """Makes results of a plan by ``work``, which is given results that are ready: one, or trainings.

    ``beside`` enters the work on all that is made, and yields what halts work in other threads, with ``True`` also
    trainings; or ``None`` if there are to be none. What ``is_here`` is made by the thread that asks. ``say`` is told of
    an error while other work still goes on.
    """

    def __init__(
        self,
        plan: Plan,
        work: Callable[[Sequence[PlanNode]], None],
        beside: Callable[[], AbstractContextManager[Halt | None]],
        is_here: Callable[[PlanNode], bool],
        say: Callable[[str], None],
    ) -> None:
        self._plan, self._work, self._beside, self._is_here, self._say = plan, work, beside, is_here, say
        self._changed = threading.Condition(threading.RLock())
        self._todo: dict[int, PlanNode] = {}
        self._running: dict[threading.Thread, list[PlanNode]] = {}
        self._maker: threading.Thread | None = None  # which makes what the driver makes itself
        self._halt: Halt | None = None
        self._error: BaseException | None = None
        self._ahead: list[float] = []  # by the number of a node: the longest path to the end

    def make(self, nodes: Sequence[PlanNode]) -> None:
        """Make results, which are given with all that they need; called also by what is being made, in any thread.

        Raises:
            BaseException: the first error of one of them, once what ran beside it has ended.
        """
        if self._maker is threading.current_thread():
            self._make(nodes)
        elif self._maker is not None:
            self._await(nodes)
        else:
            with self._beside() as self._halt:
                self._maker = threading.current_thread()
                try:
                    self._make(nodes)
                except BaseException as error:
                    self._end(error)
                    raise
                finally:
                    self._maker, self._error = None, None
                    self._todo.clear()

    def look(self) -> None:
        """Start what is ready now that a result is there."""
        with self._changed:
            self._changed.notify_all()
            self._start()

    def urgency(self, node: PlanNode) -> tuple[float, ...]:
        """Return how urgent a result is: the greater, the more."""
        return self._urgencies()(node)

    def _urgencies(self) -> Callable[[PlanNode], tuple[float, ...]]:
        nodes = self._plan.nodes.copy()
        if len(self._ahead) != len(nodes):  # more was declared
            ahead = [0.0] * len(nodes)
            for one in reversed(nodes):
                ahead[one.number] += _WEIGHT.get(one.kind, 1.0)
                for used in one.inputs:
                    ahead[used.number] = max(ahead[used.number], ahead[one.number])
            self._ahead = ahead
        ahead = self._ahead
        return lambda node: (float(node.kind == "source"), ahead[node.number], -float(node.number))

    def _await(self, nodes: Sequence[PlanNode]) -> None:
        """Wait in a thread beside until results are made."""
        with self._changed:
            self._want(nodes)
            self._start()
            self._changed.wait_for(lambda: self._error is not None or all(node.made is not None for node in nodes))
            if self._error is not None:
                raise self._error

    def _make(self, nodes: Sequence[PlanNode]) -> None:
        with self._changed:
            self._want(nodes)
        while True:
            with self._changed:
                if self._error is not None:
                    raise self._error
                if all(node.made is not None for node in nodes):
                    return
                self._start()
                batch = self._next_here()
                if not batch:
                    if not self._running:
                        raise RuntimeError(f"nothing of {[node.name for node in self._todo.values()]} can be made")
                    self._changed.wait()
                    continue
            self._work(batch)

    def _want(self, nodes: Sequence[PlanNode]) -> None:
        going = {node.number for batch in self._running.values() for node in batch}
        for node in nodes:
            if node.made is None and node.number not in going:
                self._todo.setdefault(node.number, node)
        self._changed.notify_all()

    def _ready(self, *, here: bool) -> list[PlanNode]:
        """Return what is ready for the thread that asks or for others, the most urgent first."""
        all_here = self._halt is None
        found = [node for node in self._todo.values() if node.is_ready and (all_here or self._is_here(node)) == here]
        return sorted(found, key=self._urgencies(), reverse=True)

    def _taken(self, batch: list[PlanNode]) -> list[PlanNode]:
        for node in batch:
            del self._todo[node.number]
        return batch

    def _next_here(self) -> list[PlanNode]:
        """Take what this thread makes next: a result, or all trainings that are ready."""
        ready = self._ready(here=True)
        if ready and ready[0].kind == "training":
            return self._taken([node for node in ready if node.kind == "training"])
        return self._taken(ready[:1])

    def _start(self) -> None:
        """Start what is ready and runs beside: each step, and the trainings together."""
        if self._halt is None or self._error is not None:
            return
        ready = self._ready(here=False)
        trainings = [node for node in ready if node.kind == "training"]
        for batch in ([trainings] if trainings else []) + [[node] for node in ready if node.kind != "training"]:
            name = ", ".join(dict.fromkeys(node.name for node in batch))
            thread = threading.Thread(target=self._run, args=(batch,), name=name, daemon=True)
            self._running[thread] = self._taken(batch)
            thread.start()

    def _run(self, batch: list[PlanNode]) -> None:
        """Make results in a thread beside."""
        error: BaseException | None = None
        try:
            self._work(batch)
        except BaseException as found:
            error = found
        own = threading.current_thread()
        with self._changed:
            first = error is not None and self._error is None
            if first:
                self._error = error
            beside = ", ".join(thread.name for thread in self._running if thread is not own)
            self._changed.notify_all()
        if error is not None and first:
            if beside:
                # All of it is told at the end of the run, where it is looked for.
                said = one_line(error)
                begin = said if len(said) <= _TOLD else f"{said[:_TOLD]} [...]"
                self._say(f"{batch[0].name}: {begin}; the run ends once what runs beside has ended: {beside}")
            # Before this thread counts as ended: whoever waits for that ends the halt, and a later one would stay.
            if self._halt is not None:
                self._halt(False)
        with self._changed:
            del self._running[own]
            self._changed.notify_all()
            self._start()

    def _end(self, error: BaseException) -> None:
        """Halt what runs beside, and wait for its end; after an interruption not for long."""
        now = not isinstance(error, Exception)
        with self._changed:
            self._error = self._error or error
        if self._halt is None or not self._running:
            return
        self._halt(now)
        with contextlib.suppress(KeyboardInterrupt) if now else contextlib.nullcontext(), self._changed:
            self._changed.wait_for(lambda: not self._running, LEAVE_SECONDS if now else None)


class Alone:
    """Lets one thread at a time make what is at a URL: equal results of a plan are one."""

    def __init__(self) -> None:
        self._locks: dict[str, threading.RLock] = {}
        self._own = threading.Lock()

    @contextlib.contextmanager
    def on(self, *urls: str) -> Iterator[None]:
        """Enter the work on some URLs, once no other thread is at any of them."""
        with contextlib.ExitStack() as stack:
            for url in sorted(set(urls)):  # in one order, so that no two wait for each other
                with self._own:
                    lock = self._locks.setdefault(url, threading.RLock())
                stack.enter_context(lock)
            yield
