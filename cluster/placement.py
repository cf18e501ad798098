"""Placement of the workers of a recipe's stages on machines: settings of a run, on which no result depends."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveInt, field_validator, model_validator

from gristmill.cluster.pools import Capacity
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage

Positive = Annotated[float, Field(gt=0)]


class Workers(Settings):
    """The workers of one kind of stage; fields left unset keep the stage's own values."""

    cpus: Positive | None = None
    """Per worker; for the scheduler, not a limit."""
    memory: PositiveInt | None = None
    """Bytes per worker."""
    min_workers: PositiveInt | None = None
    """Workers of a stage that are started at once."""
    max_workers: PositiveInt | None = None
    """Most workers of a stage."""
    labels: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes that they may run on, as in Ray: ``value``, ``!value``, ``in(a,b)``, ``!in(a,b)``."""

    @model_validator(mode="after")
    def _ordered(self) -> Workers:
        if self.min_workers and self.max_workers and self.min_workers > self.max_workers:
            raise ValueError(f"min_workers={self.min_workers} is more than max_workers={self.max_workers}")
        return self


class GpuWorkers(Workers):
    """The workers of stages with a GPU; ``gpus`` below 1 lets several share one."""

    gpus: Positive | None = None
    """Per worker: a part of one, or a whole number."""

    @field_validator("gpus")
    @classmethod
    def _whole_or_part(cls, gpus: float | None) -> float | None:
        if gpus is not None and gpus > 1 and gpus != int(gpus):
            raise ValueError("Input should be a part of one GPU or a whole number of them")
        return gpus


class Most(Settings):
    """Maximum size of the cluster; Ray does not report the limits of its autoscaler."""

    cpus: NonNegativeFloat = 0.0
    """Processors that the cluster may grow to."""
    gpus: NonNegativeFloat = 0.0
    """GPUs that the cluster may grow to."""


class Placement(Settings):
    """Placement of the stages of a run. The default suits a cluster of fixed size."""

    most: Most = Most()
    cpu: Workers = Workers()
    """The workers of stages without a GPU; fields left unset keep the stage's own values."""
    gpu: GpuWorkers = GpuWorkers()

    def grown(self, now: Capacity, workers: int | None) -> Capacity:
        """Return the capacity that a cluster may grow to; ``workers`` limits its CPUs."""
        cpus = self.most.cpus if workers is None else min(self.most.cpus, workers)
        return Capacity(max(now.cpus, cpus), max(now.gpus, self.most.gpus))

    def placed(self, stage: Stage) -> Stage:
        """Return the stage with its resources in this run."""
        given = self.gpu if stage.resources.gpus else self.cpu
        # Fields with the same name in both classes.
        asked = {name: value for name, value in given if value is not None and name != "labels"}
        labels = tuple(sorted(given.labels.items())) or stage.resources.labels
        return replace(stage, resources=replace(stage.resources, **asked, labels=labels))
