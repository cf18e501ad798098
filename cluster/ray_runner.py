"""The Ray runner: shards by warm workers or on Ray Data, trainings on Ray Train."""

from __future__ import annotations

import contextlib
import copy
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial

from gristmill.cluster import session
from gristmill.cluster.crew import LOOK, Looks, crew
from gristmill.cluster.metrics import Price, RunMetrics, StepMetrics
from gristmill.cluster.placement import Placement
from gristmill.cluster.pools import WORKER_SHARE, Capacity, Pool, plan_pools
from gristmill.cluster.shares import Halted, Shares, Tenant, Urgency
from gristmill.cluster.training_log import RUN, LogSettings
from gristmill.shards.index import ShardSpec
from gristmill.shards.job import Job, TrainListener
from gristmill.shards.receipt import Receipt, committed_shards, read_receipts
from gristmill.shards.stage import Resources
from gristmill.shards.step import ShardTask


class RayRunner:
    """Runs the stages of a step as actor pools. ``workers`` limits the CPUs; ``None`` takes the whole cluster."""

    def __init__(
        self,
        workers: int | None = None,
        run: str = RUN,
        price: Price | None = None,
        log: LogSettings | None = None,
        placement: Placement | None = None,
    ) -> None:
        self.workers, self.run, self.log = workers, run, log or LogSettings()
        self.placement = placement or Placement()
        self.metrics = RunMetrics(run, price or Price())
        self.urgency: Urgency = ()
        self.waited = 0.0  # seconds in which steps had no share of the cluster

    def execute(self, task: ShardTask, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Make the shards and yield each one's receipt as soon as it is committed.

        A lost worker or node costs the shards it held, which are redone elsewhere; if Ray does not recover from a loss,
        the remaining shards are restarted (:mod:`gristmill.cluster.watch`). An error of an actor or of the data ends
        the run and is raised here as in the worker.
        """
        if not specs:
            return
        session.start(self.workers)
        from gristmill.cluster.watch import Nodes, Stalled, Watch, say

        left = {spec.name: spec for spec in specs}
        watch, nodes = Watch(), Nodes()
        avoid: frozenset[str] = frozenset()
        progress: StepMetrics | None = None
        try:
            while left:
                pools, cpus = self._pools(task, len(left), avoid)
                workers = {task.stages[place].name: pool.most for pool in pools for place in pool.places}
                progress = progress or self.metrics.step(task, len(specs), workers)
                watch.begin()
                nodes.begin()

                def waited(seconds: float) -> None:
                    self.waited += seconds
                    watch.begin()

                looks = Looks(lambda: watch.check(nodes), waited)
                made = self._made(task, list(left.values()), pools, cpus, avoid, looks)
                try:
                    with session.guarded(), contextlib.closing(made):
                        for receipt in made:
                            watch.heard(receipt)
                            left.pop(receipt.shard, None)
                            progress.advance(receipt)
                            yield receipt
                    return
                except Stalled as stall:
                    say(stall, task.name, len(left))
                    avoid = stall.nodes
                for receipt in read_receipts(task.url, [name for name in committed_shards(task.url) if name in left]):
                    left.pop(receipt.shard)
                    progress.advance(receipt)
                    yield receipt
        finally:
            nodes.end()
            if progress is not None:
                progress.end()

    def _pools(self, task: ShardTask, shards: int, avoid: frozenset[str]) -> tuple[list[Pool], int]:
        """Return the pools of a step on the nodes that are not to be avoided, and the CPUs that it may use."""
        import ray

        session.quiet()
        shunned = [node["Resources"] for node in ray.nodes() if node["NodeID"] in avoid]
        now = self._now(shunned)
        capacity = self.placement.grown(now, self.workers)
        self._shares()
        pools = plan_pools([self.placement.placed(stage) for stage in task.stages], capacity, shards, now)
        return pools, int(capacity.cpus)

    def _made(
        self,
        task: ShardTask,
        specs: Sequence[ShardSpec],
        pools: Sequence[Pool],
        cpus: int,
        avoid: frozenset[str],
        watch: Looks,
    ) -> Generator[Receipt, None, None]:
        """Return the receipts of shards, made by the crew or, if one process cannot run all stages, on Ray Data."""
        # GPUs are what a fleet is paid for: what feeds them is more urgent than all that needs none.
        urgency = (float(any(pool.gpus for pool in pools)), *self.urgency)
        if len(pools) > 1:
            return self._streamed(task, specs, pools, avoid, urgency, watch)
        most = min(cpus, len(specs))
        alone = Pool((), WORKER_SHARE, 0.0, None, 1, most, most)  # reads and commits
        return crew().execute(task, specs, pools[0] if pools else alone, avoid, urgency, watch)

    def _streamed(
        self,
        task: ShardTask,
        specs: Sequence[ShardSpec],
        pools: Sequence[Pool],
        avoid: frozenset[str],
        urgency: Urgency,
        watch: Looks,
    ) -> Generator[Receipt, None, None]:
        """Yield the receipts of shards made on Ray Data, whose context is process-wide: one execution at a time."""
        from gristmill.cluster import data_execution

        shares = crew().shares
        asked = time.monotonic()
        while not _streaming.acquire(timeout=LOOK):
            shares.check()
        try:
            there = shares.capacity
            gpus = min(sum(pool.gpus * pool.most for pool in pools), there.gpus)
            least = sum(pool.cpus * (pool.initial if pool.gpus else pool.least) for pool in pools) / WORKER_SHARE
            most = sum(pool.cpus * pool.most for pool in pools) / WORKER_SHARE
            with shares.tenant(urgency) as tenant:
                while not tenant.take((min(least, there.cpus), gpus), timeout=LOOK):
                    shares.check()
                watch.waited(time.monotonic() - asked)
                while tenant.held[0] + 1 <= min(most, there.cpus) and tenant.take((1.0, 0.0), timeout=0):
                    pass
                tenant.content()
                cpus = max(1.0, tenant.held[0])
                limited = self.workers is not None or cpus < there.cpus

                def look() -> None:
                    shares.check()
                    watch.look()

                for receipt in data_execution.execute(task, specs, pools, cpus, avoid, look, limited=limited):
                    yield receipt
                    shares.check()
        finally:
            _streaming.release()

    def verify(self, url: str, receipts: Sequence[Receipt]) -> None:
        """Compare the files of committed shards with their digests, in tasks; raises as in the worker."""
        if not receipts:
            return
        cpus = session.start(self.workers)
        from gristmill.cluster.ray_verify import verify_shards

        with session.guarded():
            verify_shards(url, receipts, cpus)

    def train(self, jobs: Sequence[tuple[Job, str]], listener: TrainListener | None = None) -> None:
        """Train or fit each job and commit its artifact; as many in parallel as fit.

        Trainings of several ranks, or with a GPU, run in groups of Ray Train; others, and fits, in workers of the crew.

        Raises:
            RayGone: the raylet of this machine or the GCS is gone, and so is the run (:mod:`gristmill.cluster.guard`).
        """
        from gristmill.cluster.ray_train import train_jobs

        session.start(self.workers)
        shares = self._shares()
        groups: list[tuple[Job, str]] = []
        alike: dict[Resources, list[tuple[Job, str]]] = defaultdict(list)
        for job, url in jobs:
            grouped = job.ranks > 1 or (job.stepwise and job.resources.gpus)
            (groups if grouped else alike[job.resources]).append((job, url))

        def fitted(resources: Resources) -> None:
            for seconds in crew().fit(alike[resources], tenant, self.run, self.log, listener):
                self.metrics.spend(seconds, resources)

        def trained() -> None:
            for seconds, resources in train_jobs(groups, tenant, self.run, self.log, listener):
                self.metrics.spend(seconds, resources)

        urgency = any(job.resources.gpus for job, _ in jobs), *self.urgency
        with session.guarded(), shares.tenant(urgency) as tenant:
            calls: list[Callable[[], None]] = [partial(fitted, resources) for resources in alike]
            _together([*calls, trained] if groups else calls, tenant)

    def at(self, urgency: Urgency) -> RayRunner:
        """Return it for work that is so urgent beside other work."""
        other = copy.copy(self)
        other.urgency, other.waited = urgency, 0.0
        return other

    def parallel(self) -> int:
        """Return how many workers of one CPU there are, or may be; before the first work as this machine has CPUs."""
        known = int(crew().shares.capacity.cpus) if session.started() else 0
        return known or self.workers or os.cpu_count() or 1

    @contextlib.contextmanager
    def side_by_side(self) -> Iterator[Callable[[bool], None]]:
        """Enter work whose parts run in threads; yields what halts those that run, with ``True`` also trainings."""

        def halt(now: bool) -> None:
            if session.started():
                crew().shares.halt(now=now)

        with session.guarded():
            try:
                yield halt
            finally:
                if session.started():
                    crew().shares.reopen()

    def _shares(self) -> Shares:
        """Return the shares of the cluster, as large as it is now or may grow to be."""
        shares = crew().shares
        shares.resize(self.placement.grown(self._now(), self.workers))
        return shares

    def _now(self, without: Sequence[Mapping[str, float]] = ()) -> Capacity:
        """Return what may be used of the cluster as it is, without the resources of some nodes."""
        import ray

        there = ray.cluster_resources()
        cpus, gpus = (there.get(kind, 0.0) - sum(node.get(kind, 0.0) for node in without) for kind in ("CPU", "GPU"))
        return Capacity(min(max(1, int(cpus)), self.workers or sys.maxsize), gpus)


_streaming = threading.Lock()


def _together(calls: Sequence[Callable[[], None]], tenant: Tenant) -> None:
    """Call functions side by side; an error waits for those beside it, which keep their work."""
    if len(calls) == 1:
        calls[0]()
        return
    pool = ThreadPoolExecutor(len(calls))
    running = [pool.submit(call) for call in calls]
    for one in running:
        one.add_done_callback(lambda done: tenant.stop() if done.exception() else None)
    try:
        wait(running)
    finally:  # an interruption waits for nothing
        tenant.stop()
        pool.shutdown(wait=False)
    errors = [error for one in running if (error := one.exception()) is not None]
    if errors:
        raise next((error for error in errors if not isinstance(error, Halted)), errors[0])
