"""MinHash signatures: finds texts that share most of their character n-grams without comparing all pairs.

Broder, "On the resemblance and containment of documents" (1997). The share of equal numbers in two signatures
estimates the Jaccard similarity of the texts' sets of character 4-grams; bands of it are equal where texts may be
similar (Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", chapter 3).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.shards.random import mixed

NUMBERS = 64  # of a signature
BANDS = 8
_GRAM = 4  # characters
_DRAWN = np.random.Generator(np.random.Philox(key=[4, 64])).integers(0, 1 << 63, (2, NUMBERS), dtype=np.uint64)
_ODD, _ADDED = (_DRAWN[0] << np.uint64(1)) | np.uint64(1), _DRAWN[1]


def signatures(texts: Sequence[str]) -> np.ndarray:
    """Return the signature of each text, (texts, 64) uint16."""
    if not texts:
        return np.zeros((0, NUMBERS), np.uint16)
    padded = [f" {text} ".ljust(_GRAM) for text in texts]
    characters = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, padded), np.int64, len(padded))
    grams = np.zeros(len(characters) - _GRAM + 1, np.uint64)
    for place in range(_GRAM):
        grams = grams * np.uint64(0x100000001B3) + characters[place : place + len(grams)]
    # N-grams that span two texts do not count.
    ends = np.cumsum(lengths)
    inside = np.ones(len(characters), bool)
    inside[(ends[:, None] - np.arange(1, _GRAM)).ravel()] = False
    grams = mixed(grams[inside[: len(grams)]])
    starts = np.concatenate([[0], np.cumsum(lengths - _GRAM + 1)[:-1]])
    out = np.empty((len(texts), NUMBERS), np.uint16)
    for number in range(NUMBERS):
        hashed = (grams * _ODD[number] + _ADDED[number]) >> np.uint64(32)
        # A minimum's upper bits are nearly always 0; its lower bits distinguish it from others.
        out[:, number] = np.minimum.reduceat(hashed, starts) & np.uint64(0xFFFF)
    return out


def bands(given: np.ndarray) -> np.ndarray:
    """Return one number for each band of signatures (N, 64), as (N, 8) uint64."""
    halves = np.ascontiguousarray(given, np.uint16).view(np.uint64).reshape(len(given), BANDS, -1)
    found = np.broadcast_to(np.arange(BANDS, dtype=np.uint64), halves.shape[:2])
    for place in range(halves.shape[2]):
        found = mixed(found ^ mixed(halves[:, :, place]) + np.uint64(place))
    return found


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the estimated Jaccard similarity of signatures, row by row, as (N,) float32.

    Example:
        >>> a, b, c = signatures(["turn on the lights", "turn on the light", "play some music"])
        >>> bool(similarity(a[None], b[None]) > 0.7), bool(similarity(a[None], c[None]) > 0.2)
        (True, False)
    """
    return (one == other).mean(axis=1, dtype=np.float32)
