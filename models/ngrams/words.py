"""The words of a compact n-gram store: numbered in the order of a hash of their letters, found without an index.

Hashes are spread evenly, so the place of a word among n in their order is about its hash's fraction of n: no table is
needed beside the sorted hashes, and any set of words has numbers that are spread evenly, which the arcs of states
rely on (:func:`gristmill.models.ngrams.lookup.find`). The letters are compared, so that no word is taken for
another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.models.kernels import kernel


class WordTable(NamedTuple):
    """Words by number: the upper halves of their hashes, their letters (UTF-8) one behind the other, and their ends."""

    hashes: np.ndarray
    """uint32 (words,), sorted."""
    ends: np.ndarray
    """int64 (words + 1,): 0, then where the letters of each word end."""
    letters: np.ndarray
    """uint8."""

    def __len__(self) -> int:
        return len(self.hashes)

    def name(self, number: int) -> str:
        """Return the word of a number."""
        return self.letters[self.ends[number] : self.ends[number + 1]].tobytes().decode()

    def names(self) -> list[str]:
        """Return all words, by number."""
        ends, letters = pa.py_buffer(self.ends), pa.py_buffer(self.letters)
        return pa.LargeStringArray.from_buffers(len(self), ends, letters).to_pylist()

    def find(self, words: Sequence[str] | pa.Array, unknown: int) -> np.ndarray:
        """Return the numbers (words,) int32 of words; ``unknown`` for those that are not here, and for nulls."""
        ends, letters = buffers(words)
        found = np.empty(len(ends) - 1, np.int32)
        _find_all(*self, ends, letters, unknown, found)
        return found


def number_words(words: Sequence[str]) -> tuple[WordTable, np.ndarray]:
    """Return the table of distinct words, and the number of each."""
    ends, letters = buffers(words)
    hashes = np.empty(len(words), np.uint64)
    _hash_all(ends, letters, hashes)
    order = np.argsort(hashes, kind="stable")
    numbers = np.empty(len(words), np.uint32)
    numbers[order] = np.arange(len(words), dtype=np.uint32)
    ends, letters = buffers(pa.array(words, pa.large_string()).take(pa.array(order)))
    return WordTable((hashes[order] >> np.uint64(32)).astype(np.uint32), ends, letters), numbers


def buffers(words: Sequence[str] | pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends (words + 1,) int64 and the letters, uint8, of strings, which Arrow holds in this form."""
    array = words if isinstance(words, pa.Array) else pa.array(words, pa.large_string())
    array = array.cast(pa.large_string())
    if array.null_count:
        array = array.fill_null("")
    ends = np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]
    held = array.buffers()[2]
    letters = np.frombuffer(held, np.uint8) if held is not None and held.size else np.zeros(1, np.uint8)
    letters.flags.writeable = False  # one type for the compiled functions
    return ends, letters


@kernel
def hashed(letters, begin, end):
    """Return the hash of letters, uint64: FNV-1a, then the finaliser of SplitMix64, as FNV's upper bits are weak."""
    value = np.uint64(0xCBF29CE484222325)
    for place in range(begin, end):
        value = (value ^ np.uint64(letters[place])) * np.uint64(0x100000001B3)
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@kernel
def _hash_all(ends, letters, hashes):
    for word in range(len(hashes)):
        hashes[word] = hashed(letters, ends[word], ends[word + 1])


@kernel
def _find_all(hashes, own_ends, own_letters, ends, letters, unknown, found):
    count = len(hashes)
    for word in range(len(found)):
        begin, end = ends[word], ends[word + 1]
        wanted = np.int64(hashed(letters, begin, end) >> np.uint64(32))
        at = (wanted * count) >> 32
        while at > 0 and np.int64(hashes[at - 1]) >= wanted:
            at -= 1
        while at < count and np.int64(hashes[at]) < wanted:
            at += 1
        found[word] = unknown
        while at < count and np.int64(hashes[at]) == wanted:
            if own_ends[at + 1] - own_ends[at] == end - begin:
                same = True
                for place in range(end - begin):
                    if own_letters[own_ends[at] + place] != letters[begin + place]:
                        same = False
                        break
                if same:
                    found[word] = at
                    break
            at += 1
