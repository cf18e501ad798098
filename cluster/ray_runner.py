"""The Ray runner: shards by warm workers or on Ray Data, trainings on Ray Train."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from gristmill.cluster import session
from gristmill.cluster.crew import crew
from gristmill.cluster.metrics import Price, RunMetrics, StepMetrics
from gristmill.cluster.placement import Placement
from gristmill.cluster.pools import WORKER_SHARE, Capacity, Pool, plan_pools
from gristmill.cluster.training_log import RUN, LogSettings
from gristmill.shards.index import ShardSpec
from gristmill.shards.job import TrainJob, TrainListener
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
                made = self._made(task, list(left.values()), pools, cpus, avoid, lambda: watch.check(nodes))
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
        there = {
            kind: ray.cluster_resources().get(kind, 0.0) - sum(resources.get(kind, 0.0) for resources in shunned)
            for kind in ("CPU", "GPU")
        }
        now = Capacity(min(max(1, int(there["CPU"])), self.workers or sys.maxsize), there["GPU"])
        capacity = self.placement.grown(now, self.workers)
        pools = plan_pools([self.placement.placed(stage) for stage in task.stages], capacity, shards, now)
        return pools, int(capacity.cpus)

    def _made(
        self,
        task: ShardTask,
        specs: Sequence[ShardSpec],
        pools: Sequence[Pool],
        cpus: int,
        avoid: frozenset[str],
        look: Callable[[], None],
    ) -> Generator[Receipt, None, None]:
        """Yield the receipts of shards, made by the crew or, if one process cannot run all stages, on Ray Data."""
        if len(pools) > 1 or any(pool.gpus for pool in pools):
            crew().end()
            from gristmill.cluster import data_execution

            limited = self.workers is not None
            yield from data_execution.execute(task, specs, pools, cpus, avoid, look, limited=limited)
        else:
            most = min(cpus, len(specs))
            alone = Pool((), WORKER_SHARE, 0.0, None, 1, most, most)  # reads and commits
            yield from crew().execute(task, specs, pools[0] if pools else alone, avoid, look)

    def verify(self, url: str, receipts: Sequence[Receipt]) -> None:
        """Compare the files of committed shards with their digests, in tasks; raises as in the worker."""
        if not receipts:
            return
        cpus = session.start(self.workers)
        from gristmill.cluster.ray_verify import verify_shards

        with session.guarded():
            verify_shards(url, receipts, cpus)

    def train(self, jobs: Sequence[tuple[TrainJob, str]], listener: TrainListener | None = None) -> None:
        """Train each job on Ray Train, or fit it in a task, and commit its artifact; as many in parallel as fit.

        Fits and groups of trainings share the cluster, so that no resource is idle while a job of either kind could
        start.

        Raises:
            RayGone: the raylet of this machine or the GCS is gone, and so is the run (:mod:`gristmill.cluster.guard`).
        """
        from gristmill.cluster.ray_fit import fit_jobs
        from gristmill.cluster.ray_train import train_jobs
        from gristmill.cluster.shares import Shares

        cpus = session.start(self.workers)
        import ray

        if all(not job.stepwise and job.resources == Resources() for job, _ in jobs):
            with session.guarded():
                for url, seconds in crew().fit(jobs, cpus, self.run, self.log):
                    self.metrics.spend(seconds, Resources())
                    if listener is not None:
                        listener.ended(url)
            return
        crew().end()
        capacity = self.placement.grown(Capacity(cpus, ray.cluster_resources().get("GPU", 0.0)), self.workers)
        fits = [(job, url) for job, url in jobs if not job.stepwise]
        trainings = [(job, url) for job, url in jobs if job.stepwise]
        shares = Shares(capacity)
        beside = ThreadPoolExecutor(1)
        with session.guarded():
            try:
                groups = beside.submit(train_jobs, trainings, shares, self.run, self.log, listener)
                groups.add_done_callback(lambda done: shares.stop() if done.exception() else None)
                held = fit_jobs(fits, shares, self.run, self.log, listener)
                held += groups.result()
            except BaseException as error:
                shares.stop()
                # An error waits for the trainings beside it, which keep their work; an interruption for nothing.
                beside.shutdown(wait=not isinstance(error, KeyboardInterrupt))
                raise
            beside.shutdown()
        for seconds, resources in held:
            self.metrics.spend(seconds, resources)
