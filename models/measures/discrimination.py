"""How well scores tell two kinds apart: the area under the ROC curve, with an interval.

The area (AUC) is the share of pairs of a positive and a negative example in which the positive one has the higher score
(Hanley and McNeil, Radiology 1982); equal scores count half. Examples of one block (a domain, a speaker) are not
independent, so whole blocks are resampled.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.models.measures.significance import Interval
from gristmill.shards.errors import UserError


def auc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Return the area under the ROC curve of scores (n,), of which ``positive`` (n,) bool are to be the higher.

    Raises:
        UserError: there is no positive or no negative score, one is not a number, or the lengths differ.

    Example:
        >>> auc(np.array([0.9, 0.4, 0.6, 0.1]), np.array([True, True, False, False]))
        0.75
    """
    scores, positive = _checked(scores, positive)
    return float(_wins(scores[positive], scores[~positive]) / (positive.sum() * (~positive).sum()))


def auc_interval(
    scores: np.ndarray,
    positive: np.ndarray,
    blocks: Sequence[str],
    groups: Sequence[str] | None = None,
    *,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Return the area under the ROC curve and its interval, by a bootstrap over blocks.

    ``blocks`` (n,) has the block of each score. With ``groups`` (n,) only scores of one group are compared, and the
    area is the mean over groups weighted by their pairs: in cross-validation each part has scores of a model of its
    own. Of fewer than some ten blocks the interval is too narrow. Replicates without a pair are left out.

    Raises:
        UserError: as :func:`auc`; there is no group with positive and negative scores.

    Example:
        >>> found = auc_interval(np.array([0.9, 0.4, 0.8, 0.7]), np.array([True, False] * 2), ["a", "a", "b", "b"])
        >>> found
        Interval(value=1.0, low=1.0, high=1.0, blocks='blocks')
    """
    scores, positive = _checked(scores, positive)
    group = np.zeros(len(scores), int) if groups is None else np.unique(np.array(groups), return_inverse=True)[1]
    if len(blocks) != len(scores) or len(group) != len(scores):
        raise UserError(f"AUC: {len(scores)} scores, {len(blocks)} blocks, {len(group)} groups; expected one per score")
    # A cell is the part of a block in a group: a replicate needs the wins of each cell over each other one.
    block = np.unique(np.array(blocks), return_inverse=True)[1]
    cells, cell = np.unique(np.stack([group, block]), axis=1, return_inverse=True)
    cell = cell.ravel()
    number = cells.shape[1]
    ups = [np.sort(scores[positive & (cell == place)]) for place in range(number)]
    downs = [np.sort(scores[~positive & (cell == place)]) for place in range(number)]
    wins, pairs = np.zeros((number, number)), np.zeros((number, number))
    for one in range(number):
        for other in np.flatnonzero(cells[0] == cells[0, one]):
            wins[one, other] = _wins(ups[one], downs[other])
            pairs[one, other] = len(ups[one]) * len(downs[other])
    if not pairs.any():
        raise UserError("AUC: no group has positive and negative scores; expected both kinds in one of them")
    count = int(block.max()) + 1
    rng = np.random.Generator(np.random.Philox(seed))
    times = rng.multinomial(count, np.full(count, 1 / count), size=replicates)
    weight = np.concatenate([np.ones((1, count)), times])[:, cells[1]]
    with np.errstate(invalid="ignore"):
        areas = ((weight @ wins) * weight).sum(1) / ((weight @ pairs) * weight).sum(1)
    tail = 100 * (1 - level) / 2
    low, high = np.percentile(areas[1:][np.isfinite(areas[1:])], [tail, 100 - tail])
    return Interval(float(areas[0]), float(low), float(high), "blocks")


def _wins(ups: np.ndarray, downs: np.ndarray) -> float:
    """Return the number of pairs in which the first is higher; equal ones count half."""
    downs = np.sort(downs)
    return float((np.searchsorted(downs, ups, "left") + np.searchsorted(downs, ups, "right")).sum() / 2)


def _checked(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, positive = np.asarray(scores, np.float64), np.asarray(positive, bool)
    if scores.shape != positive.shape or scores.ndim != 1:
        raise UserError(f"AUC: {scores.size} scores and {positive.size} labels; expected one per score")
    if not positive.any() or positive.all():
        raise UserError(f"AUC: {int(positive.sum())} of {len(scores)} scores are positive; expected both kinds")
    if np.isnan(scores).any():
        raise UserError("AUC: a score is not a number")
    return scores, positive
