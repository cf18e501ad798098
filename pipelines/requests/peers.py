"""The training of what the re-ranking recipe compares itself with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gristmill.actors.requests import lambdarank
from gristmill.actors.requests.lambdarank import LambdarankTraining
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob


def train_peers(run: Run, context: Sequence[str], lists: Mapping[int, SealedSet]) -> dict[int, Artifact]:
    """Return one lambdarank over all domains per seed."""
    training = LambdarankTraining(context=tuple(context))

    def job(data: SealedSet) -> TrainJob:
        return TrainJob(
            "lambdarank", loop=lambdarank.train, settings=training, inputs={"data": data}, version=2, stepwise=False
        )

    return {seed: run.train(job(data)) for seed, data in lists.items()}
