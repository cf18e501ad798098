"""The models of the re-ranking recipe: how domains read requests, and how the weights of each are trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field, PositiveFloat

from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

ALONE = "_no_context"  # a system that sees the three scores alone


class DomainSettings(Settings):
    """How domains are trained. A range is drawn from for each domain, log-uniformly: they differ as real ones do."""

    family: Literal["linear", "neural"] = "linear"
    negatives: tuple[PositiveFloat, PositiveFloat] = (2.0, 12.0)  # requests of other domains for each own one
    c: tuple[PositiveFloat, PositiveFloat] = (3.0, 100.0)  # linear: smaller holds weights nearer to 0
    settings: dict[str, Any] = Field(default_factory=dict)  # of the family, of all domains alike


class ListSettings(Settings):
    """The lists of hypotheses: at most ``n`` for a request, and ``intents`` of one domain."""

    n: int = Field(20, ge=1)
    intents: int = Field(2, ge=1)


class WeightSettings(Settings):
    """How the weights of a domain are trained; see :mod:`gristmill.models.requests.reranker_fit`."""

    context: tuple[str, ...] = ()  # columns that the weights see beside the three scores
    negatives: float = Field(1.0, gt=0, le=1)  # share of the other domains' requests that a domain learns from
    l2: float = Field(1.0, ge=0)
    semer_weight: float = Field(1.0, ge=0)  # of the expected SemER beside the cross-entropy in R3


def train_domains(
    run: Run, given: DomainSettings, splits: Mapping[int, SealedSet], domains: Sequence[str], folds: int
) -> dict[int, dict[int, dict[str, Artifact]]]:
    """Return the domains' models by seed and fold: of all training (-1), and without each fold. All train at once."""
    left_out = [-1, *range(folds)]
    keys = [(seed, fold, domain) for seed in splits for fold in left_out for domain in domains]
    made = iter(run.train([_domain_job(given, splits[seed], domain, fold, seed) for seed, fold, domain in keys]))
    return {seed: {fold: {domain: next(made) for domain in domains} for fold in left_out} for seed in splits}


def _domain_job(given: DomainSettings, split: SealedSet, domain: str, fold: int, seed: int) -> TrainJob:
    draw = RecordRandom(0, "domains")(domain)
    negatives, c = (float(np.exp(draw.uniform(*np.log(ends)))) for ends in (given.negatives, given.c))
    own = {"negatives": negatives} | ({"domain_c": c, "intent_c": c} if given.family == "linear" else {})
    config = {
        "data": split,
        "domain": domain,
        "left_out": None if fold < 0 else fold,
        "family": given.family,
        "settings": own | given.settings,
        "seed": seed,
    }
    return TrainJob("domain_models", config, loop="gristmill.actors.requests.domain_trainer:train")


def train_weights(
    run: Run, given: WeightSettings, lists: Mapping[int, SealedSet], domains: Sequence[str]
) -> dict[int, dict[str, dict[str, Artifact]]]:
    """Return the weights by seed, system (R1, R2, R3; with context also without it) and domain.

    In R3 a domain competes with the calibrated scores (R2) of the others, which stay as they are; the domains are
    independent in each of the two rounds.
    """
    views = {"": given.context} | ({ALONE: ()} if given.context else {})
    found: dict[int, dict[str, dict[str, Artifact]]] = {seed: {} for seed in lists}
    for losses in (("R1", "R2"), ("R3",)):
        keys = [(seed, loss, view) for seed in lists for view in views for loss in losses]
        jobs = []
        for seed, loss, view in keys:
            rivals = found[seed][f"R2{view}"] if loss == "R3" else {}
            jobs += [
                _weights_job(given, loss, views[view], lists[seed], domain, seed, _without(rivals, domain))
                for domain in domains
            ]
        made = iter(run.train(jobs))
        for seed, loss, view in keys:
            found[seed][f"{loss}{view}"] = {domain: next(made) for domain in domains}
    return found


def _without(rivals: Mapping[str, Artifact], domain: str) -> dict[str, Artifact]:
    return {name: weights for name, weights in rivals.items() if name != domain}


def _weights_job(
    given: WeightSettings,
    loss: str,
    context: Sequence[str],
    lists: SealedSet,
    domain: str,
    seed: int,
    rivals: Mapping[str, Artifact],
) -> TrainJob:
    config = {
        "data": lists,
        "domain": domain,
        "loss": loss,
        "context": list(context),
        "negatives": given.negatives,
        "l2": given.l2,
        "semer_weight": given.semer_weight,
        "rivals": rivals,
        "seed": seed,
    }
    return TrainJob("weights", config, loop="gristmill.actors.requests.weight_trainer:train")


def train_peers(run: Run, context: Sequence[str], lists: Mapping[int, SealedSet]) -> dict[int, Artifact]:
    """Return one lambdarank over all domains for each seed."""
    jobs = [
        TrainJob(
            "lambdarank",
            {"data": data, "context": list(context)},
            loop="gristmill.actors.requests.lambdarank:train",
            version=2,
        )
        for data in lists.values()
    ]
    return dict(zip(lists, run.train(jobs), strict=True))
