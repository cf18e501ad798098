"""Training on Ray Train: groups of processes that train one job after another.

A :class:`~ray.train.torch.TorchTrainer` takes many seconds to start and a recipe trains dozens of small models, so as
many trainers run as fit into the cluster, and each takes jobs until none is left.
"""

from __future__ import annotations

import functools
import pickle
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any

from gristmill.cluster import session
from gristmill.cluster.checkpoints import Checkpoints
from gristmill.cluster.envelope import pickled_error
from gristmill.cluster.metrics import TrainingMetrics
from gristmill.cluster.pools import WORKER_SHARE, Capacity
from gristmill.cluster.shares import Tenant
from gristmill.cluster.training_log import LogSettings, TrainingLog
from gristmill.shards import store
from gristmill.shards.errors import GristmillError, UserError
from gristmill.shards.job import STORAGE, Job, TrainListener
from gristmill.shards.stage import Resources

ATTEMPTS = 4  # per job whose workers are lost
LISTEN_EVERY = 2.0  # seconds between questions to the queue about its trainings

Jobs = Sequence[tuple[Job, str]]


def train_jobs(
    jobs: Jobs, tenant: Tenant, run: str, log: LogSettings, listener: TrainListener | None = None
) -> list[tuple[float, Resources]]:
    """Train jobs in parallel and commit each one's artifact at its URL; their curves are logged as well.

    A group trains jobs of equal resources, and as many groups run in parallel as fit. Returns the seconds that workers
    were held, and the resources of each. A lost worker or node costs the time since the job's last checkpoint. An error
    of a training is raised as in the worker, once the other running trainings have ended.
    """
    alike: dict[tuple[int, Resources], list[tuple[Job, str]]] = defaultdict(list)
    for job, url in jobs:
        alike[job.ranks, job.resources].append((job, url))
    kinds = [
        _Kind(group, ranks, resources, slots(group, resources, tenant.shares.capacity, ranks))
        for (ranks, resources), group in alike.items()
    ]
    if not kinds:
        return []
    for kind in kinds:
        tenant.on_stop(kind.queue.end.remote)
    with ThreadPoolExecutor(sum(kind.most for kind in kinds)) as pool:
        groups = [
            (kind, pool.submit(_train_group, kind, slot, tenant, run, log))
            for kind in kinds
            for slot in range(kind.most)
        ]
        while wait([group for _, group in groups], LISTEN_EVERY).not_done:
            for kind in kinds:
                kind.tell(listener)
        held = [(group.result(), kind.resources) for kind, group in groups]
    for kind in kinds:
        kind.tell(listener)
    errors = [error for error in (kind.close() for kind in kinds) if error is not None]
    if errors:
        raise pickle.loads(errors[0])
    tenant.shares.check()
    return held


def slots(jobs: Jobs, resources: Resources, capacity: Capacity, ranks: int = 1) -> int:
    """Return how many jobs of so many ranks, each with these resources, fit in parallel.

    Raises:
        UserError: there are fewer GPUs than one job needs.
    """
    if resources.gpus * ranks > capacity.gpus:
        raise UserError(
            f"training {jobs[0][0].name} needs {resources.gpus * ranks:g} GPUs and the cluster has {capacity.gpus:g}; "
            "set resources.most.gpus to the number that its autoscaler may add"
        )
    fit = [capacity.cpus / (ranks * resources.cpus)] if resources.cpus else []
    fit += [capacity.gpus / (ranks * resources.gpus)] if resources.gpus else []
    return max(1, min(len(jobs), int(min(fit, default=1))))


def cpu_share(resources: Resources, capacity: Capacity, ranks: int = 1) -> float:
    """Return the CPUs that a rank requests of the scheduler, which counts to four decimals."""
    return round(min(resources.cpus, capacity.cpus / ranks) * WORKER_SHARE, 4)


def lost(name: str) -> RuntimeError:
    """Return the error of a job whose workers were lost too often."""
    return RuntimeError(f"training {name} lost its workers {ATTEMPTS} times (killed, or out of memory)")


class _Kind:
    """Trainings with equal ranks and resources, which up to ``most`` groups take from one queue."""

    def __init__(self, jobs: Jobs, ranks: int, resources: Resources, most: int) -> None:
        import ray

        self.jobs, self.ranks, self.resources, self.most = jobs, ranks, resources, most
        self.queue: Any = ray.remote(num_cpus=0)(Queue).remote([job.name for job, _ in jobs])

    def tell(self, listener: TrainListener | None) -> None:
        """Tell a listener, if there is one, the news of the trainings."""
        if listener is None:
            return
        import ray

        points, ended = ray.get(self.queue.news.remote())
        for place, metrics in points.items():
            listener.point(self.jobs[place][1], metrics)
        for place in ended:
            listener.ended(self.jobs[place][1])

    def close(self) -> bytes | None:
        """End the queue; return the error that ended the trainings, if any."""
        import ray

        error: bytes | None = ray.get(self.queue.error.remote())
        ray.kill(self.queue)
        return error


def _train_group(kind: _Kind, slot: int, tenant: Tenant, run: str, log: LogSettings) -> float:
    """Train jobs of a kind, once resources are free, until none is left; return the seconds that ranks were held."""
    import ray

    need = tenant.shares.need(kind.resources, kind.ranks)
    if not tenant.take(need):
        return 0.0
    begun = time.monotonic()
    try:
        if tenant.stopped or not ray.get(kind.queue.left.remote()):
            return 0.0  # other groups finished all jobs before resources were free
        share = cpu_share(kind.resources, tenant.shares.capacity, kind.ranks)
        _train(kind.jobs, kind.queue, slot, kind.ranks, share, kind.resources.gpus, run, log)
        if ray.get(kind.queue.error.remote()) is not None:
            tenant.stop()
    except BaseException:
        tenant.stop()
        raise
    finally:
        tenant.give(need)
    return (time.monotonic() - begun) * kind.ranks


def _train(jobs: Jobs, queue: Any, slot: int, ranks: int, cpus: float, gpus: float, run: str, log: LogSettings) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    session.quiet()
    notes = store.join(jobs[slot][1], STORAGE)
    filesystem, path = _arrow_filesystem(notes)
    trainer = TorchTrainer(
        _work,
        train_loop_config={"jobs": jobs, "queue": queue, "slot": slot, "run": run, "log": log},
        scaling_config=ScalingConfig(
            num_workers=ranks,
            use_gpu=gpus > 0,
            resources_per_worker={"CPU": cpus} | ({"GPU": gpus} if gpus else {}),
        ),
        torch_config=_torch_config(ranks, gpus),
        # The queue counts the attempts per job; a group may lose workers in each of its jobs.
        run_config=RunConfig(
            name="run",
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=FailureConfig(max_failures=ATTEMPTS * len(jobs)),
        ),
    )
    try:
        trainer.fit()
    finally:
        store.remove(notes)


def _torch_config(ranks: int, gpus: float) -> Any:
    """Return the rendezvous config of a group. A single rank opens no port, as torch's accept anyone."""
    from ray.train.backend import Backend
    from ray.train.torch import TorchConfig

    class Alone(TorchConfig):
        @property
        def backend_cls(self) -> type[Backend]:
            return Backend

    return TorchConfig(backend="nccl" if gpus else "gloo") if ranks > 1 else Alone()


def _arrow_filesystem(url: str) -> tuple[Any, str]:
    import pyarrow.fs as pafs

    filesystem, path = store.filesystem(url)
    store.remove(url)  # else Ray Train would resume a killed run
    if store.is_local(url):
        return None, path
    return pafs.PyFileSystem(pafs.FSSpecHandler(filesystem)), path


class Queue:
    """The remaining jobs, by index. An error empties the queue, so that all groups end."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.waiting = list(range(len(names)))
        self.taken: dict[int, int] = {}
        self.attempts: dict[int, int] = defaultdict(int)
        self.failure: bytes | None = None
        self.points: dict[int, dict[str, float]] = {}
        self.ended: list[int] = []

    def tell(self, place: int, metrics: dict[str, float]) -> None:
        """Record a point of a job's curves."""
        self.points[place] = metrics

    def news(self) -> tuple[dict[int, dict[str, float]], list[int]]:
        """Return the newest point of each job that has one, and the jobs that have ended, both since the last call."""
        found = self.points, self.ended
        self.points, self.ended = {}, []
        return found

    def take(self, slot: int) -> int | None:
        """Return the job for a group: the one it did not finish, or the next."""
        if self.failure is not None:
            return None
        if slot not in self.taken:
            if not self.waiting:
                return None
            self.taken[slot] = self.waiting.pop(0)
        place = self.taken[slot]
        self.attempts[place] += 1
        if self.attempts[place] > ATTEMPTS:
            self.failure = pickle.dumps(lost(self.names[place]))
            return None
        return place

    def finish(self, slot: int) -> None:
        """Record that the group's job is done."""
        place = self.taken.pop(slot, None)
        if place is not None:
            self.points.pop(place, None)
            self.ended.append(place)

    def fail(self, slot: int, error: bytes, final: bool) -> None:
        """Record an error; one that is not final is retried, as it may result from the loss of another worker."""
        if self.failure is None and (final or self.attempts[self.taken[slot]] >= ATTEMPTS):
            self.failure = error

    def end(self) -> None:
        """Hand out no more jobs."""
        self.waiting.clear()

    def left(self) -> int:
        """Return the number of jobs that no group has taken yet."""
        return 0 if self.failure is not None else len(self.waiting)

    def error(self) -> bytes | None:
        """Return the error that ended the queue."""
        return self.failure


class RayTrainContext:
    """One rank of a training inside Ray Train."""

    trial_steps: int | None = None

    def __init__(
        self,
        url: str,
        metrics: TrainingMetrics | None = None,
        log: TrainingLog | None = None,
        tell: Callable[[dict[str, float]], object] | None = None,
    ) -> None:
        import ray.train

        here = ray.train.get_context()
        self.rank: int = here.get_world_rank()
        self.world_size: int = here.get_world_size()
        self.checkpoints, self.metrics, self.log, self.tell = Checkpoints(url), metrics, log, tell

    def resume(self) -> bytes | None:
        """Return the newest checkpoint; all ranks get the one that rank 0 finds."""
        name = _from_first(self.checkpoints.newest() if self.rank == 0 else None, self.world_size)
        return None if name is None else self.checkpoints.read(name)

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
        """Write metrics to the log and to the time series, and store the checkpoint.

        Nothing is reported to Ray Train: it ignores reports without its own checkpoint, and each report waits for its
        controller's next poll.
        """
        if self.metrics is not None:
            self.metrics.point(metrics)
        if self.rank != 0:
            return
        if self.log is not None:
            self.log.point(metrics)
        if self.tell is not None:
            self.tell(dict(metrics))
        self.checkpoints.note(metrics)
        if checkpoint is not None:
            self.checkpoints.write(checkpoint)


def _work(config: dict[str, Any]) -> None:
    """Train jobs in one process of a group until the queue is empty."""
    import ray
    import ray.train

    jobs, queue, slot = config["jobs"], config["queue"], config["slot"]
    context = ray.train.get_context()
    first, ranks = context.get_world_rank() == 0, context.get_world_size()
    while True:
        place = _from_first(ray.get(queue.take.remote(slot)) if first else None, ranks)
        if place is None:
            return
        job, url = jobs[place]
        try:
            # The workers of a group may have been lost between a commit and its record in the queue.
            if not _from_first(job.done(url) is not None if first else None, ranks):
                metrics = TrainingMetrics(config["run"], job.name) if first else None
                with TrainingLog(config["log"] if first else LogSettings(), config["run"], job) as log:
                    tell = functools.partial(queue.tell.remote, place)  # answers are not waited for
                    job.run(url, RayTrainContext(url, metrics, log, tell))
        except Exception as error:
            final = ranks == 1 or isinstance(error, GristmillError)
            ray.get(queue.fail.remote(slot, pickled_error(error), final))
            raise
        if first:
            ray.get(queue.finish.remote(slot))


def _from_first(value: Any, ranks: int) -> Any:
    from ray.train.collective import broadcast_from_rank_zero

    return value if ranks == 1 else broadcast_from_rank_zero(value)
