"""Fits on Ray: short jobs without checkpoints (counts, a centroid, a small model), one task each.

A group of Ray Train takes seconds to start; a task uses a running process.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import Any

from gristmill.cluster.envelope import pickled_error
from gristmill.cluster.inprocess import InProcessContext
from gristmill.cluster.metrics import TrainingMetrics
from gristmill.cluster.ray_train import ATTEMPTS, Jobs, cpu_share, lost, slots
from gristmill.cluster.shares import Shares
from gristmill.cluster.training_log import LogSettings, TrainingLog
from gristmill.shards.job import TrainJob, TrainListener
from gristmill.shards.stage import Resources

LOOK = 0.5  # seconds between checks whether a training has freed resources


def fit_jobs(
    jobs: Jobs, shares: Shares, run: str, log: LogSettings, listener: TrainListener | None = None
) -> list[tuple[float, Resources]]:
    """Fit jobs in parallel, as many as the resources allow, and commit each one's artifact at its URL.

    Returns the seconds that workers were held, and the resources of each. A fit whose worker or node is lost is
    restarted. An error of a fit is raised as in the worker, once the other running fits have ended.
    """
    import ray
    from ray.exceptions import RayError

    for job, url in jobs:
        slots([(job, url)], job.resources, shares.capacity)  # raises for jobs that can never start
    task: Any = ray.remote(fit)
    waiting, attempts = list(range(len(jobs))), Counter[int]()
    held: dict[Resources, float] = defaultdict(float)
    running: dict[Any, tuple[int, float]] = {}
    error = None
    while waiting or running:
        while (place := _next(jobs, waiting, shares)) is not None:
            attempts[place] += 1
            job, url = jobs[place]
            options = {
                "num_cpus": cpu_share(job.resources, shares.capacity),
                "num_gpus": job.resources.gpus,
                "memory": job.resources.memory,
                "max_retries": 0,  # attempts are counted here: Ray would retry a fit that runs out of memory for ever
            }
            begun = task.options(name=job.name, **options).remote(job, url, run, log)
            running[begun] = place, time.monotonic()
        if shares.stopped:
            waiting.clear()
        if not running:
            shares.wait(LOOK)
            continue
        for ended in ray.wait(list(running), timeout=LOOK if waiting else None)[0]:
            place, since = running.pop(ended)
            resources = jobs[place][0].resources
            shares.give(resources)
            held[resources] += time.monotonic() - since
            try:
                found = ray.get(ended)
                error = error or found
                if found is None and listener is not None:
                    listener.ended(jobs[place][1])
            except RayError as gone:
                if attempts[place] < ATTEMPTS:
                    waiting.insert(0, place)
                else:
                    final = lost(jobs[place][0].name)
                    final.add_note(f"last loss: {gone}")
                    error = pickle.dumps(final)
            if error is not None:
                shares.stop()
    if error is not None:
        raise pickle.loads(error)
    return [(seconds, resources) for resources, seconds in held.items()]


def _next(jobs: Jobs, waiting: list[int], shares: Shares) -> int | None:
    """Remove from the waiting fits, and return, the first that the free resources suffice for."""
    refused = set()
    for place in waiting:
        resources = jobs[place][0].resources
        if resources in refused:
            continue
        if shares.take(resources, timeout=0):
            waiting.remove(place)
            return place
        refused.add(resources)
    return None


class FitContext(InProcessContext):
    """The only rank of a fit, in the process of its task."""

    def __init__(self, url: str, metrics: TrainingMetrics, log: TrainingLog) -> None:
        super().__init__(url, log)
        self.metrics = metrics

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
        """Write metrics to the log and to the time series."""
        self.metrics.point(metrics)
        super().report(metrics, checkpoint)


def fit(job: TrainJob, url: str, run: str, log: LogSettings) -> bytes | None:
    """Fit a job in this process; return its error, if any."""
    try:
        if job.done(url) is None:  # its worker may have been lost after the commit
            with TrainingLog(log, run, job) as curves:
                job.run(url, FitContext(url, TrainingMetrics(run, job.name), curves))
    except Exception as error:
        return pickled_error(error)
    return None
