"""N-grams of requests are those of the relevance filter, and products of their vectors are exact."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.requests.grams import (
    GRID,
    LONGEST,
    bags,
    cosines,
    embedding_vectors,
    gram_vectors,
    lengths,
)
from gristmill.models.requests.relevance import ngrams
from gristmill.shards.errors import UserError
from tests.models.requests.diverse_rows import requests

TOKENS = [["Wake", "me", "up", "wake", "me", "up"], [], ["wake"], ["me", "UP"], ["up", "wake"]]


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_ngrams_are_the_distinct_ones_of_each_request(order: int) -> None:
    found = bags(TOKENS, order)
    assert np.diff(found.ends).tolist() == [len(ngrams(one, order)) for one in TOKENS]
    sets = [set(found.codes[a:b].tolist()) for a, b in zip(found.ends, found.ends[1:], strict=False)]
    for one, own in zip(TOKENS, sets, strict=True):
        for other, its in zip(TOKENS, sets, strict=True):
            assert len(own & its) == len({*ngrams(one, order)} & {*ngrams(other, order)})
    words = [sorted(len(gram.split()) for gram in ngrams(one, order)) for one in TOKENS]
    assert [sorted(lengths(np.array([*own], np.uint64)).tolist()) for own in sets] == words


def test_codes_depend_on_nothing_else() -> None:
    alone, among = bags([["wake", "me"]], 2), bags([["stop"], ["wake", "me"]], 2)
    assert alone.codes.tolist() == among.codes[1:].tolist()
    assert len(bags([], 3)) == 0
    with pytest.raises(ValueError, match="expected 1 to"):
        bags(TOKENS, LONGEST + 1)


def test_cosines_of_ngrams() -> None:
    (own,) = gram_vectors([bags(TOKENS, 2)], (1.0, 0.5))
    found = cosines(own, own) / GRID**2
    assert np.allclose(np.diag(found), [1, 0, 1, 1, 1], atol=2e-3)
    # wake / me up: no n-gram is shared. me up / up wake: one word of two words and a pair.
    assert found[2, 3] == 0
    assert found[3, 4] == pytest.approx(1 / (1 + 1 + 0.25), abs=2e-3)


def test_products_of_embeddings_are_exact_in_any_order() -> None:
    vectors = embedding_vectors(requests(50).embeddings)
    whole = (vectors.astype(np.int64) @ vectors.astype(np.int64).T).astype(np.float64)
    assert (cosines(vectors, vectors) == whole).all()
    assert (cosines(vectors[:, ::-1], vectors[:, ::-1]) == whole).all()
    assert all((cosines(vectors[[place]], vectors)[0] == whole[place]).all() for place in range(50))


def test_a_vector_of_another_length_is_refused() -> None:
    with pytest.raises(UserError, match="length 2; expected vectors of unit length"):
        embedding_vectors(np.array([[1.0, 0.0], [0.0, 2.0], [0.0, 1.0]], np.float16))


def test_rows_are_taken_column_by_column() -> None:
    rows = requests(20)
    some = rows.take([3, 1])
    assert (some.ids, some.tokens) == (["r0003", "r0001"], [rows.tokens[3], rows.tokens[1]])
    assert (some.embeddings == rows.embeddings[[3, 1]]).all()
    assert some.confidence.tolist() == rows.confidence[[3, 1]].tolist()
