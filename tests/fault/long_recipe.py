"""A recipe that takes its time in a step, a training or a fit, so that what it runs on can be killed meanwhile."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from tests.fault.law_actors import law_step, table
from tests.fault.train_loops import Walk, walk


class Config(Settings):
    """What is made, and how long it takes."""

    note: str
    """The folder in which batches, or the file in which optimiser steps, are noted."""
    work: Literal["step", "training", "fit"] = "step"
    pause: float = 0.2
    """Seconds that a batch, or an optimiser step, takes."""
    shards: int = 20
    """The number of shards, or of optimiser steps."""


def run(config: Config, run: Run) -> Report:
    """Run one step, or one training without data."""
    Path(config.note).parent.mkdir(parents=True, exist_ok=True)
    if config.work == "step":
        listed = run.source("rows", lambda: (table(n, 16) for n in range(config.shards)), {"shards": config.shards})
        run.step(law_step(listed, config.note, config.pause))
    else:
        settings = Walk(steps=config.shards, seconds=config.pause, note=config.note)
        run.train(TrainJob("walk", walk, settings, stepwise=config.work == "training"))
    digests: dict[str, Any] = {trace.name: trace.digest for trace in run.trace}
    return Report(title="Long", recipe={"name": "long"}, digests=digests)
