"""Whether to predict a latent goal at all: a model of which offers users accept, trained on real offers.

Offers come from sessions with events, as those of Schema-Guided Dialogue (Rastogi et al., AAAI 2020), or one by one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.actors.sessions import trigger
from gristmill.actors.sessions.trigger import (
    ChanceSettings,
    OfferTable,
    ParseOffers,
    Trigger,
    TriggerTraining,
    read_offers,
)
from gristmill.models.measures.calibration import ece
from gristmill.models.measures.discrimination import auc_interval
from gristmill.models.sessions.trigger import TriggerSettings, fit_trigger, rate_trigger
from gristmill.pipelines.inputs import Places, refuse_empty
from gristmill.pipelines.report.report import MetricRow
from gristmill.pipelines.run import Run
from gristmill.pipelines.sessions.listing import listed_objects
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

TEST_SET = "offers"
BLOCKS = 200  # of sessions, for intervals
SYSTEMS = ("trigger", "rate")


class OfferSettings(Settings):
    """Real offers, and the model of their acceptance."""

    places: Places | None = None
    """The URL of sessions with offers, or of single offers (JSONL or Parquet: ``text``, ``goal``, ``offered``,
    ``accepted``), or several; without it, there is no trigger."""
    training: TriggerTraining = TriggerTraining()
    """The model."""
    shard: Cut = Cut(rows=2000)


@dataclass(frozen=True)
class LearnedTrigger:
    """The offers, the models of their acceptance by system, and the offers with both probabilities."""

    offers: SealedSet
    models: dict[str, Artifact]
    scored: SealedSet


def learn_trigger(run: Run, settings: OfferSettings, suffix: str = "") -> LearnedTrigger:
    """Declare the reading of offers, the model and its baseline, and their probabilities of all offers.

    Raises:
        UserError: there is no offer at the places.
    """
    listed = listed_objects(run, "listed_offers", settings.places, "offers")
    offers = run.step(Step("offers", (ParseOffers.stage(),), listed, cut=settings.shard))
    refuse_empty(offers, "offers")
    given = {"trigger": settings.training, "rate": settings.training.but(baseline=True)}
    models = {
        name: run.train(TrainJob(f"{name}{suffix}", trigger.train, own, {"data": offers}, version=2, stepwise=False))
        for name, own in given.items()
    }
    stages = tuple(
        Trigger.stage(ChanceSettings(column=name), name=f"score_{name}", trigger=model.ref)
        for name, model in models.items()
    )
    return LearnedTrigger(offers, models, run.step(Step(f"scored_offers{suffix}", stages, offers)))


def trigger_metrics(made: LearnedTrigger, training: TriggerTraining) -> list[MetricRow]:
    """Return ``auc`` and ``ece`` of both systems on the parts that were left out; none where there is no such part.

    Intervals are over sessions.
    """
    chances: dict[str, list[float]] = {name: [] for name in SYSTEMS}
    accepted: list[bool] = []
    sessions: list[str] = []
    for table in made.scored.tables(["session", "part", "accepted", *SYSTEMS]):
        for row in table.to_pylist():
            if row["part"] in training.without:
                accepted.append(row["accepted"])
                sessions.append(row["session"])
                for name in SYSTEMS:
                    chances[name].append(row[name])
    told = np.array(accepted, bool)
    if not told.any() or told.all():
        return []
    return _rows({name: np.array(values) for name, values in chances.items()}, told, sessions, None, TEST_SET)


def cross_validated(url: str, settings: TriggerSettings, folds: int = 5) -> list[MetricRow]:
    """Return ``auc`` and ``ece`` of both systems on all offers of a set, each by models without its session's part."""
    given: OfferTable = read_offers(url)
    random = RecordRandom(0, "trigger parts")
    drawn = {session: int(random(session).integers(folds)) for session in set(given.sessions)}
    fold = np.array([drawn[session] for session in given.sessions])
    chances = {name: np.zeros(len(fold)) for name in SYSTEMS}
    for number in range(folds):
        rest, own = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        offers, accepted = [given.offers[row] for row in rest], given.accepted[rest]
        fitted = fit_trigger(offers, accepted, [given.sessions[row] for row in rest], settings)
        for name, model in (("trigger", fitted), ("rate", rate_trigger(offers, accepted))):
            chances[name][own] = model.probability([given.offers[row] for row in own])
    groups = [str(number) for number in fold]
    return _rows(chances, given.accepted, given.sessions, groups, f"{TEST_SET}_crossed")


def _rows(
    chances: dict[str, np.ndarray], accepted: np.ndarray, sessions: list[str], groups: list[str] | None, test_set: str
) -> list[MetricRow]:
    rows = []
    # Many sessions of one offer each: a bootstrap over hundreds of parts of them is as exact and much faster.
    random = RecordRandom(0, "blocks of sessions")
    blocks = {session: str(int(random(session).integers(BLOCKS))) for session in set(sessions)}
    for name, values in chances.items():
        one = auc_interval(values, accepted, [blocks[session] for session in sessions], groups)
        size = len(accepted)
        rows.append(MetricRow(name, test_set, "auc", one.value, one.low, one.high, size, None))
        rows.append(MetricRow(name, test_set, "ece", ece(values, accepted), None, None, size, None))
    return rows
