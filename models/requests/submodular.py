"""Objectives of diverse subsets, and lazy greedy selection by them.

Both objectives are monotone and submodular: what a request adds to a set is never more than what it adds to a smaller
one. So the gain that a request once had bounds the one that it has now, and few gains are computed anew (Minoux,
"Accelerated greedy algorithms for maximizing submodular set functions", 1978). The set found has at least 1 - 1/e,
63 %, of the best objective (Nemhauser, Wolsey and Fisher, 1978).

Gains are whole numbers of a fine grid, so their sums are exact: a tie is one on every machine.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from gristmill.models.requests.grams import GRID, Bags, across, lengths, products

_FINE = 1 << 32  # steps of a gain of coverage
_CELLS = 1 << 22  # numbers computed at a time
_MOST = 512  # gains computed anew at a time


class SubsetObjective(ABC):
    """An objective of subsets of some requests, and the subset that is chosen so far."""

    rows: int
    """The number of requests."""

    @abstractmethod
    def gains(self, places: np.ndarray) -> np.ndarray:
        """Return what each of some requests would add to the objective, (places,) float64."""

    @abstractmethod
    def add(self, place: int) -> None:
        """Add a request to the subset."""

    @abstractmethod
    def value(self) -> float:
        """Return the objective of the subset."""


class Coverage(SubsetObjective):
    """Coverage of word n-grams: f(S) = sum of w_g sqrt(c_g(S)) over n-grams g, of which c_g(S) requests of S have one.

    Lin and Bilmes, "A class of submodular functions for document summarization" (ACL 2011). The weight w_g is that of
    the length of g.

    Args:
        given: The n-grams of the requests to choose from.
        weights: The weight of n-grams of each length, from one word on.
        start: The n-grams of requests that are in the subset from the start.

    Example:
        >>> from gristmill.models.requests.grams import bags
        >>> given = bags([["on"], ["on"], ["off"]], 1)
        >>> coverage = Coverage(given, [1.0])
        >>> coverage.add(0)
        >>> coverage.gains(np.array([1, 2])).round(3).tolist(), coverage.value()
        ([0.414, 1.0], 1.0)
    """

    def __init__(self, given: Bags, weights: Sequence[float], start: Bags | None = None) -> None:
        before = np.zeros(0, np.uint64) if start is None else start.codes
        codes, index = np.unique(np.concatenate([given.codes, before]), return_inverse=True)
        self.rows = len(given)
        self._ends, self._index = given.ends, index[: len(given.codes)].astype(np.int32)
        counts = np.bincount(index[len(given.codes) :], minlength=len(codes))
        most = len(given) + (0 if start is None else len(start)) + 1
        roots = np.sqrt(np.arange(most + 1, dtype=np.float64))
        # What one more request adds, by the length of the n-gram and its count: `_at` says where that is.
        self._table = np.rint(_FINE * np.outer(weights, np.diff(roots))).astype(np.int64).ravel()
        self._first = (lengths(codes) - 1) * most
        self._at = self._first + counts
        self._weights, self._most = np.asarray(weights, np.float64), most

    def gains(self, places: np.ndarray) -> np.ndarray:
        """Return what each of some requests would add."""
        found = np.empty(len(places), np.float64)
        for start in range(0, len(places), _CELLS >> 6):
            own = places[start : start + (_CELLS >> 6)]
            first, numbers = self._ends[own], self._ends[own + 1] - self._ends[own]
            ends = numbers.cumsum()
            flat = np.repeat(first - ends + numbers, numbers) + np.arange(ends[-1] if len(ends) else 0)
            sums = np.concatenate([np.zeros(1, np.int64), self._table[self._at[self._index[flat]]].cumsum()])
            found[start : start + len(own)] = sums[ends] - sums[ends - numbers]
        return found / _FINE

    def add(self, place: int) -> None:
        """Add a request to the subset."""
        self._at[self._index[self._ends[place] : self._ends[place + 1]]] += 1  # its n-grams are distinct

    def value(self) -> float:
        """Return the objective of the subset, with what was in it from the start."""
        counts = self._at - self._first
        steps = np.rint(_FINE * self._weights[self._first // self._most] * np.sqrt(counts))
        return float(steps.astype(np.int64).sum()) / _FINE


class Facility(SubsetObjective):
    """Facility location: f(S) = sum over requests v of the ground set of their similarity to the nearest of S.

    f(S) = sum_v max(0, max_{u in S} cos(v, u)): each request is to have one like it among the chosen (Lin and Bilmes,
    2011). ``ground`` (ground, dim), ``given`` (rows, dim) and ``start`` (any, dim) are vectors of
    :mod:`gristmill.models.requests.grams`, dense or sparse.

    Example:
        >>> vectors = np.array([[1, 0], [0, 1], [0.8, 0.6]], np.float32) * GRID
        >>> facility = Facility(vectors, vectors)
        >>> facility.gains(np.arange(3)).round(2).tolist()
        [1.8, 1.6, 2.4]
        >>> facility.add(2)
        >>> round(facility.value(), 2)
        2.4
    """

    def __init__(self, ground: Any, given: Any, start: Any = None) -> None:
        self.rows = given.shape[0]
        self._ground, self._given = across(ground), given
        self._width = max(1, _CELLS // max(1, ground.shape[0]))
        self._best = np.zeros(ground.shape[0], np.float32)
        for first in range(0, 0 if start is None else start.shape[0], self._width):
            np.maximum(self._best, products(start[first : first + self._width], self._ground).max(0), out=self._best)

    def gains(self, places: np.ndarray) -> np.ndarray:
        """Return what each of some requests would add."""
        found = np.empty(len(places), np.float64)
        for start in range(0, len(places), self._width):
            more = products(self._given[places[start : start + self._width]], self._ground)
            more -= self._best
            np.maximum(more, 0, out=more)
            found[start : start + len(more)] = more.sum(1, dtype=np.float64)
        return found / GRID**2

    def add(self, place: int) -> None:
        """Add a request to the subset."""
        np.maximum(self._best, products(self._given[[place]], self._ground)[0], out=self._best)

    def value(self) -> float:
        """Return the objective of the subset, with what was in it from the start."""
        return float(self._best.sum(dtype=np.float64)) / GRID**2


def lazy_greedy(
    objective: SubsetObjective, count: int, factors: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of ``count`` requests in the order of choice, (count,) int64, and their gains, (count,).

    In turn the request with the greatest gain, times its factor if there are any (at least 0), is added to the subset;
    of equal ones the first. That is what computing each gain anew would choose.

    Example:
        >>> from gristmill.models.requests.grams import bags
        >>> places, gains = lazy_greedy(Coverage(bags([["on"], ["on"], ["off"]], 1), [1.0]), 3)
        >>> places.tolist(), gains.round(3).tolist()
        ([0, 2, 1], [1.0, 1.0, 0.414])
    """
    factors = np.ones(objective.rows) if factors is None else np.asarray(factors, np.float64)
    bounds = objective.gains(np.arange(objective.rows)) * factors
    heap = list(zip((-bounds).tolist(), range(objective.rows), strict=True))
    heapq.heapify(heap)
    fresh = np.zeros(objective.rows, np.int64)  # how many were chosen when the gain was computed
    chosen: list[int] = []
    gains: list[float] = []
    width = 1
    while heap and len(chosen) < count:
        # One by one, the calls would cost more than the numbers: as many gains are computed as lately were needed.
        stale: list[int] = []
        while heap and len(stale) < width and fresh[heap[0][1]] < len(chosen):
            stale.append(heapq.heappop(heap)[1])
        if stale:
            places = np.array(stale)
            found = objective.gains(places) * factors[places]
            fresh[places] = len(chosen)
            for place, gain in zip(stale, found.tolist(), strict=True):
                heapq.heappush(heap, (-gain, place))
            width = min(_MOST, 2 * width)
            continue
        gain, place = heapq.heappop(heap)
        objective.add(place)
        chosen.append(place)
        gains.append(-gain)
        width = max(1, width // 4)
    return np.array(chosen, np.int64), np.array(gains, np.float64)
