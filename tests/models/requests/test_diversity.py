"""Choices are those of the plain definitions, the same whatever the order of rows, and say what they lack."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest

from gristmill.models.requests.diversity import DiversitySettings, choose_rows, value
from gristmill.models.requests.grams import RequestRows
from gristmill.models.requests.relevance import ngrams
from gristmill.shards.errors import SettingsError, UserError
from tests.models.requests.diverse_rows import requests

GREEDY = (
    "coverage",
    "facility_location",
    "k_centre",
    "worst_paraphrase",
    "unsure_coverage",
    "unsure_facility",
)
ROWS, SEEDS = requests(60), requests(7, seed=3)


def settings(selector: str, **given: Any) -> DiversitySettings:
    return DiversitySettings(**{"selector": selector, "count": 1, **given})


def covered(rows: RequestRows, weights: tuple[float, ...]) -> float:
    """Coverage by its definition."""
    counts: dict[str, int] = {}
    for one in rows.tokens or []:
        for gram in ngrams(one, len(weights)):
            counts[gram] = counts.get(gram, 0) + 1
    return sum(weights[len(gram.split()) - 1] * math.sqrt(count) for gram, count in counts.items())


def joined(*given: RequestRows) -> RequestRows:
    return RequestRows(
        [name for rows in given for name in rows.ids],
        [tokens for rows in given for tokens in rows.tokens or []],
        np.concatenate([rows.embeddings for rows in given]),
        np.concatenate([rows.confidence for rows in given]),
    )


@pytest.mark.parametrize("seeds", [None, SEEDS])
@pytest.mark.parametrize("features", ["embeddings", "ngrams"])
@pytest.mark.parametrize("selector", ["coverage", "facility_location", "unsure_coverage", "unsure_facility"])
def test_lazy_greedy_is_greedy(selector: str, features: str, seeds: RequestRows | None) -> None:
    how = settings(selector, features=features, weights=(1, 0.5))
    found = choose_rows(ROWS, 5, how, seeds=seeds)
    chosen: list[int] = []
    for place, gain in zip(found.places.tolist(), found.gains.tolist(), strict=True):
        before = value(ROWS, np.array(chosen, int), how, seeds=seeds)
        gains = [value(ROWS, np.array([*chosen, one]), how, seeds=seeds) - before for one in range(len(ROWS))]
        gains = np.array(gains) * ((1 - ROWS.confidence) if how.is_unsure else 1)
        gains[chosen] = -1
        assert gain == pytest.approx(gains.max(), abs=1e-6)
        assert place == np.flatnonzero(gains > gains.max() - 1e-9)[0], "of equal ones the smallest id"
        chosen.append(place)


@pytest.mark.parametrize("seeds", [None, SEEDS])
def test_the_objectives_are_their_definitions(seeds: RequestRows | None) -> None:
    some = [3, 8, 21]
    whole = ROWS.take(some) if seeds is None else joined(ROWS.take(some), seeds)
    how = settings("coverage", weights=(1.0, 2.0, 0.5))
    assert value(ROWS, np.array(some), how, seeds=seeds) == pytest.approx(covered(whole, how.weights), abs=1e-6)
    cosine = ROWS.embeddings.astype(float) @ whole.embeddings.astype(float).T
    found = value(ROWS, np.array(some), settings("facility_location"), seeds=seeds)
    assert found == pytest.approx(np.maximum(cosine.max(1), 0).sum(), abs=0.03)
    radius = value(ROWS, np.array(some), settings("k_centre"), seeds=seeds)
    assert radius == pytest.approx(1 - cosine.max(1).min(), abs=2e-3)


@pytest.mark.parametrize("selector", GREEDY)
@pytest.mark.parametrize("features", ["embeddings", "ngrams"])
def test_the_order_of_rows_does_not_matter(selector: str, features: str) -> None:
    how = settings(selector, features=features, batch=4)
    first = choose_rows(ROWS, 20, how, seeds=SEEDS, ground=SEEDS)
    order = np.random.default_rng(5).permutation(len(ROWS))
    other = choose_rows(ROWS.take(order), 20, how, seeds=SEEDS, ground=SEEDS)
    assert order[other.places].tolist() == first.places.tolist()
    assert other.gains.tolist() == first.gains.tolist()


@pytest.mark.parametrize("features", ["embeddings", "ngrams"])
def test_the_farthest_is_next(features: str) -> None:
    how = settings("k_centre", features=features)
    places = choose_rows(ROWS, 10, how, seeds=SEEDS).places.tolist()
    assert choose_rows(
        ROWS, 10, settings("worst_paraphrase", features=features, batch=1), seeds=SEEDS
    ).places.tolist() == (places)
    radii = [value(ROWS, np.array(places[:number]), how, seeds=SEEDS) for number in range(11)]
    assert radii == sorted(radii, reverse=True)
    assert choose_rows(ROWS, 10, how, seeds=SEEDS).gains == pytest.approx(radii[:10], abs=1e-6)


def test_the_radius_is_at_most_twice_the_least() -> None:
    few = ROWS.take(range(12))
    how = settings("k_centre")
    found = choose_rows(few, 3, how).places
    angles = [np.arccos(1 - value(few, np.array(some), how)) for some in (*combinations(range(12), 3), found)]
    assert angles[-1] <= 2 * min(angles)


def test_a_batch_is_what_is_least_alike_by_the_given_similarity() -> None:
    asked: list[tuple[int, int]] = []

    def similarity(rows: RequestRows, against: RequestRows) -> np.ndarray:
        asked.append((len(rows), len(against)))
        return np.array([[float(a[-2:] == b[-2:]) - int(a[1:]) / 1e4 for b in against.ids] for a in rows.ids])

    found = choose_rows(ROWS, 7, settings("worst_paraphrase", batch=3), seeds=SEEDS, similarity=similarity)
    assert found.places.tolist() == [59, 58, 57, 56, 55, 54, 53]
    assert asked == [(60, 7), (60, 3), (60, 3)], "the last batch is compared with nothing"
    alone = choose_rows(ROWS, 4, settings("worst_paraphrase", batch=3), similarity=similarity)
    assert alone.places[0] == 0, "while nothing is there, all are equal"
    with pytest.raises(UserError, match=r"has the shape \(60,\); expected \(60, 7\)"):
        choose_rows(ROWS, 2, settings("worst_paraphrase"), seeds=SEEDS, similarity=lambda a, b: np.zeros(len(a)))


def test_what_lacks_a_number_is_never_chosen() -> None:
    confidence, embeddings = ROWS.confidence.copy(), ROWS.embeddings.copy()
    confidence[:30], embeddings[20:40] = np.nan, np.nan
    embeddings[50] = 0
    rows = replace(ROWS, confidence=confidence, embeddings=embeddings)
    found = choose_rows(rows, 60, settings("unsure_facility"))
    assert sorted(found.places.tolist()) == [*range(40, 50), *range(51, 60)]
    assert len(choose_rows(rows, 60, settings("coverage")).places) == 60
    assert np.isfinite(found.gains).all()


@pytest.mark.parametrize("selector", GREEDY)
def test_more_than_there_are_is_all_and_of_none_none(selector: str) -> None:
    assert sorted(choose_rows(ROWS, 100, settings(selector)).places.tolist()) == [*range(60)]
    assert choose_rows(ROWS.take([]), 3, settings(selector), seeds=SEEDS).places.tolist() == []
    assert choose_rows(ROWS, 3, settings(selector), seeds=SEEDS.take([])).places.tolist() == (
        choose_rows(ROWS, 3, settings(selector)).places.tolist()
    )


def test_what_is_missing_is_told() -> None:
    words = RequestRows(ROWS.ids, ROWS.tokens)
    with pytest.raises(UserError, match="unsure_coverage: requests without confidence"):
        choose_rows(words, 3, settings("unsure_coverage"))
    with pytest.raises(UserError, match="requests without tokens"):
        choose_rows(RequestRows(ROWS.ids), 3, settings("coverage"))
    with pytest.raises(UserError, match="requests without embedding beside others"):
        choose_rows(ROWS, 3, settings("k_centre"), seeds=words)
    short = replace(SEEDS, embeddings=np.eye(7, 5, dtype=np.float16) + np.float16(0))
    short.embeddings[5:, 0] = 1
    with pytest.raises(UserError, match="embeddings of 12 and of 5 dimensions"):
        choose_rows(ROWS, 3, settings("k_centre"), seeds=short)
    with pytest.raises(ValueError, match="top needs no choice"):
        choose_rows(ROWS, 3, settings("top"))
    with pytest.raises(ValueError, match="random has no objective"):
        value(ROWS, np.array([1]), settings("random"))


def test_budgets() -> None:
    assert [DiversitySettings(selector="top", share=0.25).budget(rows) for rows in (0, 1, 10, 1000)] == [0, 1, 2, 250]
    assert [DiversitySettings(selector="top", count=5).budget(rows) for rows in (0, 3, 10)] == [0, 3, 5]
    with pytest.raises(SettingsError, match="count and share: none given; expected one of them"):
        DiversitySettings(selector="top")
    with pytest.raises(SettingsError, match=r"count 3 and share 0.5 given; expected one of them"):
        DiversitySettings(selector="top", count=3, share=0.5)
    with pytest.raises(SettingsError, match="selector: 'farest' is not right; expected"):
        DiversitySettings(selector="farest", count=3)
