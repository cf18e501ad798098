"""The threshold of a recogniser: between few and many, at any prior, never by the chance of one score."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.nlu.operating_point import threshold


def scores(own: float, count: int, others: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(own, 1.0, count), rng.normal(-3.0, 1.0, others)


def test_it_has_nearly_the_best_f1_on_scores_that_it_has_not_seen() -> None:
    """Of normal scores the best threshold is known; twenty scores come near to its F1."""
    prior = 0.03
    own, others = scores(1.0, 20_000, 200_000, seed=1)

    def f1(limit: float) -> float:
        recall, accepted = (own >= limit).mean(), (others >= limit).mean()
        return 2 * prior * recall / (prior * recall + (1 - prior) * accepted + prior)

    best = max(f1(limit) for limit in np.linspace(-4, 3, 141))
    found = [f1(threshold(*scores(1.0, 20, seed=seed), prior)) for seed in range(10)]
    assert np.mean(found) > 0.95 * best


def test_a_rarer_function_has_a_higher_threshold() -> None:
    own, others = scores(0.0, 30)
    limits = [threshold(own, others, prior) for prior in (0.3, 0.03, 0.003)]
    assert limits == sorted(limits)
    assert limits[0] < limits[-1]


@pytest.mark.parametrize(("own", "others"), [([], [1.0, 2.0]), ([1.0], [-1.0, -2.0]), ([1.0, 2.0], [0.5])])
def test_of_too_few_scores_it_is_even_odds(own: list[float], others: list[float]) -> None:
    assert threshold(np.array(own), np.array(others), 0.03) == 0.0


def test_order_and_equal_scores_do_not_matter() -> None:
    own, others = scores(1.0, 20)
    assert threshold(own, others, 0.03) == threshold(
        own[::-1].copy(), np.random.default_rng(1).permutation(others), 0.03
    )
    assert np.isfinite(threshold(np.ones(5), -np.ones(100), 0.03))
    assert -1 < threshold(np.ones(5), -np.ones(100), 0.03) <= 1
