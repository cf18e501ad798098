"""The paraphrase detector: its features, files, errors; that the order of a pair and of a batch does not matter."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gristmill.models.requests.paraphrase import MODEL, WEIGHTS, DetectorSettings, ParaphraseDetector
from gristmill.models.requests.paraphrase_features import (
    FEATURES,
    EmbeddedRequests,
    pair_features,
    shape,
    value_counts,
    value_words,
)
from gristmill.models.requests.templates import annotated
from gristmill.shards.errors import UserError
from tests.models.nlu.domain_examples import requests

TOKENS = [
    ["wake", "me", "at", "noon"],
    ["wake", "me", "at", "midnight"],
    ["Set", "an", "alarm", "for", "noon"],
    ["set", "alarms", "for", "noon"],
    [],
    ["wake"] * 60,
]


def rows(tokens=TOKENS, dim=8):
    vectors = np.random.default_rng(0).normal(size=(len(tokens), dim))
    return EmbeddedRequests(tokens, (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16))


def values():
    return value_words([value_counts(annotated(row) for row in requests())])


def features(left, right):
    made = rows()
    (found,) = pair_features(made, made, np.array([[left, right]]), values())
    return dict(zip(FEATURES, found.tolist(), strict=True))


def detector(**settings):
    torch.manual_seed(0)
    return ParaphraseDetector(DetectorSettings(**settings), values(), 8)


def test_values_are_told_from_other_words():
    found = values()
    assert found("noon") > 0.6
    assert found("wake") < 0.2
    assert found("the") < found("attic")
    assert [shape(word) for word in ("7am", "noon", "o'clock", "unbelievable")] == [
        "digit",
        "letters 4",
        "signs 7",
        "letters 9",
    ]


def test_another_value_and_another_template_are_seen():
    value, template = features(0, 1), features(0, 2)
    assert value["carrier_dice"] > 0.85
    assert value["value_worst"] > 0.6 > 0.4 > template["value_worst_less"]
    assert template["value_dice"] > 0.5 > value["value_dice"]
    assert features(0, 0)["cosine"] == pytest.approx(1, abs=1e-2)
    assert (features(0, 0)["dice"], features(0, 0)["ends"], features(0, 4)["dice"]) == (1, 1, 0)
    near = features(2, 3)  # alarm, alarms
    assert near["carrier_soft_less"] < near["carrier_missing_less"]


@pytest.mark.parametrize("vectors", ["cosine", "differences"])
def test_the_order_of_a_pair_and_the_batch_do_not_matter(vectors):
    made, given = detector(vectors=vectors), rows()
    whole = made.similarity(given, given)
    assert whole.shape == (6, 6)
    assert whole.dtype == np.float32
    np.testing.assert_allclose(whole, whole.T, atol=1e-6)
    one = EmbeddedRequests(TOKENS[1:2], given.vectors[1:2])
    np.testing.assert_allclose(made.similarity(one, given)[0], whole[1], atol=1e-6)
    assert made.similarity(EmbeddedRequests([], np.zeros((0, 8))), given).shape == (0, 6)


def test_its_files_are_read_again():
    made = detector()
    files = made.files()
    again = ParaphraseDetector.from_files(json.loads(files[MODEL]), files[WEIGHTS])
    assert again.files() == files == detector().files()
    np.testing.assert_array_equal(again.similarity(rows(), rows()), made.similarity(rows(), rows()))
    with pytest.raises(ValueError, match=r"paraphrase.json: format 2"):
        ParaphraseDetector.from_files(json.loads(files[MODEL]) | {"format": 2}, files[WEIGHTS])
    with pytest.raises(ValueError, match=r"weights.safetensors: "):
        ParaphraseDetector.from_files(json.loads(files[MODEL]), files[WEIGHTS][:50])


def test_vectors_of_another_model_are_refused():
    made = detector()
    with pytest.raises(UserError, match=r"vectors of shape \(6, 4\); expected 8 values each"):
        made.similarity(rows(dim=4), rows())
    with pytest.raises(UserError, match=r"6 requests, vectors \(5, 8\).*expected a vector of each request"):
        made.similarity(EmbeddedRequests(TOKENS, rows().vectors[:5]), rows())
    with pytest.raises(UserError, match=r"4 and 8 values; expected those of one model"):
        pair_features(rows(dim=4), rows(), np.array([[0, 0]]), values())
