"""Scores of learnt skills: of pseudo labels, of all predicted skills, of the first one and its calibration.

Intervals are of a bootstrap over dialogues (``group``), and over training seeds beside them, with the same draws for
all systems, so that changes are paired.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.actors.nlu.folds import TEST
from gristmill.pipelines.report.report import MetricRow
from gristmill.pipelines.sessions.skills import SYSTEMS, LearntSkills, SkillSettings
from gristmill.shards.errors import UserError

TEST_SET = "skills"
BASELINE = "single"
THRESHOLDS = tuple(round(0.05 * place, 2) for place in range(1, 20))
BINS = 10
_REPLICATES = 2000
Statistic = Callable[[np.ndarray], np.ndarray]  # sums (replicates, k) to values (replicates,)


@dataclass(frozen=True)
class Predicted:
    """What one system predicts for some requests, (requests, skills), and what is right."""

    scores: np.ndarray
    right: np.ndarray  # bool
    labelled: np.ndarray  # bool: the one skill that is known
    negative: np.ndarray  # (requests,) bool: whether there is negative feedback
    groups: np.ndarray  # (requests,) numbers of dialogues

    def where(self, kept: np.ndarray) -> Predicted:
        """Return some of the requests."""
        found = (self.scores, self.right, self.labelled, self.negative, self.groups)
        return Predicted(*(one[kept] for one in found))

    def summed(self, values: np.ndarray) -> np.ndarray:
        """Return the sums of values (requests, k) over each dialogue, (dialogues, k)."""
        made = np.zeros((int(self.groups.max(initial=-1)) + 1, values.shape[1]))
        np.add.at(made, self.groups, values)
        return made


def macro_f1_counts(given: Predicted, threshold: float) -> np.ndarray:
    """Return hits, predicted and right skills of each dialogue, (dialogues, 3 skills)."""
    found = given.scores >= threshold
    return given.summed(np.concatenate([found & given.right, found, given.right], 1).astype(float))


def macro_f1(sums: np.ndarray) -> np.ndarray:
    """Return the mean F1 of skills from their hits, predictions and right ones (replicates, 3 skills); a skill that is
    neither right nor predicted in a replicate is left out."""
    hits, found, right = np.split(sums, 3, axis=1)
    both = found + right
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nanmean(np.where(both > 0, 2 * hits / both, np.nan), 1)


def chosen_threshold(held: Predicted, known: bool = False) -> float:
    """Return the threshold of the highest macro-F1 on held-out requests, of the skills that they are labelled with, or
    where ``known`` of all right ones."""
    given = held if known else Predicted(held.scores, held.labelled, held.labelled, held.negative, held.groups)
    found = [float(macro_f1(macro_f1_counts(given, one).sum(0)[None])[0]) for one in THRESHOLDS]
    return THRESHOLDS[int(np.argmax(found))]


def wrong_counts(given: Predicted) -> np.ndarray:
    """Return wrong first choices and requests of each dialogue, (dialogues, 2)."""
    wrong = ~given.right[np.arange(len(given.right)), given.scores.argmax(1)]
    return given.summed(np.stack([wrong, np.ones(len(wrong))], 1).astype(float))


def ratio(sums: np.ndarray) -> np.ndarray:
    """Return the first of two sums divided by the second."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return sums[:, 0] / sums[:, 1]


def ece_counts(given: Predicted) -> np.ndarray:
    """Return the sums of the first choices' score minus correctness in bins of equal width, and requests, of each
    dialogue, (dialogues, bins + 1)."""
    first = given.scores.argmax(1)
    rows = np.arange(len(first))
    score = given.scores[rows, first]
    bins = np.minimum(BINS - 1, (score * BINS).astype(int))
    values = np.zeros((len(first), BINS + 1))
    values[rows, bins] = score - given.right[rows, first]
    values[:, BINS] = 1
    return given.summed(values)


def expected_error(sums: np.ndarray) -> np.ndarray:
    """Return the expected calibration error from the gaps of bins and the number of requests."""
    return ratio(np.stack([np.abs(sums[:, :BINS]).sum(1), sums[:, BINS]], 1))


def resampled(by_seed: Mapping[int, np.ndarray], statistic: Statistic, seed: int = 0) -> np.ndarray:
    """Return a statistic, averaged over training seeds, of all dialogues (first) and of replicates, from the sums of
    each dialogue (dialogues, k) by seed."""
    times = _times(len(next(iter(by_seed.values()))), seed)
    values = np.stack([statistic(times @ sums) for sums in by_seed.values()])
    number = len(by_seed)
    rng = np.random.Generator(np.random.Philox(key=[seed, 1]))
    weights = np.ones((1 + _REPLICATES, number))
    weights[1:] = rng.multinomial(number, np.full(number, 1 / number), size=_REPLICATES)
    return (values.T * weights).sum(1) / number


@lru_cache(maxsize=2)
def _times(groups: int, seed: int) -> np.ndarray:
    """Return how often each dialogue is drawn, (1 + replicates, dialogues); first: once."""
    rng = np.random.Generator(np.random.Philox(seed))
    drawn = [np.bincount(rng.integers(groups, size=groups), minlength=groups) for _ in range(_REPLICATES)]
    return np.stack([np.ones(groups), *drawn])


def pseudo_counts(labels: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return right pseudo labels, pseudo labels and hidden right skills of each dialogue, (dialogues, 3)."""
    groups: dict[str, int] = {}
    made: list[np.ndarray] = []
    for row in labels:
        place = groups.setdefault(row["group"], len(groups))
        if place == len(made):
            made.append(np.zeros(3))
        found = [one["skill"] for one in row["labels"] if one["source"] == "pseudo"]
        hidden = set(row["right"]) - {row["skill"]}
        made[place] += len(hidden.intersection(found)), len(found), len(hidden)
    return np.array(made).reshape(-1, 3)


def score_skills(learnt: Mapping[int, LearntSkills], settings: SkillSettings) -> list[MetricRow]:
    """Return the rows of the results, from what was learnt by each training seed.

    ``precision`` and ``recall`` are of pseudo labels. ``macro_f1`` has its threshold from the labelled skills of the
    held-out fold, ``macro_f1_known`` from all right ones of it (which nobody has who needs pseudo labels) and
    ``macro_f1_half`` is of probabilities of at least a half. ``wrong`` is the share of wrong first choices in the test,
    ``wrong_negative`` that of the requests with negative feedback, ``ece`` the calibration of first choices.

    Raises:
        UserError: there is no test or held-out request.
    """
    counted: dict[str, dict[str, dict[int, np.ndarray]]] = {}
    sizes: dict[str, int] = {}
    for seed, one in learnt.items():
        test, held = (_predicted(one, fold) for fold in (TEST, settings.held_out))
        for system in SYSTEMS:
            own, kept = test[system], held[system]
            found = {
                "macro_f1": macro_f1_counts(own, chosen_threshold(kept)),
                "macro_f1_known": macro_f1_counts(own, chosen_threshold(kept, known=True)),
                "macro_f1_half": macro_f1_counts(own, 0.5),
                "wrong": wrong_counts(own),
                "wrong_negative": wrong_counts(own.where(own.negative)),
                "ece": ece_counts(own),
                "ece_negative": ece_counts(own.where(own.negative)),
            }
            for metric, sums in found.items():
                counted.setdefault(metric, {}).setdefault(system, {})[seed] = sums
                sizes[metric] = int(own.negative.sum()) if metric.endswith("negative") else len(own.right)
        for system, labels in one.labels.items():
            sums = pseudo_counts(_training_rows(labels, settings.held_out))
            counted.setdefault("precision", {}).setdefault(system, {})[seed] = sums[:, [0, 1]]
            counted.setdefault("recall", {}).setdefault(system, {})[seed] = sums[:, [0, 2]]
            sizes["precision"], sizes["recall"] = int(sums[:, 1].sum()), int(sums[:, 2].sum())
    return [row for metric, systems in counted.items() for row in _rows(metric, systems, sizes[metric])]


def _rows(metric: str, systems: Mapping[str, Mapping[int, np.ndarray]], size: int) -> list[MetricRow]:
    statistic = macro_f1 if metric.startswith("macro") else expected_error if metric.startswith("ece") else ratio
    drawn = {system: resampled(by_seed, statistic) for system, by_seed in systems.items()}
    rows = []
    for system, values in drawn.items():
        rows.append(_row(system, metric, values, size))
        if BASELINE in drawn and system != BASELINE:
            with np.errstate(invalid="ignore", divide="ignore"):
                rows.append(_row(system, f"{metric}_relative", values / drawn[BASELINE] - 1, size))
    return rows


def _row(system: str, metric: str, values: np.ndarray, size: int) -> MetricRow:
    kept = values[1:][np.isfinite(values[1:])]
    low, high = np.percentile(kept, [2.5, 97.5]).tolist() if len(kept) else (None, None)
    value = float(values[0]) if math.isfinite(values[0]) else None
    return MetricRow(system, TEST_SET, metric, value, low, high, size, None)


def _predicted(learnt: LearntSkills, fold: int) -> dict[str, Predicted]:
    """Return what each system predicts for the requests of a fold."""
    columns = ["group", "skill", "negative", "right", "fold", *(f"scores_{system}" for system in SYSTEMS)]
    tables = [table.filter(pc.equal(table["fold"], fold)) for table in learnt.scored.tables(columns)]
    rows = [row for row in pa.concat_tables(tables).to_pylist() if row["right"]]
    if not rows:
        raise UserError(f"skills: no request of fold {fold} has right skills; expected some, to be scored")
    names = sorted(
        {one for row in rows for one in row["right"]}
        | {one["skill"] for row in rows for system in SYSTEMS for one in row[f"scores_{system}"]}
    )
    number = {name: place for place, name in enumerate(names)}
    groups = np.unique([row["group"] for row in rows], return_inverse=True)[1]
    right, labelled = np.zeros((2, len(rows), len(names)), bool)
    for place, row in enumerate(rows):
        right[place, [number[one] for one in row["right"]]] = True
        if row["skill"] is not None:
            labelled[place, number[row["skill"]]] = True
    negative = np.array([row["negative"] is not None for row in rows])
    found = {}
    for system in SYSTEMS:
        scores = np.zeros(right.shape, np.float32)
        for place, row in enumerate(rows):
            for one in row[f"scores_{system}"]:
                scores[place, number[one["skill"]]] = one["score"]
        found[system] = Predicted(scores, right, labelled, negative, groups)
    return found


def _training_rows(labels: Any, held_out: int) -> list[dict[str, Any]]:
    """Return the labelled training requests."""
    found = []
    for table in labels.tables(["group", "skill", "right", "fold", "labels"]):
        kept = pc.and_(
            pc.is_valid(table["skill"]), pc.invert(pc.is_in(table["fold"], pa.array([TEST, held_out], pa.int32())))
        )
        found += table.filter(kept).to_pylist()
    return found
