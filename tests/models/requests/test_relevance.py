"""The relevance of requests: scores by definition, equal bytes in any batch, unknown words, files, refusals."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.models.requests.relevance import (
    MODEL,
    WEIGHTS,
    RelevanceModel,
    RelevanceSettings,
    fit,
    ngrams,
)
from gristmill.shards.errors import UserError

GRAMS = {"wake": 1.5, "me": -0.25, "up": 0.5, "wake me": 2.0, "me up": 0.125, "wake me up": 4.0, "at six": 8.0}
OWN = [["wake", "me", "at", "six"], ["set", "an", "alarm"], ["wake", "me", "up"]]
OTHERS = [["play", "me", "a", "song"], ["what", "is", "up"], ["play", "it", "at", "six"], ["call", "me"]]


def model(order=3, grams=GRAMS):
    return RelevanceModel(order, list(grams), np.array(list(grams.values()), np.float32), -1.0)


def by_definition(scored, tokens):
    return scored.bias + sum(scored.weights.get(gram, 0.0) for gram in ngrams(tokens, scored.order))


def test_a_score_is_the_bias_and_the_weights_of_the_ngrams():
    assert model().score([["wake", "me", "up"]]).tolist() == [-1 + 1.5 - 0.25 + 0.5 + 2 + 0.125 + 4]
    assert model().score([["Wake", "ME"]]).tolist() == [-1 + 1.5 - 0.25 + 2]
    assert model().score([["wake", "now", "me"]]).tolist() == [-1 + 1.5 - 0.25]
    # "at" and "six" are no n-grams of their own.
    assert model().score([["at", "six"], ["six", "at"]]).tolist() == [7, -1]


def test_an_ngram_that_is_twice_in_a_request_counts_once():
    assert model().score([["wake", "me", "wake", "me"]]).tolist() == [-1 + 1.5 - 0.25 + 2]


def test_ngrams_do_not_go_from_a_request_to_the_next():
    assert model().score([["wake"], ["me"], ["up"]]).tolist() == [0.5, -1.25, -0.5]


def test_ngrams_beyond_the_order_count_nothing():
    assert model(order=1).score([["wake", "me", "up"]]).tolist() == [-1 + 1.5 - 0.25 + 0.5]


def test_requests_without_a_known_word_have_the_bias():
    scores = model().score([[], ["unknown"], ["words", "only"], []])
    assert scores.tolist() == [-1] * 4
    assert scores.dtype == np.float32
    assert model().score([]).shape == (0,)
    assert model().score([[], []]).tolist() == [-1, -1]
    assert model(grams={}).score([["wake"], []]).tolist() == [-1, -1]


def test_columns_of_arrow_with_nulls_and_slices():
    column = pa.array([["me"], None, ["wake", "me"], [], ["up"]], pa.list_(pa.string()))
    assert model().score(column).tolist() == [-1.25, -1, 2.25, -1, -0.5]
    assert model().score(column.slice(2, 2)).tolist() == [2.25, -1]


WORDS = st.lists(st.lists(st.sampled_from(["wake", "Me", "up", "at", "six", "play", "x", "ß", "İ", ""]), max_size=9))


@pytest.fixture(scope="module")
def fitted():
    return fit([*OWN, ["ß", "i̇", "", "up"]], OTHERS, RelevanceSettings(order=4))


@settings(deadline=None)
@given(tokens=WORDS)
def test_scores_are_those_by_definition(fitted, tokens):
    expected = np.array([by_definition(fitted, one) for one in tokens])
    np.testing.assert_allclose(fitted.score(tokens), expected, rtol=1e-6, atol=1e-6)


def test_the_bytes_of_a_score_do_not_depend_on_the_batch():
    rng = np.random.default_rng(0)
    words = [f"w{n}" for n in range(30)]
    tokens = [rng.choice(words, rng.integers(0, 12)).tolist() for _ in range(400)]
    fitted = fit(tokens[:50], tokens[50:300])
    whole = fitted.score(tokens)
    assert len(set(whole.tolist())) > 300
    for size in (1, 7, 100):
        parts = [fitted.score(tokens[start : start + size]) for start in range(0, len(tokens), size)]
        assert np.concatenate(parts).tobytes() == whole.tobytes()
    order = rng.permutation(len(tokens))
    assert fitted.score([tokens[place] for place in order]).tobytes() == whole[order].tobytes()


def test_a_fit_tells_its_requests_apart_by_ngrams_that_are_frequent_enough():
    fitted = fit(OWN, OTHERS)
    assert fitted.score(OWN).min() > fitted.score(OTHERS).max()
    assert "wake me at" in fitted.weights
    assert set(fit(OWN, OTHERS, RelevanceSettings(min_count=2)).weights) == {
        "wake", "me", "at", "six", "up", "wake me", "at six", "play",
    }  # fmt: skip


def test_files_keep_the_model():
    fitted = fit(OWN, OTHERS)
    files = fitted.files()
    again = RelevanceModel.from_files(json.loads(files[MODEL]), files[WEIGHTS])
    assert again.weights == fitted.weights
    assert again.score(OWN + OTHERS).tobytes() == fitted.score(OWN + OTHERS).tobytes()
    assert again.files() == files


def test_what_is_no_model_or_cannot_be_fitted_is_refused():
    files = fit(OWN, OTHERS).files()
    described = json.loads(files[MODEL])
    with pytest.raises(ValueError, match="format 2; expected 1"):
        RelevanceModel.from_files({**described, "format": 2}, files[WEIGHTS])
    with pytest.raises(ValueError, match=r"weights\.safetensors: "):
        RelevanceModel.from_files(described, files[WEIGHTS][:20])
    with pytest.raises(ValueError, match="weights of 1 n-grams"):
        RelevanceModel.from_files({**described, "grams": ["one"]}, files[WEIGHTS])
    for own, others in (([], OTHERS), (OWN, [])):
        with pytest.raises(UserError, match=f"{len(own)} requests of the function and {len(others)} others"):
            fit(own, others)
