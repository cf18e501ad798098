"""The nearest of many records, exactly: histograms of the distances of parts add up to that of the whole."""

from __future__ import annotations

import numpy as np

BINS = 1 << 22  # of a histogram: float32 numbers that differ only in their last 10 bits share one


def places(distances: np.ndarray) -> np.ndarray:
    """Return the bin of each distance (float32): nearer ones are never in a later bin."""
    bits = (np.asarray(distances, np.float32) + np.float32(0)).view(np.uint32)  # no -0
    # The bit patterns of negative numbers are in reverse order.
    ordered = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return (ordered >> np.uint32(10)).astype(np.int64)


def histogram(distances: np.ndarray) -> np.ndarray:
    """Return the number of distances in each bin, (BINS,) int64; histograms can be added."""
    return np.bincount(places(distances), minlength=BINS)


def border(counts: np.ndarray, number: int) -> tuple[int, int]:
    """Return the bin that holds the last of the ``number`` nearest, and how many of that bin are among them.

    ``number`` is from 1 to the total.
    """
    upto = np.cumsum(counts)
    place = int(np.searchsorted(upto, number))
    return place, number - int(upto[place - 1] if place else 0)
