"""The crew: warm worker processes that outlive steps, for shards whose stages need the same resources, and for jobs.

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
from typing import Any

from gristmill.cluster import session
from gristmill.cluster.checkpoints import NOTE_EVERY, Checkpoints
from gristmill.cluster.pools import WORKER_SHARE, Labels, Pool, selector
from gristmill.cluster.ray_train import ATTEMPTS, cpu_share, lost, slots
from gristmill.cluster.shares import SLACK, Shares, Tenant, Urgency
from gristmill.cluster.training_log import LogSettings
from gristmill.cluster.warm import WarmStageActor
from gristmill.shards.errors import UserError, one_line
from gristmill.shards.index import ShardSpec
from gristmill.shards.job import Job, TrainListener
from gristmill.shards.receipt import Receipt
from gristmill.shards.step import ShardTask

AT_HAND = 2  # shards of a worker, running or queued, while there are more than all have
BESIDE_GPU = 3  # the same of one with a GPU: one is read and one committed beside the one that it works on
LOOK = 1.0  # seconds between looks for stalls
KEPT = 10.0  # seconds that an idle worker keeps its CPUs
MOST_FAILURES = 4  # of workers to start, in a row


@dataclass(frozen=True)
class _Kind:
    """What a worker requests of the scheduler, and its share of the cluster: CPUs and GPUs."""

    cpus: float
    gpus: float
    memory: int | None
    labels: Labels
    need: tuple[float, float]


@dataclass(eq=False)
class _Unit:
    """Work that one worker does: it is sent by ``send(worker, losses)``, again if the worker is lost."""

    name: str
    send: Callable[[Any, int], Any]
    losses: int = 0


@dataclass
class _Idle:
    """A worker that waits for work: where it is, what it has loaded, and since when it is idle."""

    kind: _Kind
    node: str
    loaded: str
    since: float


class Crew:
    """The workers of this process's Ray, for all executions, which may run side by side.

    An idle worker has no share any more, and ends when others take its CPUs, or after a while.
    """

    def __init__(self, ray_core: object) -> None:
        self.ray_core = ray_core  # of its Ray
        self.shares = Shares(self._make_way)
        self._idle: dict[Any, _Idle] = {}
        self._lock = threading.RLock()
        self._resting: threading.Timer | None = None

    def execute(
        self,
        task: ShardTask,
        specs: Sequence[ShardSpec],
        pool: Pool,
        avoid: frozenset[str],
        urgency: Urgency,
        watch: Looks,
    ) -> Generator[Receipt, None, None]:
        """Make shards and yield the receipt of each.

        A shard whose worker is lost is made again by another, carefully. However this ends, no worker goes on.
        """
        import ray

        given, key = ray.put(task), task.loading

        def unit(spec: ShardSpec) -> _Unit:
            return _Unit(spec.name, lambda worker, losses: worker.make.remote(key, given, spec, losses > 0))

        need = min(pool.cpus / WORKER_SHARE, self.shares.capacity.cpus), pool.gpus
        kind = _Kind(pool.cpus, pool.gpus, pool.memory, pool.labels, need)
        units = deque(unit(spec) for spec in specs)
        with self.shares.tenant(urgency, yields=True) as tenant:
            at_hand = BESIDE_GPU if kind.gpus else AT_HAND
            done = self._done(kind, units, pool.most, at_hand, avoid, tenant, watch, key)
            with contextlib.closing(done):
                for _, answer in done:
                    if isinstance(answer, bytes):
                        raise pickle.loads(answer)
                    yield Receipt.from_json(json.loads(answer))
                    self.shares.check()

    def fit(
        self,
        jobs: Sequence[tuple[Job, str]],
        tenant: Tenant,
        run: str,
        log: LogSettings,
        listener: TrainListener | None = None,
    ) -> Iterator[float]:
        """Fit or train jobs of equal resources, each in one process, and commit each one's artifact at its URL; yield
        the seconds that a worker was held.

        One whose worker is lost is started again, from its last checkpoint if it has some. An error is raised as in the
        worker, once those that run have ended.
        """
        resources, capacity = jobs[0][0].resources, self.shares.capacity
        slots(jobs, resources, capacity)  # raises if they can never start
        need = self.shares.need(resources)
        kind = _Kind(cpu_share(resources, capacity), resources.gpus, resources.memory, resources.labels, need)
        units = {_Unit(job.name, _sent(job, url, run, log)): url for job, url in jobs}
        waiting, news = deque(units), News([url for job, url in jobs if job.stepwise], listener)
        error: bytes | None = None
        with contextlib.closing(
            self._done(kind, waiting, len(jobs), 1, frozenset(), tenant, Looks(news.tell, lambda _: news.tell()))
        ) as done:
            for unit, (seconds, failed) in done:
                if failed is not None:
                    error = error or failed
                    tenant.stop()
                    continue
                news.ended(units[unit], seconds)
                yield seconds
        if error is not None:
            raise pickle.loads(error)
        self.shares.check()

    def _done(
        self,
        kind: _Kind,
        waiting: deque[_Unit],
        most: int,
        at_hand: int,
        avoid: frozenset[str],
        tenant: Tenant,
        watch: Looks,
        loads: str = "",
    ) -> Generator[tuple[_Unit, Any], None, None]:
        """Yield units of work with their answers as they are done; each worker has ``at_hand`` at most."""
        import ray
        from ray.exceptions import RayError

        nodes: dict[Any, str] = {}
        load: dict[Any, int] = {}
        busy: dict[Any, tuple[Any, _Unit]] = {}
        starting: dict[Any, Any] = {}
        failures = 0  # of workers to start, in a row

        def release(worker: Any) -> None:
            del load[worker]
            tenant.give(kind.need)
            self._rest(worker, _Idle(kind, nodes.pop(worker), loads, time.monotonic()))

        try:
            while waiting or busy:
                if tenant.stopped:
                    if tenant.yields or self.shares.halts_now:
                        self.shares.check()
                    waiting.clear()
                    if not busy:
                        return
                while len(load) + len(starting) < min(most, len(waiting) + len(busy)):
                    is_first, asked = not load and not starting, time.monotonic()
                    taken = tenant.take(kind.need, timeout=LOOK if is_first else 0, trims=False)
                    if is_first:
                        watch.waited(time.monotonic() - asked)
                    if not taken:
                        break
                    worker, node = self._take(kind, avoid, loads)
                    if node is None:
                        starting[worker.node.remote()] = worker
                    else:
                        load[worker], nodes[worker] = 0, node
                else:
                    tenant.content()
                if not load and not starting:
                    continue
                leaving = min(load, key=lambda worker: load[worker]) if tenant.is_due() and load else None
                depth = at_hand if len(waiting) > len(load) else 1
                for worker in sorted(load, key=lambda worker: load[worker]):
                    while waiting and load[worker] < depth and worker is not leaving:
                        unit = waiting.popleft()
                        busy[unit.send(worker, unit.losses)] = worker, unit
                        load[worker] += 1
                for worker in [one for one in load if not load[one] and (one is leaving or not waiting)]:
                    release(worker)
                if not busy and not starting:
                    continue
                ended, _ = ray.wait([*busy, *starting], num_returns=1, timeout=LOOK)
                if not ended:
                    watch.look()
                for ref in ended:
                    if ref in starting:
                        worker = starting.pop(ref)
                        try:
                            nodes[worker] = ray.get(ref)
                        except RayError:
                            tenant.give(kind.need)
                            failures += 1
                            if failures >= MOST_FAILURES:
                                raise
                            continue
                        load[worker], failures = 0, 0
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
                        self._kill(worker)  # it may only be unreachable
                        tenant.give(kind.need)
                        continue
                    load[worker] -= 1
                    yield unit, answer
        finally:
            at_work = {worker for worker, _ in busy.values()}
            for worker in {*at_work, *starting.values()}:
                self._kill(worker)
            for worker in [one for one in load if one not in at_work]:
                release(worker)

    def end(self) -> None:
        """End the idle workers, which gives their CPUs back."""
        with self._lock:
            if self._resting is not None:
                self._resting.cancel()
                self._resting = None
            for worker in self._idle:
                self._kill(worker)
            self._idle = {}

    def _kill(self, worker: Any) -> None:
        """End a worker, unless it has ended with its Ray: after that, ``ray.kill`` would start or ask another one."""
        import ray

        try:
            if self._has_ray():
                ray.kill(worker)
        except Exception:
            if self._has_ray():
                raise

    def _has_ray(self) -> bool:
        return _ray_core() is self.ray_core and session.started() and not session.gone()

    def _make_way(self, cpus: float, gpus: float) -> None:
        """End idle workers, those idle for longest first, until what they hold is not more than is free."""
        with self._lock:
            for worker, idle in list(self._idle.items()):
                held = [sum(one.kind.need[place] for one in self._idle.values()) for place in (0, 1)]
                if (held[0] > cpus + SLACK and idle.kind.need[0]) or (held[1] > gpus + SLACK and idle.kind.need[1]):
                    del self._idle[worker]
                    self._kill(worker)

    def _take(self, kind: _Kind, avoid: frozenset[str], loads: str) -> tuple[Any, str | None]:
        """Return an idle worker that requests what is needed, on a node that is not to be avoided, and that node; or a
        new worker, and ``None``. One that has loaded the stages is preferred."""
        import ray

        with self._lock:
            alike = [one for one, idle in self._idle.items() if idle.kind == kind and idle.node not in avoid]
            ready = next((one for one in alike if self._idle[one].loaded == loads), *alike[:1] or (None,))
            node = None if ready is None else self._idle.pop(ready).node
            self._make_way(*self.shares.free)
        if ready is not None:
            return ready, node
        actor: Any = ray.remote(WarmStageActor)
        options = {"num_cpus": kind.cpus, "num_gpus": kind.gpus or None, "memory": kind.memory, "max_restarts": 0}
        options["max_concurrency"] = BESIDE_GPU if kind.gpus else 1
        return actor.options(**options, label_selector=selector(avoid, kind.labels)).remote(), None

    def _rest(self, worker: Any, idle: _Idle) -> None:
        """Keep an idle worker for a while: then others who share the cluster get its CPUs and GPU."""
        with self._lock:
            self._idle[worker] = idle
            self._make_way(*self.shares.free)
            if self._resting is None:
                self._rest_for(KEPT)

    def _rest_for(self, seconds: float) -> None:
        self._resting = threading.Timer(seconds, self._end_rested)
        self._resting.daemon = True
        self._resting.start()

    def _end_rested(self) -> None:
        with self._lock:
            now = time.monotonic()
            for worker, idle in list(self._idle.items()):
                if now - idle.since >= KEPT:
                    del self._idle[worker]
                    self._kill(worker)
            self._resting = None
            if self._idle:
                self._rest_for(max(0.1, KEPT + min(idle.since for idle in self._idle.values()) - now))


@dataclass(frozen=True)
class Looks:
    """What is called each second without an answer of a worker: ``look``, which may raise, or ``waited`` with the
    seconds in which there was no share for any worker."""

    look: Callable[[], object]
    waited: Callable[[float], object]


class News:
    """Tells a listener of trainings what they note beside their checkpoints."""

    def __init__(self, urls: Sequence[str], listener: TrainListener | None) -> None:
        self.urls, self.listener, self._told = set(urls), listener, time.monotonic()

    def tell(self) -> None:
        """Tell the newest notes, unless that was a short while ago."""
        if self.listener is None or time.monotonic() - self._told < NOTE_EVERY / 2:
            return
        for url in sorted(self.urls):
            with contextlib.suppress(OSError):  # what is told of a training is worth no run
                if note := Checkpoints(url).noted_point():
                    self.listener.point(url, note)
        self._told = time.monotonic()

    def ended(self, url: str, seconds: float) -> None:
        """Tell that one has ended."""
        self.urls.discard(url)
        if self.listener is not None:
            self.listener.ended(url, seconds)


def _sent(job: Job, url: str, run: str, log: LogSettings) -> Callable[[Any, int], Any]:
    def send(worker: Any, losses: int) -> Any:
        if losses >= ATTEMPTS:
            raise lost(job.name)
        try:
            return worker.fit.remote(job, url, run, log)
        except (TypeError, pickle.PicklingError) as error:
            raise UserError(
                f"{job.name}: what it is made by cannot be sent to a worker ({one_line(error)[:200]}); expected a "
                "function that holds handles and plain values, and not the run"
            ) from None

    return send


_crew: Crew | None = None
_making = threading.Lock()  # several threads ask for it, and there is one


def crew() -> Crew:
    """Return the crew of the Ray that this process has started or joined."""
    global _crew
    with _making:
        core = _ray_core()
        if _crew is None or _crew.ray_core is not core:
            _crew = Crew(core)
            session.before_stop(_crew.end)
        return _crew


def _ray_core() -> object:
    """Return what there is one of for each Ray that this process starts or joins; ``None`` outside of one."""
    import ray

    return getattr(ray._private.worker.global_worker, "core_worker", None)
