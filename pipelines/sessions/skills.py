"""Several right skills: networks that learn from pseudo labels, from negative feedback, from both, and from neither.

Kim and Kim (ICASSP 2020), see :mod:`gristmill.models.sessions.skills`. All but one of a request's right skills are
hidden. Where requests come without feedback it is simulated: a first network, which is trained on a part of the labels,
answers further traffic, and some of its wrong answers are told to be so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import Field, NonNegativeFloat

from gristmill.actors.sessions import skill_trainer
from gristmill.actors.sessions.skill_trainer import SkillTraining
from gristmill.actors.sessions.skills import (
    FeedbackSettings,
    SimulateFeedback,
    SkillLabels,
    SkillScores,
    SkillScoreSettings,
)
from gristmill.models.sessions.skills import PseudoSettings
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step

SYSTEMS = ("single", "pseudo", "negative", "both")
_FIRST_SEED = 1000  # of the first network: no system's, or its errors would be that system's


class SkillSettings(Settings):
    """Learning of several right skills."""

    training: SkillTraining = SkillTraining()
    """The network and its training, of all systems."""
    pseudo: PseudoSettings = PseudoSettings()
    """When a skill becomes a pseudo label (systems ``pseudo`` and ``both``)."""
    negative_weight: NonNegativeFloat = 5.0
    """Weight of negative feedback (systems ``negative`` and ``both``)."""
    feedback: FeedbackSettings = FeedbackSettings(traffic=(3, 4))
    """Simulated feedback, and the folds that are traffic without labels."""
    held_out: int = Field(0, ge=0)
    """The fold on which the thresholds of predicted skills are chosen."""


@dataclass(frozen=True)
class LearntSkills:
    """The models by system, and the requests with the scores of each system (``scores_<system>``) and the labels of
    ``both`` (``labels``) and ``pseudo`` (``labels_pseudo``)."""

    models: Mapping[str, Artifact]
    scored: SealedSet
    labels: Mapping[str, SealedSet]


def give_feedback(run: Run, settings: SkillSettings, requests: SealedSet, suffix: str = "") -> SealedSet:
    """Return requests with simulated negative feedback, to the answers of a first network trained on the labelled
    folds."""
    left_out = tuple(sorted({settings.held_out, *settings.feedback.traffic}))
    training = settings.training.but(left_out=left_out, seed=_FIRST_SEED)
    first = run.train(TrainJob(f"first_skills{suffix}", skill_trainer.train, training, {"data": requests}))
    scores = SkillScoreSettings(column=settings.feedback.column)
    stages = (SkillScores.stage(scores, model=first.ref), SimulateFeedback.stage(settings.feedback))
    return run.step(Step(f"feedback{suffix}", stages, requests))


def learn_skills(
    run: Run, settings: SkillSettings, requests: SealedSet, seed: int = 0, suffix: str = ""
) -> LearntSkills:
    """Return each system's network and what it predicts for requests (``SKILL_REQUEST_FIELDS``) with feedback."""
    models = {}
    for system in SYSTEMS:
        training = settings.training.but(
            pseudo=settings.pseudo if system in ("pseudo", "both") else None,
            negative_weight=settings.negative_weight if system in ("negative", "both") else 0.0,
            left_out=(settings.held_out,),
            seed=seed,
        )
        models[system] = run.train(TrainJob("skills", skill_trainer.train, training, {"data": requests}))
    stages = tuple(
        SkillScores.stage(SkillScoreSettings(column=f"scores_{system}"), name=f"scores_{system}", model=model.ref)
        for system, model in models.items()
    )
    scored = run.step(Step(f"skill_scores{suffix}", stages, requests))
    labels = {
        system: run.step(
            Step(f"labels_{system}{suffix}", (SkillLabels.stage(Settings(), model=models[system].ref),), requests)
        )
        for system in ("pseudo", "both")
    }
    return LearntSkills(models, scored, labels)
