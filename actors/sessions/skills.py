"""Actors of skills: what a model predicts, the labels with their sources, and simulated negative feedback."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.sessions.skill_trainer import PSEUDO
from gristmill.models.sessions.skills import MODEL, WEIGHTS, SkillModel
from gristmill.shards.artifact import read_file
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

SCORED = pa.struct([pa.field("skill", pa.string()), pa.field("score", pa.float32())])
LABEL = pa.struct(
    [
        pa.field("skill", pa.string()),
        pa.field("source", pa.string()),  # gold, pseudo or negative
        pa.field("value", pa.float32()),  # 1, the network's probability, or 0
        pa.field("epoch", pa.int32()),  # after which it was made; 0: it was given
    ]
)
LABELS = pa.field("labels", pa.list_(LABEL))


class SkillScoreSettings(Settings):
    """The column of what a model predicts."""

    column: str = "skill_scores"
    """Its name."""
    least: float = Field(0.01, ge=0, lt=1)
    """Least probability of a skill in it; the best is in it always."""


class SkillScores(Actor):
    """Adds the probabilities of skills, best first, by a model of :mod:`gristmill.actors.sessions.skill_trainer`."""

    name = "skill_scores"
    columns = ("tokens",)
    batch = BatchLimits(rows=1024)
    settings: SkillScoreSettings

    def __init__(self, settings: SkillScoreSettings, model: str) -> None:
        import torch

        torch.set_num_threads(1)  # how sums are split among threads changes their last bits
        super().__init__(settings)
        self.model = SkillModel.from_files(read_file(model, MODEL), read_file(model, WEIGHTS))

    @classmethod
    def contract(cls, settings: SkillScoreSettings) -> Mapping[str, Any]:
        """Return the column that is added."""
        return {"adds": (pa.field(settings.column, pa.list_(SCORED)),)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the scores."""
        contexts = batch["context"].to_pylist() if "context" in batch.column_names else None
        found = self.model.probabilities([one or [] for one in batch["tokens"].to_pylist()], contexts)
        rows = [self._row(one) for one in found]
        return set_column(batch, self.settings.column, pa.array(rows, pa.list_(SCORED)))

    def _row(self, found: np.ndarray) -> list[dict[str, Any]]:
        order = np.argsort(-found, kind="stable")
        kept = [place for rank, place in enumerate(order) if not rank or found[place] >= self.settings.least]
        return [{"skill": self.model.skills[place], "score": found[place]} for place in kept]


class SkillLabels(Actor):
    """Adds ``labels``: a request's skills with their sources and values, pseudo labels among them.

    Labels of a source come in the order in which they were made: the labelled skill, pseudo labels, negative feedback.
    """

    name = "skill_labels"
    columns = ("id", "skill", "negative")
    adds = (LABELS,)
    batch = BatchLimits(rows=4096)

    def __init__(self, settings: Settings, model: str) -> None:
        super().__init__(settings)
        self._pseudo: dict[str, list[list[Any]]] = json.loads(read_file(model, PSEUDO))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the labels."""
        rows = []
        for key, skill, negative in zip(*(batch[name].to_pylist() for name in self.columns), strict=True):
            row = [] if skill is None else [_label(skill, "gold", 1.0, 0)]
            row += [_label(name, "pseudo", value, epoch) for name, value, epoch in self._pseudo.get(key, [])]
            row += [] if negative is None else [_label(negative, "negative", 0.0, 0)]
            rows.append(row)
        return set_column(batch, LABELS.name, pa.array(rows, LABELS.type))


def _label(skill: str, source: str, value: float, epoch: int) -> dict[str, Any]:
    return {"skill": skill, "source": source, "value": value, "epoch": epoch}


class FeedbackSettings(Settings):
    """Simulated traffic: which requests the user tells to have been answered wrongly."""

    column: str = "first_scores"
    """The column of the first model's scores, whose best skill answers."""
    traffic: tuple[int, ...] = ()
    """Folds without labels: the first model was not trained on them."""
    told: float = Field(0.5, ge=0, le=1)
    """Probability of negative feedback for a wrong answer."""
    corrected: float = Field(0.5, ge=0, le=1)
    """Probability that a request of the traffic with negative feedback is then labelled: the user went to a right
    skill."""


class SimulateFeedback(Actor):
    """Sets ``negative`` where the first model's answer is not among the ``right`` skills and the user says so, and
    takes the label of other requests of the traffic away. It is drawn by a request's id.
    """

    name = "simulate_feedback"
    seeded = True
    batch = BatchLimits(rows=4096)
    settings: FeedbackSettings

    def __init__(self, settings: FeedbackSettings, rng: Callable[[str], np.random.Generator]) -> None:
        super().__init__(settings)
        self._rng = rng

    @classmethod
    def contract(cls, settings: FeedbackSettings) -> Mapping[str, Any]:
        """Return the columns that are read."""
        return {"columns": ("id", "skill", "negative", "right", "fold", settings.column)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with feedback."""
        rows = batch.select(["id", "skill", "right", "fold", self.settings.column]).to_pylist()
        found = [self._feedback(*row.values()) for row in rows]
        skills, negatives = zip(*found, strict=True) if found else ((), ())
        batch = set_column(batch, "skill", pa.array(skills, pa.string()))
        return set_column(batch, "negative", pa.array(negatives, pa.string()))

    def _feedback(
        self, key: str, skill: str | None, right: list[str], fold: int, scores: list[dict[str, Any]]
    ) -> tuple[str | None, str | None]:
        draw = self._rng(key)
        told, corrected = draw.random() < self.settings.told, draw.random() < self.settings.corrected
        answer = scores[0]["skill"]
        negative = answer if told and answer not in right else None
        if fold in self.settings.traffic and not (negative is not None and corrected):
            skill = None
        return skill, negative
