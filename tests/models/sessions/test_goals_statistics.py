"""Association of goals: equal to the textbook tests, and defined where counts are at their limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency, fisher_exact

from gristmill.models.sessions.goals import (
    association_p,
    direction_p,
    discovery_cutoff,
    log_likelihood_ratio,
    normalised_pmi,
    overlap,
    pieces,
    pmi,
    precision_at,
)

COUNTS = [(10, 20, 50, 1000), (1, 1, 1, 10), (3, 40, 3, 60), (0, 5, 5, 50)]


def columns(case: tuple[int, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    return np.array([case[0]]), np.array([case[1]]), np.array([case[2]]), case[3]


@pytest.mark.parametrize("case", COUNTS)
def test_tests_are_those_of_scipy(case: tuple[int, int, int, int]) -> None:
    pair, first, second, sessions = case
    table = [[pair, first - pair], [second - pair, sessions - first - second + pair]]
    assert association_p(*columns(case))[0] == pytest.approx(fisher_exact(table, "greater").pvalue)
    ratio = chi2_contingency(table, correction=False, lambda_="log-likelihood").statistic
    assert log_likelihood_ratio(*columns(case))[0] == pytest.approx(ratio)
    assert direction_p(np.array([pair]), np.array([4]))[0] == pytest.approx(
        binomtest(pair, pair + 4, alternative="greater").pvalue
    )


def test_information_at_its_limits() -> None:
    counts = (np.array([20, 1, 0, 100]), np.array([20, 10, 5, 100]), np.array([20, 10, 5, 100]), 100)
    assert pmi(*counts)[1] == pytest.approx(0.0)
    assert pmi(*counts)[2] == -np.inf
    assert normalised_pmi(*counts).tolist() == pytest.approx([1.0, 0.0, -1.0, 0.0])


def test_discoveries_are_counted_over_all_tests() -> None:
    assert discovery_cutoff(np.array([0.01] + [0.9] * 9), 0.05) == -1.0
    assert discovery_cutoff(np.array([0.004] + [0.9] * 9), 0.05) == 0.004
    assert discovery_cutoff(np.zeros(0), 0.05) == -1.0


def test_misheard_words_overlap() -> None:
    assert overlap(pieces(["turn", "of", "the", "light"]), pieces(["turn", "off", "the", "lights"])) > 0.5
    assert overlap(pieces(["turn", "of", "the", "light"]), pieces(["play", "some", "jazz"])) < 0.1
    assert overlap(set(), set()) == 0.0


def test_precision_of_few_pairs_is_of_those() -> None:
    assert precision_at([], {("a", "b")}, 100) == 0.0
    assert precision_at([("a", "b")], {("a", "b")}, 100) == 1.0
