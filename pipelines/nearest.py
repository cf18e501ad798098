"""The limit within which the nearest records of a scored set lie, as recipes declare it."""

from __future__ import annotations

from gristmill.actors import nearest
from gristmill.actors.nearest import ThresholdSettings
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob


def nearest_limit(run: Run, name: str, scored: SealedSet, settings: ThresholdSettings) -> Artifact:
    """Declare ``<name>_threshold`` of a set with ``distance``, which :class:`~gristmill.actors.nearest.Keep` applies;
    its settings may be known later (:func:`gristmill.shards.plan.later`)."""
    inputs = {"data": scored}
    return run.train(TrainJob(f"{name}_threshold", nearest.threshold, settings, inputs, stepwise=False))
