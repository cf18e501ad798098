"""Prefix beam search against the sum over all alignments."""

import itertools

import numpy as np
import pytest

from gristmill.models.speech.decode import collapse, greedy, prefix_beam_search


def brute_force(log_probs):
    frames, vocab = log_probs.shape
    found = {}
    for path in itertools.product(range(vocab), repeat=frames):
        units = tuple(u for u, _ in itertools.groupby(path) if u)
        score = sum(log_probs[t, u] for t, u in enumerate(path))
        found[units] = np.logaddexp(found.get(units, -np.inf), score)
    return sorted(found.items(), key=lambda f: -f[1])


@pytest.mark.parametrize("seed", range(5))
def test_wide_beam_is_exact(seed):
    logits = np.random.default_rng(seed).normal(size=(5, 4)) * 2
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = brute_force(log_probs)[:6]
    found = prefix_beam_search(log_probs, 10_000, nbest=6, tokens=4, threshold=-np.inf)
    assert [h.units for h in found] == [units for units, _ in expected]
    assert [h.score for h in found] == pytest.approx([score for _, score in expected])


def test_repeats_need_a_blank():
    sure = np.log(np.full((5, 3), 1e-6))
    for t, u in enumerate([1, 1, 0, 1, 2]):
        sure[t, u] = 0.0
    assert greedy(sure) == [1, 1, 2]
    assert prefix_beam_search(sure, 4)[0].units == (1, 1, 2)


def test_a_path_collapses():
    assert collapse(np.array([0, 3, 3, 0, 3, 2, 2, 0], dtype=np.uint16)) == [3, 3, 2]
    assert collapse(np.zeros(0, dtype=np.uint16)) == []


def test_nothing_in_nothing_out():
    assert greedy(np.zeros((0, 3))) == []
    assert prefix_beam_search(np.zeros((0, 3)), 4)[0].units == ()
