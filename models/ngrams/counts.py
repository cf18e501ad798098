"""Counts of n-grams: words as numbers, text as n-grams, and the sort order by which counts are merged.

A sentence of words w1 ... wm is counted as lmplz does (Heafield et al., Scalable Modified Kneser-Ney Language Model
Estimation, ACL 2013): n-1 times ``<s>``, the words, ``</s>``, and one n-gram that ends at each word and at ``</s>``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.models.ngrams.arpa import BOS, EOS, UNK, packed
from gristmill.shards.errors import UserError
from gristmill.shards.random import mixed

SPECIALS = (UNK, BOS, EOS)
UNK_ID, BOS_ID, EOS_ID = range(3)
ORDERS = range(2, 7)  # KenLM's range
_IDS = 1 << 32


class Vocabulary:
    """A closed vocabulary: the numbers of its words.

    ``<unk>``, ``<s>`` and ``</s>`` are 0, 1 and 2, followed by the words in code-point order. An out-of-vocabulary word
    gets a number above all of these, a hash of its letters, so that every worker gives it the same one; hashes may
    collide.

    Raises:
        UserError: there is no word, or a word contains white space.
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted(set(words).difference(SPECIALS))
        if not self.words:
            raise UserError("n-gram model: the vocabulary is empty; expected at least one word")
        for word in self.words:
            if word.split() != [word] or "\0" in word:
                raise UserError(f"n-gram model: the vocabulary holds {word!r}; expected words without white space")
        self.names = [*SPECIALS, *self.words]
        self._array = pa.array(self.names, pa.string())

    @property
    def size(self) -> int:
        """Number of predictable words: those of the vocabulary, ``<unk>`` and ``</s>``."""
        return len(self.names) - 1

    @property
    def first_unknown(self) -> int:
        """The lowest number of an out-of-vocabulary word."""
        return len(self.names)

    def encode(self, words: pa.Array, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers (words,) uint32 of sentences with these lengths, and their lengths.

        Literal ``<unk>``, ``<s>`` and ``</s>`` and empty words are left out, like white space.
        """
        if isinstance(words, pa.ChunkedArray):
            words = words.combine_chunks()
        coded = words.cast(pa.string()).dictionary_encode()
        table = pc.index_in(coded.dictionary, value_set=self._array)
        numbers = pc.fill_null(table, -1).to_numpy(zero_copy_only=False).astype(np.int64)
        for place in np.flatnonzero(numbers < 0):
            letters = hashlib.blake2b(coded.dictionary[int(place)].as_py().encode(), digest_size=8).digest()
            drawn = int.from_bytes(letters, "little") % (_IDS - self.first_unknown)
            numbers[place] = self.first_unknown + drawn
        empty = pc.equal(coded.dictionary, "").to_numpy(zero_copy_only=False)
        ids = numbers[coded.indices.to_numpy(zero_copy_only=False)] if len(coded) else np.zeros(0, np.int64)
        out = np.isin(ids, range(len(SPECIALS)))
        if empty.any():
            out |= empty[coded.indices.to_numpy(zero_copy_only=False)]
        if out.any():
            sentence = np.repeat(np.arange(len(lengths)), lengths)
            lengths = np.bincount(sentence[~out], minlength=len(lengths))
            ids = ids[~out]
        return ids.astype(np.uint32), np.asarray(lengths, np.int64)

    def encode_texts(self, texts: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of texts' words, split at white space, and the texts' lengths; nulls are left out."""
        if isinstance(texts, pa.ChunkedArray):
            texts = texts.combine_chunks()
        split = split_words(texts)
        lengths = pc.list_value_length(split).to_numpy(zero_copy_only=False)
        return self.encode(pc.list_flatten(split), lengths)

    def encode_sentences(self, sentences: Iterable[Sequence[str]]) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of sentences given as words, and the sentences' lengths."""
        given = [list(sentence) for sentence in sentences]
        lengths = np.array([len(sentence) for sentence in given], np.int64)
        return self.encode(pa.array([word for sentence in given for word in sentence], pa.string()), lengths)


def split_words(texts: pa.Array) -> pa.Array:
    """Return the words of each non-null text; a list may begin and end with an empty word.

    A zero byte counts as white space, as in KenLM.
    """
    return pc.utf8_split_whitespace(pc.replace_substring(texts.drop_null().cast(pa.large_string()), "\0", " "))


@dataclass(frozen=True)
class Counts:
    """Distinct n-grams (n-grams, order) uint32 and their counts, int64, sorted by :func:`sort_keys`.

    They are sorted by the last two words' code, then by the preceding words, nearest first, so that n-grams with a
    common suffix are adjacent, and a range of codes is a range of rows.
    """

    grams: np.ndarray
    counts: np.ndarray

    def __len__(self) -> int:
        return len(self.grams)

    @property
    def codes(self) -> np.ndarray:
        """The code of each n-gram's last two words."""
        return pair_code(self.grams[:, -2], self.grams[:, -1])


def count(ids: np.ndarray, lengths: np.ndarray, order: int) -> Counts:
    """Count the n-grams of sentences, given as concatenated word numbers and the sentences' lengths."""
    padded = np.full(len(ids) + len(lengths) * order, BOS_ID, np.uint32)
    ends = np.cumsum(lengths + order)  # each sentence is order - 1 times <s>, its words, and </s>
    place = np.arange(len(ids)) + np.repeat((np.arange(len(lengths)) + 1) * order - 1, lengths)
    padded[place] = ids
    padded[ends - 1] = EOS_ID
    last = np.flatnonzero(padded != BOS_ID)
    grams = np.stack([padded[last - back] for back in reversed(range(order))], axis=1)
    return summed(grams, np.ones(len(grams), np.int64))


def merge(runs: Sequence[Counts], order: int) -> Counts:
    """Return the merged counts of several runs."""
    grams = [run.grams for run in runs] or [np.zeros((0, order), np.uint32)]
    return summed(np.concatenate(grams), np.concatenate([run.counts for run in runs] or [np.zeros(0, np.int64)]))


def summed(grams: np.ndarray, counts: np.ndarray) -> Counts:
    """Return sorted n-grams with the counts of equal ones summed."""
    if not len(grams):
        return Counts(grams, counts)
    keys = sort_keys(grams)
    order = np.lexsort(keys[::-1])
    first = np.zeros(len(order), bool)
    first[0] = True
    for key in keys:
        key = key[order]
        first[1:] |= key[1:] != key[:-1]
    starts = np.flatnonzero(first)
    return Counts(grams[order[starts]], np.add.reduceat(counts[order], starts))


def sort_keys(grams: np.ndarray) -> list[np.ndarray]:
    """Return uint64 sort keys of n-grams (n-grams, order), most significant first; equal keys mean equal n-grams."""
    left = [grams[:, place] for place in reversed(range(grams.shape[1] - 2))]
    keys = [pair_code(grams[:, -2], grams[:, -1])]
    for place in range(0, len(left) - 1, 2):
        keys.append(packed(left[place], left[place + 1]))
    if len(left) % 2:
        keys.append(left[-1].astype(np.uint64))
    return keys


def pair_code(before: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return an evenly distributed 64-bit code of two words: a step of SplitMix64, a bijection."""
    return mixed(packed(before, last) + np.uint64(0x9E3779B97F4A7C15))


def part_of(codes: np.ndarray, parts: int) -> np.ndarray:
    """Return which of ``parts`` ranges of equal width each code falls into."""
    return (((codes >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).astype(np.int64)
