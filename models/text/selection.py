"""Selection of what is like an in-domain set: moments that merge, distances from them, and exact shares by histogram.

A cluster can sum each part by itself: moments and histograms of parts merge into those of the whole.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

Metric = Literal["cosine", "mahalanobis"]

BINS = 1 << 22  # of a histogram: float32 numbers that are equal but for their last 10 bits share one


@dataclass
class Moments:
    """How many vectors there are, their sum, and, for a covariance, the sum of their outer products (float64)."""

    count: int
    total: np.ndarray  # (dim,)
    outer: np.ndarray | None = None  # (dim, dim)

    @staticmethod
    def of(vectors: np.ndarray, *, covariance: bool = False) -> Moments:
        """Return the moments of vectors (N, dim); those of length 0 are not counted."""
        given = unit(vectors)
        given = given[np.any(given, axis=1)]
        return Moments(len(given), given.sum(axis=0), given.T @ given if covariance else None)

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both sets of vectors."""
        outer = None if self.outer is None or other.outer is None else self.outer + other.outer
        return Moments(self.count + other.count, self.total + other.total, outer)

    def centroid(self) -> Centroid:
        """Return the mean, and of a covariance its inverse.

        A sample covariance of few vectors cannot be inverted: it is shrunk towards a sphere as far as Chen, Wiesel,
        Eldar and Hero found best for normal vectors ("Shrinkage algorithms for MMSE covariance estimation", 2010).

        Raises:
            ValueError: there are no vectors, or of a covariance less than two.
        """
        if self.count < (1 if self.outer is None else 2):
            raise ValueError(f"{self.count} vectors")
        mean = self.total / self.count
        if self.outer is None:
            return Centroid(mean)
        sample = self.outer / self.count - np.outer(mean, mean)
        size, trace, squares = len(mean), np.trace(sample), float((sample**2).sum())
        above = (1 - 2 / size) * squares + trace**2
        below = (self.count + 1 - 2 / size) * (squares - trace**2 / size)
        share = 1.0 if below <= 0 else min(1.0, above / below)
        shrunk = (1 - share) * sample + share * (trace / size) * np.eye(size)
        if trace <= 0:  # all vectors are equal: every direction is as far
            shrunk = np.eye(size)
        return Centroid(mean, np.linalg.inv(shrunk))


@dataclass(frozen=True)
class Centroid:
    """The middle of a set of vectors (dim,), and the inverse of their covariance (dim, dim), if that counts."""

    mean: np.ndarray
    precision: np.ndarray | None = None

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Return how far vectors (N, dim) are, as (N,) float32: 1 - cosine (0 to 2), or the Mahalanobis distance.

        A vector of length 0 has no direction: it is infinitely far.
        """
        given = unit(vectors)
        none = ~np.any(given, axis=1)
        if self.precision is None:
            # einsum adds in an order of its own for each row, whatever the other rows are.
            far = 1 - np.einsum("nd,d->n", given, unit(self.mean[None])[0])
        else:
            apart = given - self.mean
            far = np.sqrt(np.maximum(0, np.einsum("nd,nd->n", apart @ self.precision, apart)))
        found = np.maximum(0, far).astype(np.float32)
        found[none] = np.inf
        return found

    def files(self) -> dict[str, bytes]:
        """Return the files of an artifact."""
        files = {"centroid.npy": _npy(self.mean)}
        return files if self.precision is None else {**files, "precision.npy": _npy(self.precision)}


def load_centroid(mean: bytes, precision: bytes | None) -> Centroid:
    """Return what :meth:`Centroid.files` gave."""
    return Centroid(_array(mean), None if precision is None else _array(precision))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, dim) of length 1, as float64; those that are 0 or not finite as 0."""
    given = np.asarray(vectors, np.float64)
    length = np.linalg.norm(given, axis=1, keepdims=True)
    good = np.isfinite(length) & (length > 0)
    return np.where(good, given / np.where(good, length, 1.0), 0.0)


def _npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(values), allow_pickle=False)
    return out.getvalue()


def _array(data: bytes) -> np.ndarray:
    return np.load(io.BytesIO(data), allow_pickle=False)


def places(distances: np.ndarray) -> np.ndarray:
    """Return the bin of each distance (float32): nearer ones are never in a later bin."""
    bits = (np.asarray(distances, np.float32) + np.float32(0)).view(np.uint32)  # no -0
    # Numbers below 0 count down as their bits count up.
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(10)).astype(np.int64)


def histogram(distances: np.ndarray) -> np.ndarray:
    """Return how many distances are in each bin, (BINS,) int64; histograms add up."""
    return np.bincount(places(distances), minlength=BINS)


def border(counts: np.ndarray, number: int) -> tuple[int, int]:
    """Return the bin in which the ``number`` nearest end, and how many of that bin belong to them.

    ``number``: from 1 to how many there are.
    """
    upto = np.cumsum(counts)
    place = int(np.searchsorted(upto, number))
    return place, number - int(upto[place - 1] if place else 0)
