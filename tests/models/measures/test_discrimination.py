"""The area under the ROC curve: against its definition and scikit-learn's, and its interval by blocks and groups."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.measures.discrimination import auc, auc_interval
from gristmill.shards.errors import UserError


def drawn(seed=0, n=400, shift=1.0):
    rng = np.random.default_rng(seed)
    positive = rng.random(n) < 0.3
    scores = np.round(rng.normal(size=n) + shift * positive, 1)  # with ties
    return scores, positive, [f"domain {row % 12}" for row in range(n)]


def test_it_is_the_share_of_pairs_in_the_right_order():
    from sklearn.metrics import roc_auc_score

    scores, positive, _ = drawn()
    over = scores[positive][:, None] - scores[~positive][None]
    assert auc(scores, positive) == pytest.approx((over > 0).mean() + (over == 0).mean() / 2)
    assert auc(scores, positive) == pytest.approx(roc_auc_score(positive, scores))
    assert auc(-scores, positive) == pytest.approx(1 - auc(scores, positive))
    assert auc(np.zeros(4), np.array([True, False] * 2)) == 0.5


def test_the_interval_holds_the_value_and_is_drawn_from_whole_blocks():
    scores, positive, blocks = drawn()
    found = auc_interval(scores, positive, blocks)
    assert found.value == pytest.approx(auc(scores, positive))
    assert found.low < found.value < found.high
    assert found == auc_interval(scores, positive, blocks)
    assert found != auc_interval(scores, positive, blocks, seed=1)
    # Rows that are the same ten times over tell no more: with them in one block the interval stays as wide.
    many = auc_interval(np.tile(scores, 10), np.tile(positive, 10), blocks * 10)
    assert (many.low, many.high) == pytest.approx((found.low, found.high))
    apart = [f"{block} {copy}" for copy in range(10) for block in blocks]
    alone = auc_interval(np.tile(scores, 10), np.tile(positive, 10), apart)
    assert alone.high - alone.low < 0.6 * (found.high - found.low)


def test_scores_of_different_groups_are_not_compared():
    scores, positive, blocks = drawn()
    groups = [f"part {int(block.split()[1]) % 3}" for block in blocks]
    shifted = scores + 100 * np.array([int(group.split()[1]) for group in groups])
    found = auc_interval(shifted, positive, blocks, groups)
    assert found == auc_interval(scores, positive, blocks, groups)
    assert found.value != pytest.approx(auc(shifted, positive), abs=0.01)
    parts = [np.array(groups) == name for name in sorted(set(groups))]
    weights = [positive[part].sum() * (~positive[part]).sum() for part in parts]
    assert found.value == pytest.approx(np.average([auc(scores[p], positive[p]) for p in parts], weights=weights))


def test_what_has_no_area_is_refused():
    yes, no = np.array([True, True]), np.array([True, False])
    with pytest.raises(UserError, match="2 of 2 scores are positive; expected both"):
        auc(np.zeros(2), yes)
    with pytest.raises(UserError, match="3 scores and 2 labels"):
        auc(np.zeros(3), no)
    with pytest.raises(UserError, match="not a number"):
        auc(np.array([0.1, np.nan]), no)
    with pytest.raises(UserError, match="2 scores, 1 blocks"):
        auc_interval(np.zeros(2), no, ["a"])
    with pytest.raises(UserError, match="no group has positive and negative"):
        auc_interval(np.zeros(2), no, ["a", "b"], ["x", "y"])
