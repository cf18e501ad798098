"""Prometheus metrics of a run: series recorded on the driver from incoming receipts, and exported by Ray.

Ray serves them at the metrics port of the driver's node as ``ray_gristmill_*``. Labels have low cardinality: names of
runs, steps and stages, and the fixed part of a reject reason. Runners without Ray record nothing.
``docs/monitoring.md`` lists the series.
"""

from __future__ import annotations

import atexit
import functools
import re
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from pydantic import NonNegativeFloat

from gristmill.shards.receipt import Receipt
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import ShardTask

PREFIX = "gristmill_"
RUN = ("run",)
STEP = ("run", "step")
STAGE = ("run", "step", "stage")
TRAINING = ("run", "training")
COUNTERS = {
    "records_in": (STEP, "Input records of committed shards."),
    "records_out": (STEP, "Records with a row in committed shards."),
    "records_rejected": ((*STAGE, "reason"), "Rejected rows, by the fixed part of their reason."),
    "records_quarantined": (STEP, "Records that broke a stage."),
    "audio_seconds": (STEP, "Seconds of audio in the rows of committed shards."),
    "bytes_written": (STEP, "Bytes of Parquet in committed shards, including rejects and quarantine."),
    "stage_busy_seconds": (STAGE, "Seconds that workers of a stage spent on committed shards."),
    "batches_retried": ((*STEP, "cause"), "Batches halved and retried, after running out of memory or another error."),
}
GAUGES = {
    "shards_waiting": (STEP, "Shards of the step not yet committed."),
    "step_progress": (STEP, "Share of the step's shards that are committed, 0 to 1."),
    "step_eta_seconds": (STEP, "Seconds until the step ends, at the average pace of this run."),
    "stage_workers": (STAGE, "Workers in the stage's full pool."),
    "gpu_busy_share": (
        STAGE,
        "Share of the time since the step began that a GPU stage's workers were busy, 0 to 1.",
    ),
    "measure_mean": ((*STAGE, "column"), "Mean of a column measured by a stage, over the step so far."),
    "training_progress": (TRAINING, "Share of the training's steps that are done, 0 to 1."),
    "training_loss": (TRAINING, "Last reported loss."),
    "run_progress": (
        RUN,
        "Share of the time of the whole run that is done, 0 to 1, as `gristmill status` estimates it.",
    ),
    "cost": (RUN, "Cost of the work committed by this driver, at the prices of the recipe."),
}
HISTOGRAMS = {
    "shard_seconds": (STEP, "Work in one shard, over all its stages.", (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000)),
}
MOST_REASONS = 40  # of one stage; later ones are reported as "other"
OTHER = "other"
BEAT = 3.0  # seconds


class Price(Settings):
    """Prices of machines, in any currency."""

    cpu_hour: NonNegativeFloat = 0.0
    """Price of one CPU for an hour."""
    gpu_hour: NonNegativeFloat = 0.0
    """Price of one GPU for an hour."""

    def of(self, seconds: float, resources: Resources) -> float:
        """Return the cost of a worker that holds its resources for so many seconds."""
        return seconds / 3600 * (resources.cpus * self.cpu_hour + resources.gpus * self.gpu_hour)


class Series:
    """The Ray metrics behind the series; a process has one of each name."""

    def __init__(self) -> None:
        from ray.util.metrics import Counter, Gauge, Histogram

        made: dict[str, Any] = {n: Counter(PREFIX + n, text, keys) for n, (keys, text) in COUNTERS.items()}
        made |= {n: Gauge(PREFIX + n, text, keys) for n, (keys, text) in GAUGES.items()}
        made |= {n: Histogram(PREFIX + n, text, list(at), keys) for n, (keys, text, at) in HISTOGRAMS.items()}
        self._made = made
        self._held: dict[tuple[str, tuple[tuple[str, str], ...]], float] = {}
        self._lock, self._over = threading.Lock(), threading.Event()
        beat = threading.Thread(target=self._beat, name="gristmill-metrics", daemon=True)
        beat.start()
        atexit.register(beat.join)
        atexit.register(self._over.set)

    def _beat(self) -> None:
        """Set all gauges periodically: Ray drops those that were not set for two of its intervals."""
        while not self._over.wait(BEAT):
            with self._lock:
                for (name, labels), value in self._held.items():
                    self._made[name].set(value, tags=dict(labels))

    def add(self, name: str, value: float, **labels: str) -> None:
        """Add to a counter. Zeros are skipped, so that steps have no empty series."""
        if value > 0:
            self._made[name].inc(value, tags=labels)

    def set(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge; it keeps the value until it is set again or this process ends."""
        with self._lock:
            self._held[name, tuple(labels.items())] = value
            self._made[name].set(value, tags=labels)

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a histogram."""
        self._made[name].observe(value, tags=labels)


@functools.cache
def series() -> Series:
    """Return the series of this process; requires Ray."""
    return Series()


class RunMetrics:
    """Metrics of one driver's work on a run, by the name of the run."""

    def __init__(self, run: str, price: Price) -> None:
        self.run, self.price = run, price
        self.cost = 0.0
        self._lock = threading.Lock()  # steps and trainings run side by side

    def step(self, task: ShardTask, shards: int, workers: Mapping[str, int]) -> StepMetrics:
        """Return the metrics of a step; ``workers`` is the full size of each stage's pool."""
        return StepMetrics(self, task, shards, workers)

    def spend(self, seconds: float, resources: Resources) -> None:
        """Add the cost of a worker that was busy for so many seconds."""
        with self._lock:
            self.cost += self.price.of(seconds, resources)
            series().set("cost", self.cost, run=self.run)


class StepMetrics:
    """Metrics of one execution of a step's shards."""

    def __init__(self, run: RunMetrics, task: ShardTask, shards: int, workers: Mapping[str, int]) -> None:
        self.run, self.series, self.workers = run, series(), dict(workers)
        self.labels = {"run": run.run, "step": task.name}
        self.stages: dict[str, Stage] = {stage.name: stage for stage in task.stages}
        self.shards, self.left, self.planned = shards, shards, max(shards, task.planned or 0)
        self.busy: dict[str, float] = defaultdict(float)
        self.measured: dict[str, tuple[float, int]] = {}
        self.reasons: dict[str, set[str]] = defaultdict(set)
        self.begun = time.monotonic()
        for stage, number in self.workers.items():
            self.series.set("stage_workers", number, **self.labels, stage=stage)
        self._set_gauges()

    def advance(self, receipt: Receipt) -> None:
        """Record a committed shard."""
        labels, attempt = self.labels, receipt.attempt
        self.left -= 1
        again = receipt.requeue_of is not None  # its records were counted, and broke, before
        for name, count in {
            "records_in": 0 if again else receipt.records_in,
            "records_out": receipt.records_out,
            "records_quarantined": 0 if again else receipt.quarantined,
            "audio_seconds": receipt.totals.get("duration", 0.0),
            "bytes_written": sum(f.bytes for f in (receipt.data, receipt.rejects, receipt.quarantine) if f),
        }.items():
            self.series.add(name, count, **labels)
        for key, count in receipt.reasons.items():
            stage, _, reason = key.partition(": ")
            self.series.add("records_rejected", count, **labels, stage=stage, reason=self._reason(stage, reason))
        self.series.add("batches_retried", attempt.get("batches_halved", 0), **labels, cause="memory")
        self.series.add("batches_retried", attempt.get("batches_split", 0), **labels, cause="error")
        for key, (total, count) in attempt.get("measures", {}).items():
            before = self.measured.get(key, (0.0, 0))
            self.measured[key] = (before[0] + total, before[1] + count)
        self._spend(attempt.get("seconds", {}))
        self._set_gauges()

    def end(self) -> None:
        """Reset the gauges: the step is over, or the run stopped."""
        for name in ("shards_waiting", "step_eta_seconds"):
            self.series.set(name, 0, **self.labels)
        for stage in self.workers:
            self.series.set("stage_workers", 0, **self.labels, stage=stage)
            if self.stages[stage].resources.gpus:
                self.series.set("gpu_busy_share", 0, **self.labels, stage=stage)

    def _spend(self, seconds: Mapping[str, float]) -> None:
        for name, spent in seconds.items():
            self.series.add("stage_busy_seconds", spent, **self.labels, stage=name)
            self.busy[name] += spent
            stage = self.stages.get(name)  # None: reading or committing
            self.run.spend(spent, stage.resources if stage else Resources())
        if seconds:
            self.series.observe("shard_seconds", sum(seconds.values()), **self.labels)

    def _reason(self, stage: str, reason: str) -> str:
        known, fixed = self.reasons[stage], fixed_part(reason)
        if fixed not in known and len(known) >= MOST_REASONS:
            return OTHER
        known.add(fixed)
        return fixed

    def _set_gauges(self) -> None:
        done, wall = self.shards - self.left, max(time.monotonic() - self.begun, 1e-6)
        self.series.set("shards_waiting", self.left, **self.labels)
        self.series.set("step_progress", 1 - self.left / max(1, self.planned), **self.labels)
        if done:
            self.series.set("step_eta_seconds", wall / done * self.left, **self.labels)
        for name, number in self.workers.items():
            if self.stages[name].resources.gpus:
                share = min(1.0, self.busy[name] / (wall * max(1, number)))
                self.series.set("gpu_busy_share", share, **self.labels, stage=name)
        for key, (total, count) in self.measured.items():
            stage, _, column = key.rpartition(".")
            if count:
                self.series.set("measure_mean", total / count, **self.labels, stage=stage, column=column)


class TrainingMetrics:
    """Metrics of a training of a run, on its first rank."""

    def __init__(self, run: str, training: str) -> None:
        self.labels = {"run": run, "training": training}

    def point(self, metrics: Mapping[str, float]) -> None:
        """Record a point of the training curves."""
        if metrics.get("steps"):
            series().set("training_progress", (metrics["step"] + 1) / metrics["steps"], **self.labels)
        if "loss" in metrics:
            series().set("training_loss", metrics["loss"], **self.labels)


def tell_progress(run: str, share: float) -> None:
    """Record the share of a whole run that is done; without Ray in this process nothing is recorded."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        series().set("run_progress", share, run=run)


def fixed_part(reason: str) -> str:
    """Return a reason up to its first record-specific part: a number, quotation, path, or value after a colon."""
    fixed = re.split(r"""[\d"'`:=/\\(\[{<]""", reason, maxsplit=1)[0]
    return " ".join(fixed.split())[:60] or OTHER
