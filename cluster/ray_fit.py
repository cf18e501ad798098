"""Fits on Ray: what is made at once, without checkpoints (counts, a centroid, a small model), a task each.

A group of Ray Train takes seconds to start; a task takes a process that is there.
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
from gristmill.shards.job import TrainJob
from gristmill.shards.stage import Resources

LOOK = 0.5  # seconds after which fits that wait look whether a training left them room


def fit_jobs(jobs: Jobs, shares: Shares, run: str, log: LogSettings) -> list[tuple[float, Resources]]:
    """Fit jobs side by side, as many as there is room for, and commit each one's artifact at its URL.

    Returned are the seconds that workers were held, and what each of them held.

    A fit whose worker or node is lost is begun again. An error of a fit is raised as it was raised in the worker, when
    those beside it have come to their end.
    """
    import ray
    from ray.exceptions import RayError

    for job, url in jobs:
        slots([(job, url)], job.resources, shares.capacity)  # refuses what can never start
    fit: Any = ray.remote(_fit)
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
                "max_retries": 0,  # attempts are counted here: Ray would try for ever what memory does not suffice for
            }
            begun = fit.options(name=job.name, **options).remote(job, url, run, log)
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
                error = error or ray.get(ended)
            except RayError as gone:
                if attempts[place] < ATTEMPTS:
                    waiting.insert(0, place)
                else:
                    final = lost(jobs[place][0].name)
                    final.add_note(f"the last time: {gone}")
                    error = pickle.dumps(final)
            if error is not None:
                shares.stop()
    if error is not None:
        raise pickle.loads(error)
    return [(seconds, resources) for resources, seconds in held.items()]


def _next(jobs: Jobs, waiting: list[int], shares: Shares) -> int | None:
    """Take the first fit that there is room for off the list of those that wait."""
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
        """Write metrics to the log and as series."""
        self.metrics.point(metrics)
        super().report(metrics, checkpoint)


def _fit(job: TrainJob, url: str, run: str, log: LogSettings) -> bytes | None:
    """Fit a job in this process; return the error that came instead."""
    try:
        if job.done(url) is None:  # its worker may have been lost after the commit
            with TrainingLog(log, run, job) as curves:
                job.run(url, FitContext(url, TrainingMetrics(run, job.name), curves))
    except Exception as error:
        return pickled_error(error)
    return None
