"""Calibration of scores: reliability diagrams, expected calibration error, log loss and Brier score.

A score is the probability that its hypothesis is correct. A reliability diagram bins scores and compares each bin's
mean score with its accuracy (Murphy and Winkler, 1977; ECE: Naeini et al., AAAI 2015). Bins of equal width are the
usual plot; where most scores are near zero one bin has almost all of them, so bins of equal mass (Nguyen and O'Connor,
EMNLP 2015) show the same with as many scores in each.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from gristmill.shards.errors import UserError

EQUAL = ("width", "mass")
CLIP = 1e-7  # the log loss keeps scores this far from 0 and 1, or a single error could be infinite


class Bin(NamedTuple):
    """Scores from ``low`` to ``high``: their number, their mean, their accuracy and its 95 % interval."""

    low: float
    high: float
    n: int
    score: float  # NaN in an empty bin, as are the next three
    accuracy: float
    accuracy_low: float  # Wilson's interval, which assumes independent scores
    accuracy_high: float


class EceInterval(NamedTuple):
    """An ECE with its bootstrap interval over utterances."""

    value: float
    low: float
    high: float


def reliability(scores: np.ndarray, correct: np.ndarray, bins: int = 10, equal: str = "width") -> list[Bin]:
    """Return the bins of a reliability diagram, from low scores to high.

    ``scores`` (n,) in 0 to 1, ``correct`` (n,) bool. Bins of equal mass have n / ``bins`` scores each, but equal scores
    are never split, so there may be fewer bins; those of equal width are always ``bins``, some of them empty.

    Raises:
        UserError: no score, a score that is not a probability, unequal lengths, or an unknown kind of bin.

    Example:
        >>> made = reliability(np.array([0.1, 0.2, 0.7, 0.9]), np.array([False, False, True, True]), bins=2)
        >>> [(one.low, one.high, one.n, round(one.score, 2), one.accuracy) for one in made]
        [(0.0, 0.5, 2, 0.15, 0.0), (0.5, 1.0, 2, 0.8, 1.0)]
    """
    scores, correct = _checked(scores, correct)
    edges = _edges(scores, bins, equal)
    place = _place(scores, edges)
    number = len(edges) - 1
    count = np.bincount(place, minlength=number)
    total, right = (np.bincount(place, values, number) for values in (scores, correct))
    made = []
    for i in range(number):
        n = int(count[i])
        accuracy = right[i] / n if n else math.nan
        low, high = wilson(int(right[i]), n)
        mean = total[i] / n if n else math.nan
        made.append(Bin(float(edges[i]), float(edges[i + 1]), n, float(mean), float(accuracy), low, high))
    return made


def ece(scores: np.ndarray, correct: np.ndarray, bins: int = 10, equal: str = "width") -> float:
    """Return the expected calibration error: the mean |score - accuracy| of the bins, by their counts.

    Example:
        >>> round(ece(np.array([0.1, 0.2, 0.7, 0.9]), np.array([False, False, True, True]), bins=2), 3)
        0.175
    """
    scores, correct = _checked(scores, correct)
    edges = _edges(scores, bins, equal)
    gaps = np.bincount(_place(scores, edges), scores - correct, len(edges) - 1)
    return float(np.abs(gaps).sum() / len(scores))


def ece_interval(
    scores: np.ndarray,
    correct: np.ndarray,
    utterance: np.ndarray,
    bins: int = 10,
    equal: str = "width",
    *,
    replicates: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> EceInterval:
    """Return the ECE and its interval by a bootstrap over utterances, whose hypotheses are not independent.

    ``utterance`` (n,) is the utterance of each score. The bins are those of the whole set. Gaps add up in absolute
    value, so the ECE of resamples is biased upwards; their spread about their own mean is centred on the set's value.
    """
    scores, correct = _checked(scores, correct)
    edges = _edges(scores, bins, equal)
    number = len(edges) - 1
    _, unit = np.unique(utterance, return_inverse=True)
    units = int(unit.max()) + 1
    cell = unit * number + _place(scores, edges)
    gaps = np.bincount(cell, scores - correct, units * number).reshape(units, number)
    columns = np.concatenate([gaps, np.bincount(unit, minlength=units)[:, None]], 1)
    rng = np.random.Generator(np.random.Philox(seed))
    value = ece(scores, correct, bins, equal)
    drawn = np.empty(replicates)
    for i in range(replicates):
        times = np.bincount(rng.integers(units, size=units), minlength=units)
        sums = times @ columns
        drawn[i] = np.abs(sums[:-1]).sum() / sums[-1]
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(drawn, [tail, 100 - tail])
    shift = value - float(drawn.mean())
    return EceInterval(value, max(0.0, float(low) + shift), min(1.0, float(high) + shift))


def log_losses(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return the log loss of each score, (n,) float64, in nats, of scores kept ``CLIP`` away from 0 and 1.

    Their mean is the negative log-likelihood (NLL).
    """
    scores, correct = _checked(scores, correct)
    kept = np.clip(scores, CLIP, 1 - CLIP)
    return -np.log(np.where(correct.astype(bool), kept, 1 - kept))


def squared_errors(scores: np.ndarray, correct: np.ndarray) -> np.ndarray:
    """Return the squared distance of each score from its outcome, (n,) float64; their mean is the Brier score."""
    scores, correct = _checked(scores, correct)
    return (scores - correct) ** 2


def wilson(right: int, n: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """Return Wilson's score interval of a share (JASA, 1927); NaN where n is 0."""
    if not n:
        return math.nan, math.nan
    share = right / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def _checked(scores: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, correct = np.asarray(scores, np.float64), np.asarray(correct, np.float64)
    if scores.shape != correct.shape or scores.ndim != 1 or not len(scores):
        raise UserError(f"calibration: {scores.size} scores and {correct.size} outcomes; expected one per score")
    if not ((scores >= 0) & (scores <= 1)).all():
        bad = scores[~((scores >= 0) & (scores <= 1))][0]
        raise UserError(f"calibration: a score of {bad} is not a probability; expected 0 to 1")
    return scores, correct


def _edges(scores: np.ndarray, bins: int, equal: str) -> np.ndarray:
    if equal not in EQUAL or bins < 1:
        raise UserError(
            f"calibration: {bins} bins of equal {equal!r}; expected 1 or more of equal {' or '.join(EQUAL)}"
        )
    if equal == "width":
        return np.linspace(0.0, 1.0, bins + 1)
    firsts = np.sort(scores)[np.arange(bins) * len(scores) // bins]
    return np.append(np.unique(firsts), scores.max())


def _place(scores: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The bin of each score: one on an edge is in the bin above it, the highest edge in the last bin."""
    return np.clip(np.searchsorted(edges[:-1], scores, side="right") - 1, 0, len(edges) - 2)
