import math

import numpy as np
import pytest

from gristmill.models.measures import calibration
from gristmill.shards.errors import UserError

SCORES = np.array([0.0, 0.1, 0.1, 0.3, 0.5, 0.9, 1.0, 1.0])
RIGHT = np.array([0, 0, 1, 0, 1, 1, 1, 0], bool)


def test_bins_of_equal_width_by_hand():
    bins = calibration.reliability(SCORES, RIGHT, 4)
    # [0, .25): 0 .1 .1; [.25, .5): .3; [.5, .75): .5 (on the edge); [.75, 1]: .9 1 1
    assert [b.n for b in bins] == [3, 1, 1, 3]
    assert [b.score for b in bins] == pytest.approx([0.2 / 3, 0.3, 0.5, 2.9 / 3])
    assert [b.accuracy for b in bins] == pytest.approx([1 / 3, 0, 1, 2 / 3])
    assert (bins[1].low, bins[1].high) == (0.25, 0.5)
    gaps = 3 * (1 / 3 - 0.2 / 3) + 0.3 + 0.5 + 3 * (2.9 / 3 - 2 / 3)
    assert calibration.ece(SCORES, RIGHT, 4) == pytest.approx(gaps / 8)


def test_bins_of_equal_mass_by_hand():
    bins = calibration.reliability(SCORES, RIGHT, 4, "mass")
    # Sorted, two per bin: the two .1 are on both sides of a cut and stay together.
    assert [(b.low, b.high, b.n) for b in bins] == [(0, 0.1, 1), (0.1, 0.5, 3), (0.5, 1, 2), (1, 1, 2)]
    gaps = 0 + abs(0.5 - 1) + abs(1.4 - 2) + abs(2 - 1)
    assert calibration.ece(SCORES, RIGHT, 4, "mass") == pytest.approx(gaps / 8)


@pytest.mark.parametrize("equal", calibration.EQUAL)
def test_order_does_not_matter_and_the_bins_hold_all(equal):
    rng = np.random.default_rng(0)
    scores = np.round(rng.random(500) ** 4, 2)  # many ties
    right = rng.random(500) < scores
    bins = calibration.reliability(scores, right, 10, equal)
    assert sum(b.n for b in bins) == 500
    turned = rng.permutation(500)
    again = calibration.reliability(scores[turned], right[turned], 10, equal)
    assert [(b.low, b.n, b.accuracy) for b in again if b.n] == [(b.low, b.n, b.accuracy) for b in bins if b.n]
    held = [b for b in bins if b.n]
    value = sum(b.n * abs(b.score - b.accuracy) for b in held) / 500
    assert calibration.ece(scores, right, 10, equal) == pytest.approx(value)


def test_wilson_by_hand():
    # 8 of 10, z = 1.96: (.8 + .19208 -+ 1.96 sqrt(.016 + .009604)) / 1.38416
    assert calibration.wilson(8, 10, 1.96) == pytest.approx((0.49016, 0.94331), abs=1e-5)
    assert calibration.wilson(0, 5)[0] == 0
    assert math.isnan(calibration.wilson(0, 0)[0])


def test_log_losses_and_squared_errors_by_hand():
    scores, right = np.array([0.8, 0.4]), np.array([True, False])
    assert calibration.log_losses(scores, right) == pytest.approx([-math.log(0.8), -math.log(0.6)])
    assert calibration.squared_errors(scores, right) == pytest.approx([0.04, 0.16])
    assert calibration.log_losses(np.array([0.0]), np.array([True])) == pytest.approx([-math.log(calibration.CLIP)])


def test_interval_covers_the_truth_and_repeats():
    rng = np.random.default_rng(1)
    p = rng.random(2000)
    off = np.clip(p + 0.1, 0, 1)
    utterance = np.repeat(np.arange(500), 4)
    hits = 0
    for _ in range(60):
        right = rng.random(2000) < p
        got = calibration.ece_interval(off, right, utterance, replicates=100)
        hits += got.low <= np.mean(off - p) <= got.high
    assert hits >= 52
    assert got == calibration.ece_interval(off, right, utterance, replicates=100)
    # Four times the same hypothesis is not four times the evidence.
    once, four = (
        calibration.ece_interval(np.repeat(off[:1000], k), np.repeat(right[:1000], k), np.repeat(np.arange(1000), k))
        for k in (1, 4)
    )
    assert four.high - four.low == pytest.approx(once.high - once.low)


def test_refusals():
    with pytest.raises(UserError, match="not a probability"):
        calibration.ece(np.array([0.5, math.nan]), np.array([True, False]))
    with pytest.raises(UserError, match="1 scores and 2 outcomes"):
        calibration.log_losses(np.array([0.5]), np.array([True, False]))
    with pytest.raises(UserError, match="width or mass"):
        calibration.ece(np.array([0.5]), np.array([True]), 10, "size")
