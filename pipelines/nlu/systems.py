"""Trainings of domain models and of their re-rankers' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, Self

import numpy as np
from pydantic import (
    Field,
    SerializeAsAny,
    ValidationInfo,
    field_serializer,
    field_validator,
    model_validator,
)

from gristmill.actors.nlu import domain_trainer, weight_trainer
from gristmill.actors.nlu.domain_trainer import DomainTraining
from gristmill.actors.nlu.weight_trainer import WeightSettings, WeightTraining
from gristmill.actors.training.settings import LoopSettings
from gristmill.models.nlu.domain import FamilyName, FamilySettings
from gristmill.models.nlu.families import family_of
from gristmill.models.nlu.rerankers import Loss
from gristmill.pipelines.config import check
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import PositiveRange, Settings
from gristmill.shards.stage import Resources

Requests = SealedSet | Sequence[SealedSet]
DOMAIN_MODELS = "domain_models"  # the training of domain models
ALONE = "_no_context"  # suffix of a system on the three scores only
_ROUNDS: tuple[tuple[Loss, ...], ...] = (("R1", "R2"), ("R3",))  # of trainings of weights


class DomainSettings(Settings):
    """Training of the domains. Ranges are drawn from for each domain, log-uniformly: they differ as real ones do."""

    family: FamilyName = "linear"
    """Family of the domains' models."""
    negatives: PositiveRange = (2.0, 12.0)
    """Requests of other domains per own request, a range."""
    c: PositiveRange = (3.0, 100.0)
    """Inverse regularisation of linear classifiers, a range."""
    settings: SerializeAsAny[FamilySettings] = Field(default_factory=FamilySettings)
    """Settings of the family, the same for all domains: :class:`gristmill.models.nlu.linear.LinearSettings` or
    :class:`gristmill.models.nlu.neural.NeuralSettings`. Values set here are not drawn."""
    loop: LoopSettings = LoopSettings()
    """The training loop of neural models."""
    ranks: int = Field(1, ge=1)
    """Processes that train a neural model together."""
    gpus: float = Field(0.0, ge=0)
    """GPUs per rank of a neural model."""

    @model_validator(mode="after")
    def _of_neural_ones(self) -> Self:
        if self.family != "neural" and (self.loop != LoopSettings() or self.ranks > 1 or self.gpus):
            raise ValueError(f"loop, ranks and gpus: the models are {self.family}; expected them with family neural")
        if self.loop.patience is not None:
            raise ValueError("loop.patience: a domain model has no held-out data; expected null")
        return self

    @field_validator("settings", mode="before")
    @classmethod
    def _of_the_family(cls, given: Any, info: ValidationInfo) -> Any:
        if "family" not in info.data:
            return FamilySettings()  # the error is that of the family
        kind = family_of(info.data["family"]).settings
        if isinstance(given, FamilySettings):
            given = given if isinstance(given, kind) else given.model_dump(exclude_unset=True)
        if not isinstance(given, Mapping):
            return given
        try:
            return check(kind, given, "")
        except UserError as error:
            raise ValueError("; ".join(line.removeprefix(": ") for line in str(error).splitlines())) from None

    @field_serializer("settings")
    def _as_given(self, settings: FamilySettings) -> dict[str, Any]:
        """Return only the values that were set: a default written out would not be drawn when it is read again."""
        return settings.model_dump(mode="json", exclude_unset=True)


def train_domains(
    run: Run,
    given: DomainSettings,
    splits: Mapping[int, Requests],
    domains: Sequence[str],
    folds: int,
    name: str = DOMAIN_MODELS,
) -> dict[int, dict[int, dict[str, Artifact]]]:
    """Return the domains' models by seed and fold: of all training data (-1), and without each fold.

    Annotated requests are one set, or several that are trained on alike.
    """
    return {
        seed: {
            fold: {domain: run.train(_domain_job(given, split, domain, fold, seed, name)) for domain in domains}
            for fold in (-1, *range(folds))
        }
        for seed, split in splits.items()
    }


def _domain_job(given: DomainSettings, split: Requests, domain: str, fold: int, seed: int, name: str) -> TrainJob:
    draw = RecordRandom(0, "domains")(domain)
    negatives, c = (float(np.exp(draw.uniform(*np.log(ends)))) for ends in (given.negatives, given.c))
    drawn = {"negatives": negatives} | ({"domain_c": c, "intent_c": c} if given.family == "linear" else {})
    model = given.settings
    model = model.but(**{name: value for name, value in drawn.items() if name not in model.model_fields_set})
    neural = given.family == "neural"
    training = DomainTraining(
        domain=domain,
        left_out=None if fold < 0 else fold,
        model=model,
        seed=seed,
        loop=given.loop,
        device="cuda" if given.gpus else "cpu",
    )
    return TrainJob(
        name,
        loop=domain_trainer.train,
        settings=training,
        inputs={"data": split},
        version=2 if neural else 1,
        ranks=given.ranks,
        resources=Resources(gpus=given.gpus),
        stepwise=neural,
    )


def train_weights(
    run: Run, given: WeightSettings, lists: Mapping[int, SealedSet], domains: Sequence[str]
) -> dict[int, dict[str, dict[str, Artifact]]]:
    """Return the weights by seed, system (R1, R2, R3; with context also without it) and domain.

    In R3 a domain competes with the calibrated scores (R2) of the others, which are fixed; the domains are independent
    in each of the two rounds.
    """
    views = {"": given.context} | ({ALONE: ()} if given.context else {})
    found: dict[int, dict[str, dict[str, Artifact]]] = {seed: {} for seed in lists}
    for losses in _ROUNDS:
        for seed, view, loss in product(lists, views, losses):
            rivals = found[seed][f"R2{view}"] if loss == "R3" else {}
            found[seed][f"{loss}{view}"] = {
                domain: run.train(
                    _weights_job(given, loss, views[view], lists[seed], domain, seed, _without(rivals, domain))
                )
                for domain in domains
            }
    return found


def _without(rivals: Mapping[str, Artifact], domain: str) -> dict[str, Artifact]:
    return {name: weights for name, weights in rivals.items() if name != domain}


def _weights_job(
    given: WeightSettings,
    loss: Loss,
    context: Sequence[str],
    lists: SealedSet,
    domain: str,
    seed: int,
    rivals: Mapping[str, Artifact],
) -> TrainJob:
    training = WeightTraining(**dict(given) | {"context": tuple(context), "domain": domain, "loss": loss, "seed": seed})
    inputs = {"data": lists, "rivals": rivals}
    return TrainJob("weights", loop=weight_trainer.train, settings=training, inputs=inputs, stepwise=False)
