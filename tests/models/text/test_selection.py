"""Moments of parts merge into those of the whole; distances match their definitions."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.text.selection import Moments, load_centroid, unit


def vectors(number: int, size: int = 6, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(number, size)) * np.arange(1, size + 1) + 2).astype(np.float16)


def test_moments_merge() -> None:
    given = vectors(100)
    whole = Moments.of(given, covariance=True)
    parts = [Moments.of(part, covariance=True) for part in np.array_split(given, 7)]
    merged = parts[0]
    for part in parts[1:]:
        merged = merged.merged(part)
    assert merged.count == 100
    assert np.allclose(merged.centroid().mean, unit(given).mean(axis=0))
    assert np.allclose(merged.centroid().precision, whole.centroid().precision)


def test_covariance_is_shrunk_and_can_be_inverted() -> None:
    many, few = vectors(20000), vectors(4)
    apart = unit(many) - unit(many).mean(axis=0)
    sample = apart.T @ apart / len(many)
    # Vectors of length 1 are on a sphere with one dimension less: the last direction is shrunk most.
    assert np.allclose(np.linalg.inv(Moments.of(many, covariance=True).centroid().precision), sample, atol=1e-3)
    precision = Moments.of(few, covariance=True).centroid().precision
    assert precision is not None
    assert np.isfinite(precision).all()
    assert (np.linalg.eigvalsh(precision) > 0).all()
    same = Moments.of(np.ones((3, 4)), covariance=True).centroid()
    assert np.allclose(same.distances(np.ones((1, 4))), 0, atol=1e-6)


def test_distances() -> None:
    middle = Moments.of(np.array([[1.0, 0], [0, 3]])).centroid()
    found = middle.distances(np.array([[1, 1], [2, 0], [-1, -1], [0, 0], [np.nan, 1]]))
    assert found.dtype == np.float32
    assert np.allclose(found, [0, 1 - np.sqrt(0.5), 2, np.inf, np.inf], atol=1e-6)
    given = vectors(50)
    wide = Moments.of(given, covariance=True).centroid()
    apart = unit(given)[:1] - wide.mean
    assert wide.precision is not None
    assert np.allclose(wide.distances(given)[0], np.sqrt(apart @ wide.precision @ apart.T))
    again = load_centroid(wide.files()["centroid.npy"], wide.files()["precision.npy"])
    assert np.array_equal(again.distances(given), wide.distances(given))


def test_too_few_vectors() -> None:
    for count, covariance in ((0, False), (1, True)):
        with pytest.raises(ValueError, match=f"{count} vectors"):
            Moments.of(vectors(count), covariance=covariance).centroid()
