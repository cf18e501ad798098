"""The Ray runner: shards stream through actor pools on Ray Data, one block a shard from end to end.

CPUs, as the scheduler counts them: a worker of a stage asks for 95 % of what its stage declares, and the rest of the
cluster is for the tasks that read and commit. Where the least workers of all pools together ask for more CPUs than
there are, each asks for its part, so that all of them start: three stages run on one core, they only share it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from cluster import session
from cluster.envelope import (
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
from cluster.metrics import Prices, RunMetrics
from cluster.training_log import LogSettings
from shards.errors import UserError
from shards.index import ShardSpec
from shards.isolation import ATTEMPTS, begin_attempt, end_attempts
from shards.job import TrainJob
from shards.receipt import Receipt
from shards.stage import Resources, Stage
from shards.step import ShardTask
from shards.work import StageWorker

if TYPE_CHECKING:
    from ray.data import DataContext

WORKER_SHARE = 0.95  # of its stage's CPUs that a worker asks the scheduler for
TASK_CPUS = 0.005  # that a task which reads or commits asks for: ten fit beside the worker of one CPU
AT_HAND = 8  # shards at one worker, at work or waiting; Ray Data hands out more only ten times a second


@dataclass(frozen=True)
class Pool:
    """Workers that each run one or more consecutive stages of a step."""

    places: tuple[int, ...]
    cpus: float  # a worker asks the scheduler for
    gpus: float
    memory: int | None
    least: int
    most: int
    initial: int


class RayRunner:
    """Runs the stages of a step as actor pools. ``workers`` limits the CPUs; ``None`` takes the whole cluster."""

    def __init__(
        self, workers: int | None = None, prices: Prices | None = None, log: LogSettings | None = None
    ) -> None:
        self.workers, self.log = workers, log
        self.metrics = RunMetrics(prices)

    def execute(self, task: ShardTask, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Make the shards and give each one's receipt as soon as it is committed.

        A worker or node that is lost costs the shards it held, which are made again elsewhere. An error of an actor
        or of the data ends the run and is raised here as it was raised there.
        """
        if not specs:
            return
        cpus = session.start(self.workers)
        import ray
        from ray.data import DataContext

        session.quiet()
        gpus = ray.cluster_resources().get("GPU", 0.0)
        context = _context(DataContext.get_current(), cpus, limited=self.workers is not None)
        with DataContext.current(context):
            pools = plan_pools(task.stages, cpus, gpus, len(specs))
            dataset = _plan(task, specs, pools, cpus)
            blocks = iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0))
        told = self.metrics.step(
            task, len(specs), {task.stages[p].name: pool.most for pool in pools for p in pool.places}
        )
        try:
            for block in blocks:
                for row in range(block.num_rows):
                    receipt = open_receipt(block.slice(row, 1))
                    told.advance(receipt)
                    yield receipt
        finally:
            told.end()
            blocks.close()  # ends the workers at once when the run stops early

    def train(self, jobs: Sequence[tuple[TrainJob, str]]) -> None:
        """Train each job on Ray Train and commit its artifact; as many at once as the CPUs or GPUs hold."""
        from cluster.ray_train import train_jobs

        for seconds, resources in train_jobs(jobs, session.start(self.workers), self.log):
            self.metrics.spend(jobs[0][1].rstrip("/").split("/")[-3], seconds, resources)


def plan_pools(stages: Sequence[Stage], cpus: float, gpus: float, shards: int) -> list[Pool]:
    """Return the pools of a step on a cluster of so many CPUs and GPUs.

    Consecutive stages that declare the same resources and no GPU share their workers: what they hand on stays in
    memory. A pool that is alone, or that has GPUs, starts at its full size.
    """
    groups: list[tuple[tuple[int, ...], Resources]] = []
    for (resources, _), members in itertools.groupby(
        enumerate(stages), key=lambda item: (item[1].resources, item[0] if item[1].resources.gpus else None)
    ):
        groups.append((tuple(place for place, _ in members), resources))
    asked = sum(resources.cpus * min(resources.min_workers, shards) for _, resources in groups)
    scale = WORKER_SHARE * min(1.0, cpus / asked if asked else 1.0)
    pools = []
    for places, resources in groups:
        most = resources.max_workers or _fit(stages[places[0]], cpus, gpus)
        least = min(resources.min_workers, most, shards)
        most = min(max(most, least), shards)
        initial = most if resources.gpus or len(groups) == 1 else least
        # Ray counts to four decimals.
        share = round(resources.cpus * scale, 4)
        pools.append(Pool(places, share, resources.gpus, resources.memory, least, most, initial))
    return pools


def _fit(stage: Stage, cpus: float, gpus: float) -> int:
    need = stage.resources
    if need.gpus:
        if gpus < need.gpus:
            raise UserError(
                f"stage {stage.name} needs {need.gpus:g} GPU for each worker and the cluster has {gpus:g}; "
                "set its gpus to 0, or max_workers if GPUs are added while it runs"
            )
        return int(gpus / need.gpus)
    return max(1, int(cpus / need.cpus)) if need.cpus else max(1, int(cpus))


def _context(context: DataContext, cpus: int, *, limited: bool) -> DataContext:
    """Return the settings of one execution; the caller's own stay as they are."""
    context = context.copy()
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


def _plan(task: ShardTask, specs: Sequence[ShardSpec], pools: Sequence[Pool], cpus: int) -> Any:
    """Return the dataset: a block a shard, and what is done to it.

    Workers without a GPU read and commit by themselves: a process less to start, a copy less of each shard. Around
    stages with GPUs tasks do it, so that no GPU waits for the storage.
    """
    import ray
    from ray.data import ActorPoolStrategy

    def carry(dataset: Any, commits: bool) -> Any:
        return dataset.map_batches(
            _carry,
            fn_kwargs={"task": task, "commits": commits},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
            concurrency=max(2, cpus),
        )

    dataset: Any = ray.data.from_arrow([pack_spec(spec) for spec in specs])
    if not pools or pools[0].gpus:
        dataset = carry(dataset, commits=not pools)
    for number, pool in enumerate(pools):
        last = number == len(pools) - 1
        dataset = dataset.map_batches(
            StageActor,
            fn_constructor_args=(task, pool.places, last and not pool.gpus),
            batch_size=1,  # a row is a shard; Ray Data wants it said where GPUs are asked for
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=pool.least,
                max_size=pool.most,
                initial_size=pool.initial,
                # Few shards must not wait at one worker while another is idle.
                max_tasks_in_flight_per_actor=max(2, min(AT_HAND, len(specs) // (8 * pool.most))),
            ),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            memory=pool.memory,
        )  # Ray Data starts a lost worker again, and its shard, without limit
        if last and pool.gpus:
            dataset = carry(dataset, commits=True)
    return dataset


class StageActor:
    """One worker of a pool, in a process of its own. Errors travel in envelopes: Ray sees none to retry or to wrap."""

    def __init__(self, task: ShardTask, places: tuple[int, ...], commits: bool) -> None:
        import ray

        self.task = task
        self.places = places
        self.commits = commits
        # Started again: the process, or the machine, died at some shard. That shard may be what it died of.
        self.again = ray.get_runtime_context().was_current_actor_reconstructed
        self.error: pa.Table | None = None
        try:
            self.workers = [task.worker(place) for place in places]
        except Exception as error:
            self.error = pack_error(error)

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """Run the stages over the shards of a block (one, unless Ray bundles them)."""
        for row in range(block.num_rows):
            envelope = block.slice(row, 1)
            if self.error is not None:
                yield self.error
            elif self.again:
                yield self._carefully(envelope)
            else:
                yield _handled(envelope, self.task, self.workers, self.commits)

    def _carefully(self, envelope: pa.Table) -> pa.Table:
        """Work on a shard that other workers may have died of."""
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
    """Return the envelope of a shard after it was opened if it is not yet, worked on, and committed if that is due."""
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
