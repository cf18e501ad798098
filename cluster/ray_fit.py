"""Fits on Ray: what is made at once, without steps (counts, a centroid, a mixture), a task each.

A group of Ray Train takes seconds to start; a task takes a process that is there.
"""

from __future__ import annotations

import pickle
import time
from collections import Counter, defaultdict
from typing import Any

from gristmill.cluster.envelope import pickled_error
from gristmill.cluster.inprocess import InProcessContext
from gristmill.cluster.pools import Capacity
from gristmill.cluster.ray_train import ATTEMPTS, Jobs, cpu_share, lost, slots
from gristmill.shards.job import TrainJob
from gristmill.shards.stage import Resources


def fit_jobs(jobs: Jobs, capacity: Capacity) -> list[tuple[float, Resources]]:
    """Fit jobs side by side and commit each one's artifact at its URL.

    Returned are the seconds that workers were held, and what each of them held.

    A fit whose worker or node is lost is begun again. An error of a fit is raised as it was raised in the worker, when
    those beside it have come to their end.
    """
    alike: dict[Resources, list[tuple[TrainJob, str]]] = defaultdict(list)
    for job, url in jobs:
        alike[job.resources].append((job, url))
    return [(_fit_group(group, resources, capacity), resources) for resources, group in alike.items()]


def _fit_group(jobs: Jobs, resources: Resources, capacity: Capacity) -> float:
    import ray
    from ray.exceptions import RayError

    at_once = slots(jobs, resources, capacity)
    fit: Any = ray.remote(_fit)
    options = {
        "num_cpus": cpu_share(resources, capacity),
        "num_gpus": resources.gpus,
        "memory": resources.memory,
        "max_retries": 0,  # attempts are counted here: Ray would try for ever what memory does not suffice for
    }
    waiting, attempts = list(range(len(jobs))), Counter[int]()
    running: dict[Any, tuple[int, float]] = {}
    held, error = 0.0, None
    while waiting or running:
        while waiting and len(running) < at_once:
            place = waiting.pop(0)
            attempts[place] += 1
            begun = fit.options(name=jobs[place][0].name, **options).remote(*jobs[place])
            running[begun] = place, time.monotonic()
        ended = ray.wait(list(running))[0][0]
        place, since = running.pop(ended)
        held += time.monotonic() - since
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
            waiting.clear()
    if error is not None:
        raise pickle.loads(error)
    return held


def _fit(job: TrainJob, url: str) -> bytes | None:
    """Fit a job in this process; return the error that came instead."""
    try:
        if job.done(url) is None:  # its worker may have been lost after the commit
            job.run(url, InProcessContext(url))
    except Exception as error:
        return pickled_error(error)
    return None
