"""Prefix beam search against the sum over all alignments, and the compiled search against it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.speech.decode import beam_search, collapse, greedy, prefix_beam_search
from gristmill.shards.errors import UserError

SEARCHES = (prefix_beam_search, beam_search)


def brute_force(log_probs):
    frames, vocab = log_probs.shape
    found = {}
    for path in itertools.product(range(vocab), repeat=frames):
        units = tuple(u for u, _ in itertools.groupby(path) if u)
        score = sum(log_probs[t, u] for t, u in enumerate(path))
        found[units] = np.logaddexp(found.get(units, -np.inf), score)
    return sorted(found.items(), key=lambda f: -f[1])


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("seed", range(5))
def test_wide_beam_is_exact(seed, search):
    logits = np.random.default_rng(seed).normal(size=(5, 4)) * 2
    log_probs = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = brute_force(log_probs)[:6]
    found = search(log_probs, 10_000, nbest=6, tokens=4, threshold=-np.inf)
    assert [h.units for h in found] == [units for units, _ in expected]
    assert [h.score for h in found] == pytest.approx([score for _, score in expected])


def test_repeats_need_a_blank():
    sure = np.log(np.full((5, 3), 1e-6))
    for t, u in enumerate([1, 1, 0, 1, 2]):
        sure[t, u] = 0.0
    assert greedy(sure) == [1, 1, 2]
    assert [search(sure, 4)[0].units for search in SEARCHES] == [(1, 1, 2)] * 2


def test_a_path_collapses():
    assert collapse(np.array([0, 3, 3, 0, 3, 2, 2, 0], dtype=np.uint16)) == [3, 3, 2]
    assert collapse(np.zeros(0, dtype=np.uint16)) == []


def test_nothing_in_nothing_out():
    assert greedy(np.zeros((0, 3))) == []
    assert [search(np.zeros((0, 3)), 4)[0].units for search in SEARCHES] == [()] * 2


@st.composite
def posteriors(draw):
    """Log-probabilities of which many are equal, few are large, or some are of nothing at all."""
    frames, vocab = draw(st.integers(0, 12)), draw(st.integers(1, 7))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["any", "equal", "sharp", "blank", "holes"]))
    logits = rng.normal(size=(frames, vocab)) * {"sharp": 12.0, "equal": 1.0}.get(kind, 3.0)
    if kind == "equal":
        logits = np.round(logits)
    if kind == "blank":
        logits[:, 0] += 20.0
    log_probs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    if kind == "equal":
        log_probs = np.round(log_probs)
    if kind == "holes":
        log_probs[rng.random(log_probs.shape) < 0.3] = -np.inf
    return log_probs.astype(draw(st.sampled_from([np.float32, np.float64])))


@settings(max_examples=400, deadline=None)
@given(
    posteriors(),
    st.integers(1, 20),
    st.integers(0, 30),
    st.integers(1, 9),
    st.sampled_from([-12.0, -2.0, -math.inf, 0.0]),
)
def test_the_compiled_search_is_the_same_bit_by_bit(log_probs, beam, nbest, tokens, threshold):
    expected, found = (search(log_probs, beam, nbest=nbest, tokens=tokens, threshold=threshold) for search in SEARCHES)
    assert found == expected


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_the_compiled_search_of_long_utterances_is_the_same(kind):
    logits = np.random.default_rng(3).normal(size=(300, 30)) * 4
    log_probs = np.asfortranarray((logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(kind))
    expected, found = (search(log_probs, 24, nbest=24) for search in SEARCHES)
    assert found == expected


def test_what_cannot_be_searched_is_said():
    with pytest.raises(UserError, match=r"expected \(frames, units\)"):
        beam_search(np.zeros(3))
    with pytest.raises(UserError, match="1 or more"):
        beam_search(np.zeros((1, 3)), 0)
