"""Requests as the objectives of a selection see them: codes of their word n-grams, and unit vectors on a grid.

The coordinates of vectors are whole multiples of 1/2048, and so is what float32 has of them: then the products of
vectors are exact, in whatever order a processor, a GPU or several threads add them up, and no choice depends on that.
A cosine is off by some 0.0005, as that of float16 vectors is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse

from gristmill.shards.errors import UserError
from gristmill.shards.random import mixed

GRID = 2048  # steps of a coordinate: a product of unit vectors is below 2^24, up to which float32 is exact
LONGEST = 8  # words of an n-gram: its length is in the lowest bits of its code
_LENGTH = np.uint64(LONGEST - 1)
_STEP = np.uint64(0x9E3779B97F4A7C15)
_ROWS = 1 << 16  # requests whose n-grams are sorted at a time
_UNIT = (0.8, 1.25)  # of the squared length of what is taken for a unit vector


@dataclass(frozen=True, eq=False)  # arrays are not simply equal
class RequestRows:
    """Some requests, column by column; what a selector does not need may be missing.

    ``tokens`` are lists of words, ``embeddings`` are (rows, dim) of unit length, ``confidence`` and ``distance`` are
    (rows,); smaller distances are more relevant.
    """

    ids: Sequence[str]
    tokens: Sequence[Sequence[str]] | None = None
    embeddings: np.ndarray | None = None
    confidence: np.ndarray | None = None
    distance: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, places: Sequence[int] | np.ndarray) -> RequestRows:
        """Return the rows at some places, in that order.

        Example:
            >>> RequestRows(["a", "b"], [["on"], ["off"]]).take([1])
            RequestRows(ids=['b'], tokens=[['off']], embeddings=None, confidence=None, distance=None)
        """
        own = [int(place) for place in places]
        arrays = {
            name: None if values is None else values[own]
            for name, values in (
                ("embeddings", self.embeddings),
                ("confidence", self.confidence),
                ("distance", self.distance),
            )
        }
        tokens = None if self.tokens is None else [self.tokens[place] for place in own]
        return replace(self, ids=[self.ids[place] for place in own], tokens=tokens, **arrays)


@dataclass(frozen=True)
class Bags:
    """The distinct word n-grams of requests: ``codes`` (n-grams,) uint64, each request's sorted; those of request n are
    ``codes[ends[n]:ends[n + 1]]``."""

    codes: np.ndarray
    ends: np.ndarray

    def __len__(self) -> int:
        return len(self.ends) - 1

    @property
    def lengths(self) -> np.ndarray:
        """The number of words of each n-gram."""
        return lengths(self.codes)


def lengths(codes: np.ndarray) -> np.ndarray:
    """Return the number of words of the n-grams with some codes."""
    return (codes & _LENGTH).astype(np.int64) + 1


def bags(tokens: Sequence[Sequence[str]], order: int) -> Bags:
    """Return the n-grams of up to ``order`` words of requests, in lower case.

    A code is a hash of 61 bits of the words, and the length. Two n-grams of 10^8 share one with a probability of 0.002.

    Example:
        >>> found = bags([["Wake", "me", "up"], ["wake", "me"], []], 2)
        >>> found.ends.tolist(), sorted(found.lengths[:5].tolist())
        ([0, 5, 8, 8], [1, 1, 1, 2, 2])
        >>> set(found.codes[5:8].tolist()) < set(found.codes[:5].tolist())
        True
    """
    if not 1 <= order <= LONGEST:
        raise ValueError(f"n-grams of up to {order} words; expected 1 to {LONGEST}")
    known: dict[str, int] = {}
    codes, counts = [], []
    for start in range(0, len(tokens), _ROWS):
        own, numbers = _bags(tokens[start : start + _ROWS], order, known)
        codes.append(own)
        counts.append(numbers)
    ends = np.concatenate([np.zeros(1, np.int64), *counts]).cumsum()
    return Bags(np.concatenate([np.zeros(0, np.uint64), *codes]), ends)


def _bags(tokens: Sequence[Sequence[str]], order: int, known: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of some requests, and how many each has."""
    flat = [word for one in tokens for word in one]
    for word in set(flat) - known.keys():
        known[word] = int.from_bytes(hashlib.blake2b(word.lower().encode(), digest_size=8).digest(), "little")
    words = np.fromiter((known[word] for word in flat), np.uint64, len(flat))
    row = np.repeat(np.arange(len(tokens)), [len(one) for one in tokens])
    found, rows, code = [], [], words
    for length in range(1, order + 1):
        if length > 1:
            code = mixed(code[:-1] * _STEP + words[length - 1 :])
            row_of = row[: len(code)]
            inside = row_of == row[length - 1 :]
        else:
            row_of, inside = row, np.ones(len(row), bool)
        found.append(((code & ~_LENGTH) | np.uint64(length - 1))[inside])
        rows.append(row_of[inside])
    codes, own = np.concatenate(found), np.concatenate(rows)
    order_of = np.lexsort((codes, own))
    codes, own = codes[order_of], own[order_of]
    new = np.ones(len(codes), bool)
    new[1:] = (codes[1:] != codes[:-1]) | (own[1:] != own[:-1])
    return codes[new], np.bincount(own[new], minlength=len(tokens))


def gram_vectors(given: Sequence[Bags], weights: Sequence[float]) -> list[sparse.csr_array]:
    """Return the vectors of the n-grams of several sets of requests, each (requests, n-grams) float32 in grid steps.

    An n-gram has the weight of its length; the columns are those of the n-grams that any of the sets has.
    """
    columns = np.unique(np.concatenate([one.codes for one in given]))
    made = []
    for one in given:
        values = np.asarray(weights, np.float64)[one.lengths - 1]
        row = np.repeat(np.arange(len(one)), np.diff(one.ends))
        norms = np.sqrt(np.bincount(row, values**2, len(one)))
        steps = np.rint(GRID * values / norms[row]).astype(np.float32)
        places = np.searchsorted(columns, one.codes).astype(np.int32)
        made.append(sparse.csr_array((steps, places, one.ends), shape=(len(one), len(columns))))
    return made


def embedding_vectors(embeddings: np.ndarray) -> np.ndarray:
    """Return vectors of unit length in grid steps: (rows, dim) float32.

    Raises:
        UserError: a vector has another length.
    """
    steps = np.rint(np.asarray(embeddings, np.float32) * GRID)
    squares = np.einsum("ij,ij->i", steps, steps, dtype=np.float64) / GRID**2
    wrong = np.flatnonzero((squares < _UNIT[0]) | (squares > _UNIT[1]))
    if len(wrong):
        raise UserError(
            f"an embedding has length {squares[wrong[0]] ** 0.5:.3g}; expected vectors of unit length (divide each by "
            "its norm)"
        )
    return steps


def cosines(some: Any, others: Any) -> np.ndarray:
    """Return the products of vectors, in steps of 1/``GRID``² : (some, others) float32, exact."""
    return products(some, across(others))


def across(vectors: Any) -> Any:
    """Return vectors as columns, as :func:`products` takes them: what is used again and again is turned once."""
    return vectors.T.tocsr() if sparse.issparse(vectors) else vectors.T


def products(some: Any, columns: Any) -> np.ndarray:
    """Return what :func:`cosines` does, given the others as columns."""
    found = some @ columns
    return found.toarray() if sparse.issparse(found) else found
