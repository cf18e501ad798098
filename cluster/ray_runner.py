"""The Ray runner: shards stream through actor pools on Ray Data, one block per shard from end to end."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from gristmill.cluster import session
from gristmill.cluster.draining import DrainWatch
from gristmill.cluster.envelope import (
    find_spec,
    is_error,
    open_receipt,
    pack,
    pack_error,
    pack_receipt,
    pack_spec,
    shard_name,
    unpack,
)
from gristmill.cluster.metrics import Price, RunMetrics, StepMetrics
from gristmill.cluster.placement import Placement
from gristmill.cluster.pools import TASK_CPUS, Capacity, Pool, plan_pools
from gristmill.cluster.training_log import RUN, LogSettings
from gristmill.shards.index import ShardSpec
from gristmill.shards.isolation import ATTEMPTS, begin_attempt, end_attempts
from gristmill.shards.job import TrainJob, TrainListener
from gristmill.shards.receipt import Receipt, committed_shards, read_receipts
from gristmill.shards.step import ShardTask
from gristmill.shards.work import StageWorker

if TYPE_CHECKING:
    from ray.data import DataContext

    from gristmill.cluster.watch import Execution

AT_HAND = 8  # shards per worker, running or queued; Ray Data dispatches only ten times a second


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
                execution, workers = self._begin(task, list(left.values()), avoid)
                progress = progress or self.metrics.step(task, len(specs), workers)
                watch.begin()
                nodes.begin()
                try:
                    with session.guarded():
                        for block in execution.blocks(lambda: watch.check(nodes)):
                            for row in range(block.num_rows):
                                receipt = open_receipt(block.slice(row, 1))
                                watch.heard(receipt)
                                left.pop(receipt.shard, None)
                                progress.advance(receipt)
                                yield receipt
                    return
                except Stalled as stall:
                    say(stall, task.name, len(left))
                    avoid = stall.nodes
                finally:
                    execution.end()  # at once when the run stops early
                for receipt in read_receipts(task.url, [name for name in committed_shards(task.url) if name in left]):
                    left.pop(receipt.shard)
                    progress.advance(receipt)
                    yield receipt
        finally:
            nodes.end()
            if progress is not None:
                progress.end()

    def _begin(
        self, task: ShardTask, specs: Sequence[ShardSpec], avoid: frozenset[str]
    ) -> tuple[Execution, dict[str, int]]:
        """Start an execution that avoids some nodes; return it with the full size of each stage's pool."""
        import ray
        from ray.data import DataContext

        from gristmill.cluster.watch import Execution

        session.quiet()
        shunned = [node["Resources"] for node in ray.nodes() if node["NodeID"] in avoid]
        there = {
            kind: ray.cluster_resources().get(kind, 0.0) - sum(resources.get(kind, 0.0) for resources in shunned)
            for kind in ("CPU", "GPU")
        }
        now = Capacity(min(max(1, int(there["CPU"])), self.workers or sys.maxsize), there["GPU"])
        capacity = self.placement.grown(now, self.workers)
        cpus = int(capacity.cpus)
        context = _context(DataContext.get_current(), cpus, limited=self.workers is not None)
        with DataContext.current(context):
            pools = plan_pools([self.placement.placed(stage) for stage in task.stages], capacity, len(specs), now)
            execution = Execution(_plan(task, specs, pools, cpus, avoid))
        return execution, {task.stages[p].name: pool.most for pool in pools for p in pool.places}

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


def _context(context: DataContext, cpus: int, *, limited: bool) -> DataContext:
    """Return the context of one execution; the caller's is not changed."""
    from gristmill.cluster.watch import Started

    context = context.copy()
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, Started]
    context.target_max_block_size = None  # a block is a shard
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.enable_auto_log_stats = False
    context.wait_for_min_actors_s = -1
    context.execution_options.preserve_order = False
    if limited:
        limits = context.execution_options.resource_limits
        context.execution_options.resource_limits = limits.copy(cpu=cpus)
    return context


def _plan(
    task: ShardTask, specs: Sequence[ShardSpec], pools: Sequence[Pool], cpus: int, avoid: frozenset[str] = frozenset()
) -> Any:
    """Return the dataset, one block per shard, with its processing, on other nodes than ``avoid``.

    Workers without a GPU read and commit themselves, which saves a process and a copy of each shard. Around stages with
    GPUs tasks do this, so that no GPU waits for the storage.
    """
    import ray
    from ray.data import ActorPoolStrategy

    where = {"ray.io/node-id": f"!in({','.join(sorted(avoid))})"} if avoid else None

    def carry(dataset: Any, commits: bool) -> Any:
        return dataset.map_batches(
            _carry,
            fn_kwargs={"task": task, "commits": commits},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
            concurrency=max(2, cpus),
            label_selector=where,
        )

    # Not from_arrow, which inspects each shard in a task that requests a whole CPU, which an autoscaler would add.
    dataset: Any = ray.data.from_blocks([pack_spec(spec) for spec in specs])
    if not pools or pools[0].gpus:
        dataset = carry(dataset, commits=not pools)
    for number, pool in enumerate(pools):
        last = number == len(pools) - 1
        dataset = dataset.map_batches(
            StageActor,
            fn_constructor_args=(task, pool.places, last and not pool.gpus),
            batch_size=1,  # a row is a shard; Ray Data requires a size with GPUs
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=pool.least,
                max_size=pool.most,
                initial_size=pool.initial,
                # With few shards, none must queue at one worker while another is idle.
                max_tasks_in_flight_per_actor=max(2, min(AT_HAND, len(specs) // (8 * pool.most))),
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            memory=pool.memory,
            label_selector={**dict(pool.labels), **(where or {})} or None,
        )  # Ray Data restarts lost workers and their shards without limit
        if last and pool.gpus:
            dataset = carry(dataset, commits=True)
    return dataset


class StageActor:
    """One worker of a pool, in a process of its own. Errors travel in envelopes, so that Ray neither retries nor wraps
    them."""

    def __init__(self, task: ShardTask, places: tuple[int, ...], commits: bool) -> None:
        import ray

        self.task = task
        self.places = places
        self.commits = commits
        # A restart: the process or machine died during some shard, which may be the cause.
        self.again = ray.get_runtime_context().was_current_actor_reconstructed
        self.error: pa.Table | None = None
        self.drain = DrainWatch()
        try:
            self.workers = [task.worker(place) for place in places]
        except Exception as error:
            self.error = pack_error(error)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Run the stages over the shards of a block (one, unless Ray bundles them)."""
        for row in range(block.num_rows):
            self.drain.leave_if_due()
            envelope = block.slice(row, 1)
            if self.error is not None:
                yield self.error
            elif self.again:
                yield self._carefully(envelope)
            else:
                yield _handled(envelope, self.task, self.workers, self.commits)

    def _carefully(self, envelope: pa.Table) -> pa.Table:
        """Process a shard that may have killed other workers."""
        if is_error(envelope):
            return envelope
        shard = f"{shard_name(envelope)}-{self.places[0]}"
        marks = begin_attempt(self.task.url, shard)
        workers = self.workers
        if marks > ATTEMPTS:
            workers = [self.task.worker(place, isolated=True) for place in self.places]
        try:
            return _handled(envelope, self.task, workers, self.commits)
        finally:
            end_attempts(self.task.url, shard, marks)
            if workers is not self.workers:
                for worker in workers:
                    worker.close()


def _carry(block: pa.Table, task: ShardTask, commits: bool) -> Iterator[pa.Table]:
    """Read or commit the shards of a block."""
    for row in range(block.num_rows):
        yield _handled(block.slice(row, 1), task, [], commits)


def _handled(envelope: pa.Table, task: ShardTask, workers: Sequence[StageWorker], commits: bool) -> pa.Table:
    """Open a shard unless it is open, process it, commit it if ``commits``, and return its envelope."""
    if is_error(envelope):
        return envelope
    try:
        spec = find_spec(envelope)
        work = unpack(envelope) if spec is None else task.open(spec)
        for worker in workers:
            work = worker(work)
        return pack_receipt(task.commit(work)) if commits else pack(work)
    except Exception as error:
        return pack_error(error)
