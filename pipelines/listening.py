"""Shows the trainings of a run while they go on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gristmill.pipelines.progress import RunProgress
from gristmill.shards.job import Job, TrainJob, TrainListener


class Listening(TrainListener):
    """Shows the trainings of one call, by distinct names: those of several seeds or settings are numbered.

    ``name`` is that of the whole work, and ``made`` is called with the URL of each as it ends, and its seconds if they
    are known.
    """

    def __init__(
        self,
        jobs: Sequence[tuple[Job, str]],
        progress: RunProgress,
        name: str,
        made: Callable[[str, float | None], object],
    ) -> None:
        self.progress, self.all, self.done, self.lock = progress, len(jobs), 0, threading.Lock()
        self.name, self.made = name, made
        self.labels = dict(zip((url for _, url in jobs), _labels([job for job, _ in jobs]), strict=True))

    def point(self, url: str, metrics: Mapping[str, float]) -> None:
        """Show a point of a training."""
        with self.lock:
            if steps := metrics.get("steps"):
                done, rate = metrics["step"] + 1, metrics.get("steps_per_second")
                self.progress.agenda.at(done / steps, url, left=max(0.0, steps - done) / rate if rate else None)
            self.progress.training(self.labels[url], metrics)

    def ended(self, url: str, seconds: float | None = None) -> None:
        """Show that one more is done."""
        with self.lock:
            self.done += 1
            self.progress.agenda.ended(url)
            self.progress.trained(self.labels[url], self.name, self.done, self.all)
        self.made(url, seconds)


def _labels(jobs: Sequence[Job]) -> list[str]:
    """Return a distinct name of each job: with its seed, if that tells it from the others of its name."""
    seeds = [_seed(job) for job in jobs]
    named = [f"{job.name}_seed{seed}" for job, seed in zip(jobs, seeds, strict=True)]
    found = []
    for place, job in enumerate(jobs):
        same = [other for other, one in enumerate(jobs) if one.name == job.name]
        if len(same) > 1 and len({seeds[other] for other in same}) == len(same):
            found.append(named[place])
        else:
            found.append(job.name if len(same) == 1 else f"{job.name} {same.index(place) + 1} of {len(same)}")
    return found


def _seed(job: Job) -> Any:
    return getattr(job.settings, "seed", job.inputs.get("seed")) if isinstance(job, TrainJob) else None
