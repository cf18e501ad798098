"""Steps on Ray Data: shards stream through pools of actors, one block per shard from end to end.

For steps whose stages do not all run in one process, as they need different resources.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.data._internal.execution.execution_callback import ExecutionCallback

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
from gristmill.cluster.pools import TASK_CPUS, Pool, selector
from gristmill.shards.index import ShardSpec
from gristmill.shards.isolation import careful
from gristmill.shards.receipt import Receipt
from gristmill.shards.step import ShardTask
from gristmill.shards.work import StageWorker

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

AT_HAND = 8  # shards per worker, running or queued; Ray Data dispatches only ten times a second
END_SECONDS = 15.0  # for an execution to end


def execute(
    task: ShardTask,
    specs: Sequence[ShardSpec],
    pools: Sequence[Pool],
    cpus: float,
    avoid: frozenset[str],
    look: Callable[[], object],
    *,
    limited: bool,
) -> Iterator[Receipt]:
    """Make shards and yield the receipt of each; ``look`` is called each second without one, and may raise.

    ``limited``: the execution uses no more than ``cpus``. However this ends, no worker goes on.
    """
    with DataContext.current(_context(DataContext.get_current(), cpus, limited=limited)):
        execution = Execution(_plan(task, specs, pools, int(cpus), avoid))
    try:
        for block in execution.blocks(look):
            for row in range(block.num_rows):
                yield open_receipt(block.slice(row, 1))
    finally:
        execution.end()  # at once when the run stops early


class Execution:
    """The blocks of a dataset, fetched in a thread, so that the driver can check for stalls while it waits."""

    def __init__(self, dataset: Any) -> None:
        self._blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        self._came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._executors = Started.take()
        self._thread = threading.Thread(target=self._take, name="execution", daemon=True)
        self._thread.start()

    def blocks(self, look: Callable[[], object]) -> Iterator[Any]:
        """Yield the blocks as they arrive; ``look`` is called each second in which none does, and may raise."""
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
        """End the workers at once if the run stops early; an execution that hangs is abandoned."""
        if session.gone() or not self._thread.is_alive():
            return
        for executor in self._executors:
            ending = threading.Thread(target=executor.shutdown, args=(True,), name="end of an execution", daemon=True)
            ending.start()
            ending.join(END_SECONDS)
            if ending.is_alive():
                # It waits for each task in turn, even on a lost machine, before it ends the workers of later pools,
                # which would keep their CPUs.
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
    """Keeps references to executors as they start: Ray Data exposes them only with the first block."""

    _held: ClassVar[list[StreamingExecutor]] = []

    @classmethod
    def take(cls) -> list[StreamingExecutor]:
        """Return the list for the executors that start from now on."""
        cls._held = []
        return cls._held

    def before_execution_starts(self, executor: StreamingExecutor) -> None:
        """Keep the executor."""
        self._held.append(executor)


def _context(context: DataContext, cpus: float, *, limited: bool) -> DataContext:
    """Return the context of one execution; the caller's is not changed."""
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

    def carry(dataset: Any, commits: bool) -> Any:
        return dataset.map_batches(
            _carry,
            fn_kwargs={"task": task, "commits": commits},
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=TASK_CPUS,
            concurrency=max(2, cpus),
            label_selector=selector(avoid),
        )

    # Not from_arrow, which inspects each shard in a task that requests a whole CPU, which an autoscaler would add.
    dataset: Any = ray.data.from_blocks([pack_spec(spec) for spec in specs])
    if pools[0].gpus:
        dataset = carry(dataset, commits=False)
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
            label_selector=selector(avoid, pool.labels),
        )  # Ray Data restarts lost workers and their shards without limit
        if last and pool.gpus:
            dataset = carry(dataset, commits=True)
    return dataset


class StageActor:
    """One worker of a pool, in a process of its own. Errors travel in envelopes, so that Ray neither retries nor wraps
    them."""

    def __init__(self, task: ShardTask, places: tuple[int, ...], commits: bool) -> None:
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
        with careful(self.task.url, shard, self.workers, self._isolated) as workers:
            return _handled(envelope, self.task, workers, self.commits)

    def _isolated(self) -> list[StageWorker]:
        return [self.task.worker(place, isolated=True) for place in self.places]


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
