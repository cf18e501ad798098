"""Choosing few of many requests that are worth most to learn from: different from each other, and unsure.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019) choose in batches what is the worst paraphrase
of the labelled requests, or by submodular coverage of n-grams. Facility location and the products of gains with the
uncertainty of a recogniser (Wei, Iyer and Bilmes, "Submodularity in data subset selection and active learning", ICML
2015) are beside them. :func:`choose_rows` chooses exactly, from requests in memory. How a set of any size is chosen
from is in :mod:`gristmill.actors.requests.diversity`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from gristmill.models.requests.grams import (
    GRID,
    LONGEST,
    RequestRows,
    bags,
    cosines,
    embedding_vectors,
    gram_vectors,
)
from gristmill.models.requests.submodular import Coverage, Facility, SubsetObjective, lazy_greedy
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Batch, Settings

Selector = Literal[
    "random",
    "top",
    "least_sure",
    "coverage",
    "facility_location",
    "k_centre",
    "worst_paraphrase",
    "unsure_coverage",
    "unsure_facility",
]
SCORED: tuple[Selector, ...] = ("random", "top", "least_sure")  # each request by itself
_COVERAGE: tuple[Selector, ...] = ("coverage", "unsure_coverage")
_FACILITY: tuple[Selector, ...] = ("facility_location", "unsure_facility")
COVERING: tuple[Selector, ...] = (*_COVERAGE, *_FACILITY)  # they have an objective that is to be large
_UNSURE: tuple[Selector, ...] = ("unsure_coverage", "unsure_facility", "least_sure")
_NOTHING = np.float32(-1)  # the similarity to what is there while there is nothing

PairSimilarity = Callable[[RequestRows, RequestRows], np.ndarray]
"""``similarity(rows, against)`` returns how alike the pairs of two sets of requests are, (rows, against), up to 1."""


class DiversitySettings(Settings):
    """A selector of requests, and how many it chooses: a ``count`` or a ``share``.

    Example:
        >>> DiversitySettings(selector="unsure_facility", share=0.25).budget(1000)
        250
    """

    selector: Selector
    """What is chosen. ``random``: a sample drawn by seed and id; ``top``: the least ``distance``; ``least_sure``: the
    least ``confidence``; ``coverage``: coverage of word n-grams; ``facility_location``: each request has a similar one
    among the chosen; ``k_centre``: in turn the request farthest from all that are there; ``worst_paraphrase``: the same
    in batches, by any similarity of pairs; ``unsure_coverage`` and ``unsure_facility``: gain x (1 - ``confidence``)."""
    count: int | None = Field(None, ge=1)
    """The number of requests to choose; if there are fewer, all are."""
    share: float | None = Field(None, gt=0, le=1)
    """The share of the requests to choose, at least one."""
    seed: int = 0
    """Seed of ``random``, of the parts of large sets and of the ground sample."""
    weights: tuple[PositiveFloat, ...] = Field((1.0, 1.0, 1.0), min_length=1, max_length=LONGEST)
    """The weight of word n-grams by their length, from one word on; as many lengths as there are weights are used."""
    features: Literal["auto", "embeddings", "ngrams"] = "auto"
    """What requests are compared by: cosines of their ``embedding`` or of their n-grams. ``auto``: embeddings where the
    requests have them."""
    batch: Batch = Field(20, ge=1)
    """Requests that ``worst_paraphrase`` adds at a time."""
    round_rows: int = Field(20_000, ge=1)
    """Requests that are chosen from at once, about: a larger set is cut into parts, drawn by id. Each part chooses, and
    of what the parts chose comes the result."""
    oversample: float = Field(8.0, ge=1)
    """How many times its share of the budget a part chooses at least; it chooses more as long as all that parts chose
    fits into a round, and never more than the whole budget."""
    ground_rows: int = Field(10_000, ge=1)
    """Requests that are to have a similar one among the chosen, by facility location: all, or a sample of this size.
    With a sample, choose fewer than that."""

    @model_validator(mode="after")
    def _one_budget(self) -> Self:
        if (self.count is None) == (self.share is None):
            given = "none" if self.count is None else f"count {self.count} and share {self.share:g}"
            raise ValueError(f"count and share: {given} given; expected one of them")
        return self

    def budget(self, rows: int) -> int:
        """Return how many of so many requests are chosen."""
        wanted = self.count if self.count is not None else max(1, round((self.share or 0) * rows))
        return min(rows, wanted)

    @property
    def has_ground(self) -> bool:
        """Whether the selector needs a ground set."""
        return self.selector in _FACILITY

    @property
    def is_unsure(self) -> bool:
        """Whether the selector needs the ``confidence`` of requests."""
        return self.selector in _UNSURE

    def by_embeddings(self, present: bool) -> bool:
        """Return whether requests are compared by embeddings, given whether they have them."""
        return self.selector not in (*_COVERAGE, *SCORED) and (
            self.features == "embeddings" or (self.features == "auto" and present)
        )


class Picked(NamedTuple):
    """Requests in the order of choice: ``places`` (chosen,) int64, and what each was worth then: ``gains``, float64."""

    places: np.ndarray
    gains: np.ndarray


def choose_rows(
    rows: RequestRows,
    count: int,
    settings: DiversitySettings,
    *,
    seeds: RequestRows | None = None,
    ground: RequestRows | None = None,
    similarity: PairSimilarity | None = None,
) -> Picked:
    """Choose ``count`` requests one after the other, exactly; of equal ones that with the smaller id.

    ``seeds`` are there from the start. ``ground`` is what facility location is to cover, by default all rows.
    ``similarity`` replaces the cosine of ``worst_paraphrase``. The gain of a request is what it adds to the objective,
    times its uncertainty if the selector says so; of ``k_centre`` and ``worst_paraphrase`` it is 1 - the similarity to
    what is nearest to it. Requests without a finite ``confidence`` or ``embedding`` that is needed are never chosen.

    Raises:
        UserError: rows lack what the selector needs, or vectors are not of equal and unit length.

    Example:
        >>> rows = RequestRows(["a", "b", "c"], [["wake", "me", "up"], ["wake", "me"], ["stop", "it"]])
        >>> chosen = choose_rows(rows, 2, DiversitySettings(selector="coverage", count=2))
        >>> chosen.places.tolist(), chosen.gains.tolist()
        ([0, 2], [6.0, 3.0])
    """
    if settings.selector in SCORED:
        raise ValueError(f"{settings.selector} needs no choice one after the other; expected another selector")
    places = _eligible(rows, settings)
    own = rows.take(places)
    if settings.selector in ("k_centre", "worst_paraphrase"):
        batch = settings.batch if settings.selector == "worst_paraphrase" else 1
        alike = _likeness(own, settings, seeds, similarity if settings.selector == "worst_paraphrase" else None)
        found = _farthest(len(own), count, batch, alike)
    else:
        factors = 1 - np.asarray(own.confidence, np.float64) if settings.is_unsure else None
        found = Picked(*lazy_greedy(_objective(own, settings, seeds, ground), count, factors))
    return Picked(places[found.places], found.gains)


def value(
    rows: RequestRows,
    chosen: np.ndarray,
    settings: DiversitySettings,
    *,
    seeds: RequestRows | None = None,
    ground: RequestRows | None = None,
    similarity: PairSimilarity | None = None,
) -> float:
    """Return the objective of the requests at some places, to compare ways to choose them by.

    Of the selectors by coverage and facility location it is theirs, with the seeds and whatever the confidence is. Of
    ``k_centre`` and ``worst_paraphrase`` it is the radius, which is to be small: the greatest distance (1 - similarity)
    of a request from what is nearest to it among the chosen and the seeds.

    Example:
        >>> rows = RequestRows(["a", "b"], [["wake", "me"], ["stop"]])
        >>> [value(rows, np.array(some), DiversitySettings(selector="coverage", count=1)) for some in ([0], [0, 1])]
        [3.0, 4.0]
    """
    if settings.selector in SCORED:
        raise ValueError(f"{settings.selector} has no objective; expected the selector whose objective is wanted")
    if settings.selector in ("k_centre", "worst_paraphrase"):
        alike = _likeness(rows, settings, seeds, similarity if settings.selector == "worst_paraphrase" else None)
        near = alike(None)
        for start in range(0, len(chosen), settings.batch):
            near = np.maximum(near, alike(np.asarray(chosen[start : start + settings.batch])))
        return float(1 - near.min(initial=1))
    objective = _objective(rows, settings, seeds, ground)
    for place in np.asarray(chosen).tolist():
        objective.add(place)
    return objective.value()


def _eligible(rows: RequestRows, settings: DiversitySettings) -> np.ndarray:
    """Return the places of the requests that can be chosen, in the order of their ids."""
    fit = np.ones(len(rows), bool)
    if settings.is_unsure:
        if rows.confidence is None:
            raise UserError(f"{settings.selector}: requests without confidence; expected that of a recogniser")
        fit &= np.isfinite(rows.confidence)
    if settings.by_embeddings(rows.embeddings is not None) and rows.embeddings is not None:
        fit &= np.isfinite(rows.embeddings).all(1) & rows.embeddings.any(1)
    order = np.array(sorted(range(len(rows)), key=rows.ids.__getitem__), np.int64)
    return order[fit[order]]


def _objective(
    rows: RequestRows, settings: DiversitySettings, seeds: RequestRows | None, ground: RequestRows | None
) -> SubsetObjective:
    if settings.selector in _COVERAGE:
        order = len(settings.weights)
        start = None if seeds is None else bags(_tokens(seeds, settings), order)
        return Coverage(bags(_tokens(rows, settings), order), settings.weights, start)
    parts = [rows, *([] if seeds is None else [seeds]), *([] if ground is None else [ground])]
    made = _vectors(settings, *parts)
    return Facility(made[0] if ground is None else made[-1], made[0], None if seeds is None else made[1])


def _tokens(rows: RequestRows, settings: DiversitySettings) -> Any:
    if rows.tokens is None:
        raise UserError(f"{settings.selector}: requests without tokens; expected their words")
    return rows.tokens


def _vectors(settings: DiversitySettings, *given: RequestRows) -> list[Any]:
    """Return the unit vectors of several sets of requests, by which they are compared."""
    if not settings.by_embeddings(given[0].embeddings is not None):
        own = [bags(_tokens(rows, settings), len(settings.weights)) for rows in given]
        return list(gram_vectors(own, settings.weights))
    made = []
    for rows in given:
        if rows.embeddings is None:
            raise UserError(
                f"{settings.selector}: requests without embedding beside others that have it; expected it of all, or "
                "`features: ngrams`"
            )
        made.append(embedding_vectors(np.nan_to_num(rows.embeddings)))
        if made[-1].shape[1] != made[0].shape[1]:
            raise UserError(
                f"{settings.selector}: embeddings of {made[0].shape[1]} and of {made[-1].shape[1]} dimensions; "
                "expected both from one model"
            )
    return made


_Likeness = Callable[[np.ndarray | None], np.ndarray]  # of each request to the nearest at some places, or to the seeds


def _likeness(
    rows: RequestRows, settings: DiversitySettings, seeds: RequestRows | None, similarity: PairSimilarity | None
) -> _Likeness:
    nothing = np.full(len(rows), _NOTHING)
    seeds = None if seeds is None or not len(seeds) else seeds
    if similarity is not None:

        def by_pairs(places: np.ndarray | None) -> np.ndarray:
            against = seeds if places is None else rows.take(places)
            return nothing if against is None else _nearest(rows, against, similarity)

        return by_pairs
    made = _vectors(settings, rows, *([] if seeds is None else [seeds]))

    def by_cosine(places: np.ndarray | None) -> np.ndarray:
        if places is None and seeds is None:
            return nothing
        against = made[1] if places is None else made[0][places]
        found = nothing.copy()
        for first in range(0, against.shape[0], 32):
            np.maximum(found, cosines(made[0], against[first : first + 32]).max(1) / np.float32(GRID**2), out=found)
        return found

    return by_cosine


def _nearest(rows: RequestRows, against: RequestRows, similarity: PairSimilarity, most: int = 4096) -> np.ndarray:
    """Return the similarity of each request to the nearest of some others, (rows,) float32."""
    found = []
    for start in range(0, len(rows), most):
        some = rows.take(range(start, min(len(rows), start + most)))
        alike = np.asarray(similarity(some, against), np.float32)
        if alike.shape != (len(some), len(against)):
            raise UserError(
                f"worst_paraphrase: the similarity of {len(some)} requests to {len(against)} has the shape "
                f"{alike.shape}; expected {(len(some), len(against))}"
            )
        found.append(alike.max(1))
    return np.concatenate([np.zeros(0, np.float32), *found])


def _farthest(rows: int, count: int, batch: int, alike: _Likeness) -> Picked:
    """Choose in turn the requests that are least like all that are there, ``batch`` at a time.

    Gonzalez, "Clustering to minimize the maximum intercluster distance" (1985): one at a time, the radius is at most
    twice the least possible. While nothing is there, one is chosen: all are equal.
    """
    near = alike(None)
    free = np.ones(rows, bool)
    places: list[int] = []
    gains: list[float] = []
    while len(places) < min(rows, count):
        number = min(batch if near.max() > _NOTHING else 1, min(rows, count) - len(places))
        own = _least(np.where(free, near, np.float32(np.inf)), number)
        places += own.tolist()
        gains += (1 - near[own].astype(np.float64)).tolist()
        free[own] = False
        if len(places) < min(rows, count):
            near = np.maximum(near, alike(own))
    return Picked(np.array(places, np.int64), np.array(gains, np.float64))


def _least(values: np.ndarray, number: int) -> np.ndarray:
    """Return the places of the least values in their order, the first of equal ones first."""
    if number == 1:
        return np.array([values.argmin()])
    limit = np.partition(values, number - 1)[number - 1]
    some = np.flatnonzero(values <= limit)
    return some[np.argsort(values[some], kind="stable")][:number]
