"""The crew: warm worker processes that outlive steps, for shards whose stages need no GPU, and for fits.

The start of a worker process takes longer than many a step. So the processes of the crew are kept between steps, and
give way when they are not needed for a while or something else needs their CPUs. A shard goes through all its stages
in one process, from reading to the commit; nothing but its plan and its receipt is sent.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from gristmill.cluster import session
from gristmill.cluster.draining import DrainWatch
from gristmill.cluster.envelope import pickled_error
from gristmill.cluster.pools import WORKER_SHARE, Pool, selector
from gristmill.cluster.ray_fit import fit
from gristmill.cluster.ray_train import ATTEMPTS as LOSSES
from gristmill.cluster.ray_train import lost
from gristmill.cluster.training_log import LogSettings
from gristmill.shards.index import ShardSpec
from gristmill.shards.isolation import careful
from gristmill.shards.job import TrainJob
from gristmill.shards.receipt import Receipt
from gristmill.shards.step import ShardTask
from gristmill.shards.work import StageWorker

AT_HAND = 2  # shards of a worker, running or queued, while there are more than all have
LOOK = 1.0  # seconds between looks for stalls
KEPT = 10.0  # seconds that an idle worker keeps its CPUs
MOST_FAILURES = 4  # of workers to start, in a row


class WarmStageActor:
    """One worker process. Errors travel as bytes, so that Ray does not wrap them."""

    def __init__(self) -> None:
        self.drain = DrainWatch()
        self.loaded: tuple[str, Sequence[StageWorker]] | None = None

    def node(self) -> str:
        """Return the node that it runs on."""
        return self.drain.node

    def fit(self, job: TrainJob, url: str, run: str, log: LogSettings) -> tuple[float, bytes | None]:
        """Fit a job; return the seconds that it took, and its pickled error if it has one."""
        self.drain.leave_if_due()
        self.loaded = None
        begun = time.monotonic()
        error = fit(job, url, run, log)
        return time.monotonic() - begun, error

    def make(self, key: str, task: ShardTask, spec: ShardSpec, suspect: bool) -> str | bytes:
        """Make a shard and return its receipt as JSON, or the pickled error.

        ``key`` tells tasks apart: stages are loaded once for each. ``suspect``: the shard may have ended a process.
        """
        self.drain.leave_if_due()
        try:
            if self.loaded is None or self.loaded[0] != key:
                self.loaded = None  # what the last step had loaded
                self.loaded = key, self._workers(task)
            ready = self.loaded[1]
            with contextlib.ExitStack() as stack:
                if suspect:
                    alone = partial(self._workers, task, isolated=True)
                    ready = stack.enter_context(careful(task.url, f"{spec.name}-0", ready, alone))
                return json.dumps(task.make(spec, ready).to_json())
        except Exception as error:
            return pickled_error(error)

    def _workers(self, task: ShardTask, *, isolated: bool = False) -> Sequence[StageWorker]:
        return [task.worker(place, isolated=isolated) for place in range(len(task.stages))]


@dataclass(frozen=True)
class _Kind:
    """What a worker requests of the scheduler."""

    cpus: float
    memory: int | None
    labels: tuple[tuple[str, str], ...]


@dataclass(eq=False)
class _Unit:
    """Work that one worker does: it is sent by ``send(worker, losses)``, again if the worker is lost."""

    name: str
    send: Callable[[Any, int], Any]
    losses: int = 0


ONE = _Kind(WORKER_SHARE, None, ())  # CPU


class Crew:
    """The workers of this process's Ray. One step, or one round of fits, has them at a time."""

    def __init__(self) -> None:
        self._kind: _Kind | None = None
        self._idle: dict[Any, str] = {}  # the node of each
        self._lock = threading.RLock()
        self._resting: threading.Timer | None = None

    def execute(
        self,
        task: ShardTask,
        specs: Sequence[ShardSpec],
        pool: Pool,
        avoid: frozenset[str],
        look: Callable[[], None],
    ) -> Iterator[Receipt]:
        """Make shards and yield the receipt of each; ``look`` is called each second without one, and may raise.

        A shard whose worker is lost is made again by another, carefully. However this ends, no worker goes on.
        """
        import ray

        given, key = ray.put(task), f"{task.url} {time.monotonic()}"

        def unit(spec: ShardSpec) -> _Unit:
            return _Unit(spec.name, lambda worker, losses: worker.make.remote(key, given, spec, losses > 0))

        kind = _Kind(pool.cpus, pool.memory, pool.labels)
        with contextlib.closing(
            self._done(kind, [unit(spec) for spec in specs], pool.most, AT_HAND, avoid, look)
        ) as done:
            for _, answer in done:
                if isinstance(answer, bytes):
                    raise pickle.loads(answer)
                yield Receipt.from_json(json.loads(answer))

    def fit(
        self, jobs: Sequence[tuple[TrainJob, str]], most: int, run: str, log: LogSettings
    ) -> Iterator[tuple[str, float]]:
        """Fit jobs and commit each one's artifact at its URL; yield it, and the seconds that a worker was held.

        A fit whose worker is lost is restarted. An error is raised as in the worker, once the running fits have ended.
        """
        units = {_Unit(job.name, _sent(job, url, run, log)): url for job, url in jobs}
        waiting = deque(units)
        error: bytes | None = None
        with contextlib.closing(self._done(ONE, waiting, most, 1, frozenset(), lambda: None)) as done:
            for unit, (seconds, failed) in done:
                if failed is None:
                    yield units[unit], seconds
                elif error is None:
                    error = failed
                    waiting.clear()
        if error is not None:
            raise pickle.loads(error)

    def _done(
        self,
        kind: _Kind,
        units: Sequence[_Unit],
        most: int,
        at_hand: int,
        avoid: frozenset[str],
        look: Callable[[], None],
    ) -> Generator[tuple[_Unit, Any], None, None]:
        """Yield units of work with their answers as they are done; each worker has ``at_hand`` at most."""
        import ray
        from ray.exceptions import RayError

        waiting = units if isinstance(units, deque) else deque(units)  # a caller may empty it
        nodes = self._take(kind, avoid)
        idle_since = dict.fromkeys(nodes, time.monotonic())
        load = dict.fromkeys(nodes, 0)
        busy: dict[Any, tuple[Any, _Unit]] = {}
        starting: dict[Any, Any] = {}
        failures = 0  # of workers to start, in a row
        try:
            while waiting or busy:
                while len(load) + len(starting) < min(most, len(waiting) + len(busy)):
                    worker = self._hire(kind, avoid)
                    starting[worker.node.remote()] = worker
                depth = at_hand if len(waiting) > len(load) else 1
                for worker in sorted(load, key=lambda worker: load[worker]):
                    while waiting and load[worker] < depth:
                        unit = waiting.popleft()
                        busy[unit.send(worker, unit.losses)] = worker, unit
                        load[worker] += 1
                ended, _ = ray.wait([*busy, *starting], num_returns=1, timeout=LOOK)
                if not ended:
                    look()
                for ref in ended:
                    if ref in starting:
                        worker = starting.pop(ref)
                        try:
                            nodes[worker] = ray.get(ref)
                        except RayError:
                            failures += 1
                            if failures >= MOST_FAILURES:
                                raise
                            continue
                        load[worker], idle_since[worker], failures = 0, time.monotonic(), 0
                        continue
                    worker, unit = busy.pop(ref)
                    try:
                        answer = ray.get(ref)
                    except RayError:
                        others = [one for one in busy if busy[one][0] is worker]
                        for again in reversed([unit, *(busy.pop(one)[1] for one in others)]):
                            again.losses += 1
                            waiting.appendleft(again)
                        del load[worker], nodes[worker]
                        _kill(worker)  # it may only be unreachable
                        continue
                    load[worker], idle_since[worker] = load[worker] - 1, time.monotonic()
                    yield unit, answer
                if not waiting:
                    for worker in [one for one in load if not load[one] and time.monotonic() - idle_since[one] > KEPT]:
                        del load[worker], nodes[worker]
                        _kill(worker)
        finally:
            at_work = {worker for worker, _ in busy.values()}
            for worker in {*at_work, *starting.values()}:
                _kill(worker)
            self._rest({worker: node for worker, node in nodes.items() if worker not in at_work})

    def end(self) -> None:
        """End the workers, which gives their CPUs back."""
        with self._lock:
            if self._resting is not None:
                self._resting.cancel()
            for worker in self._idle:
                _kill(worker)
            self._idle = {}

    def _take(self, kind: _Kind, avoid: frozenset[str]) -> dict[Any, str]:
        """Return the idle workers that request what is needed, on nodes that are not to be avoided; end the others."""
        with self._lock:
            if self._resting is not None:
                self._resting.cancel()
            kept = {one: node for one, node in self._idle.items() if kind == self._kind and node not in avoid}
            for worker in self._idle:
                if worker not in kept:
                    _kill(worker)
            self._kind, self._idle = kind, {}
            return kept

    def _hire(self, kind: _Kind, avoid: frozenset[str]) -> Any:
        import ray

        actor: Any = ray.remote(WarmStageActor)
        options = {"num_cpus": kind.cpus, "memory": kind.memory, "max_restarts": 0}
        return actor.options(**options, label_selector=selector(avoid, kind.labels)).remote()

    def _rest(self, idle: dict[Any, str]) -> None:
        """Keep idle workers for a while: then others who share the cluster get their CPUs."""
        with self._lock:
            self._idle = idle
            self._resting = threading.Timer(KEPT, self._end_resting)
            self._resting.daemon = True
            self._resting.start()

    def _end_resting(self) -> None:
        with self._lock:
            if threading.current_thread() is self._resting:
                self.end()


def _sent(job: TrainJob, url: str, run: str, log: LogSettings) -> Callable[[Any, int], Any]:
    def send(worker: Any, losses: int) -> Any:
        if losses >= LOSSES:
            raise lost(job.name)
        return worker.fit.remote(job, url, run, log)

    return send


def _kill(worker: Any) -> None:
    import ray

    if session.started() and not session.gone():
        ray.kill(worker)


_crew: tuple[Any, Crew] | None = None


def crew() -> Crew:
    """Return the crew of the Ray that this process has started or joined."""
    global _crew
    import ray

    core = getattr(ray._private.worker.global_worker, "core_worker", None)
    if _crew is None or _crew[0] is not core:
        _crew = core, Crew()
    return _crew[1]
