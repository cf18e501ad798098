"""Fits on Ray, and trainings of one process: they run in a warm worker, where a group of Ray Train takes seconds to
start."""

from __future__ import annotations

from collections.abc import Mapping

from gristmill.cluster.envelope import pickled_error
from gristmill.cluster.inprocess import InProcessContext
from gristmill.cluster.metrics import TrainingMetrics
from gristmill.cluster.training_log import LogSettings, TrainingLog
from gristmill.shards.job import Job


class FitContext(InProcessContext):
    """The only rank of a fit or training, in a worker's process."""

    def __init__(self, url: str, metrics: TrainingMetrics, log: TrainingLog) -> None:
        super().__init__(url, log)
        self.metrics = metrics

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
        """Write metrics to the log and to the time series, and store the checkpoint."""
        self.metrics.point(metrics)
        super().report(metrics, checkpoint)


def fit(job: Job, url: str, run: str, log: LogSettings) -> bytes | None:
    """Fit or train a job in this process, from its newest checkpoint; return its error, if any."""
    try:
        if job.done(url) is None:  # its worker may have been lost after the commit
            with TrainingLog(log, run, job) as curves:
                job.run(url, FitContext(url, TrainingMetrics(run, job.name), curves))
    except Exception as error:
        return pickled_error(error)
    return None
