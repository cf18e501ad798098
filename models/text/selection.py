"""Selection of in-domain-like data: mergeable moments, and distances from them.

The moments of parts, computed independently on a cluster, merge into those of the whole.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np

Metric = Literal["cosine", "mahalanobis"]


@dataclass
class Moments:
    """The number of vectors, their sum and, for a covariance, the sum of their outer products (float64)."""

    count: int
    total: np.ndarray  # (dim,)
    outer: np.ndarray | None = None  # (dim, dim)

    @staticmethod
    def of(vectors: np.ndarray, *, covariance: bool = False) -> Moments:
        """Return the moments of vectors (N, dim); zero vectors are not counted."""
        given = unit(vectors)
        given = given[np.any(given, axis=1)]
        return Moments(len(given), given.sum(axis=0), given.T @ given if covariance else None)

    def merged(self, other: Moments) -> Moments:
        """Return the moments of both sets of vectors."""
        outer = None if self.outer is None or other.outer is None else self.outer + other.outer
        return Moments(self.count + other.count, self.total + other.total, outer)

    def centroid(self) -> Centroid:
        """Return the mean and, for a covariance, its inverse.

        A sample covariance of few vectors is singular: it is shrunk towards a sphere by the coefficient that Chen,
        Wiesel, Eldar and Hero derive for Gaussian vectors ("Shrinkage algorithms for MMSE covariance estimation",
        2010).

        Raises:
            ValueError: there are no vectors, or fewer than two for a covariance.
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
        if trace <= 0:  # all vectors are equal: every direction counts the same
            shrunk = np.eye(size)
        return Centroid(mean, np.linalg.inv(shrunk))


@dataclass(frozen=True)
class Centroid:
    """The mean of a set of vectors (dim,) and, for Mahalanobis distances, the inverse covariance (dim, dim)."""

    mean: np.ndarray
    precision: np.ndarray | None = None

    def distances(self, vectors: np.ndarray) -> np.ndarray:
        """Return the distances (N,) float32 of vectors (N, dim): 1 - cosine (0 to 2), or Mahalanobis.

        The distance of a zero vector is infinite.
        """
        given = unit(vectors)
        none = ~np.any(given, axis=1)
        if self.precision is None:
            # einsum's summation order of a row does not depend on the other rows.
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
    """Load the centroid stored by :meth:`Centroid.files`."""
    return Centroid(_array(mean), None if precision is None else _array(precision))


def unit(vectors: np.ndarray) -> np.ndarray:
    """Return vectors (N, dim) normalised to length 1, as float64; zero or non-finite vectors become 0."""
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
