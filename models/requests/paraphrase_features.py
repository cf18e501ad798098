"""Features of pairs of requests, by which a paraphrase detector tells them apart.

Requests that differ in a value ("wake me at six", "wake me at nine") have nearly the same sentence embedding, so words
are weighted by how value-like they are: the share of a word's occurrences that lie inside slots. Of a domain that the
detector has not seen most values are new words; their share is that of the words of the same shape which were seen
once, as in Good-Turing estimation. All features are symmetric in the two requests.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gristmill.models.requests.templates import Annotated
from gristmill.shards.errors import UserError

SMOOTHING = 2.0  # occurrences that a word's shape counts for
GRAM = 3  # characters of the n-grams by which words are compared
MOST_WORDS = 40  # of a request; those beyond are not looked at
PAIRS = 1 << 11  # compared at once; their words are compared each with each
FEATURES = (
    "cosine",
    "value_dice",  # overlap of words weighted by how value-like they are
    "value_cover",  # the lesser of the two shares of the value-like weight that the other request has too
    "value_missing",  # the greater of the two weights that the other lacks
    "value_missing_less",
    "value_worst",  # how value-like the most value-like word is which the other lacks: the greater of the two
    "value_worst_less",
    "value_soft",  # as value_missing, words like one of the other's counting in part
    "value_soft_less",
    "carrier_dice",  # the same, weighted by how little value-like they are
    "carrier_cover",
    "carrier_missing",
    "carrier_missing_less",
    "carrier_soft",
    "carrier_soft_less",
    "dice",
    "bigram_dice",
    "ends",  # share of words in the common beginning and end
    "same_first",
    "length_ratio",
    "length",
)


class EmbeddedRequests(NamedTuple):
    """Requests as the detector compares them."""

    tokens: Sequence[Sequence[str]]
    vectors: np.ndarray  # (requests, dim), of length 1


class ValueWords:
    """How value-like words are: 0 for a word that is never inside a slot, 1 for one that always is.

    ``counts`` are (occurrences inside slots, all occurrences) by word in lower case, and ``shapes`` the shares of words
    by their shape; a shape that is not there has the share ``rest``.

    Example:
        >>> from gristmill.models.requests.templates import Span
        >>> request = Annotated("music", "play", ("play", "Seal"), (Span("artist", 1, 2),))
        >>> made = value_words([value_counts([request])])
        >>> round(made("seal"), 2), round(made("play"), 2)
        (0.67, 0.33)
    """

    def __init__(self, counts: Mapping[str, tuple[int, int]], shapes: Mapping[str, float], rest: float) -> None:
        self.counts, self.shapes, self.rest = dict(counts), dict(shapes), float(rest)

    def __call__(self, word: str) -> float:
        """Return the share of a word in lower case."""
        inside, every = self.counts.get(word, (0, 0))
        return (inside + SMOOTHING * self.shapes.get(shape(word), self.rest)) / (every + SMOOTHING)


def shape(word: str) -> str:
    """Return the shape of a word: whether it has a digit, other signs than letters, and its length."""
    if any(letter.isdigit() for letter in word):
        return "digit"
    return f"{'letters' if word.isalpha() else 'signs'} {min(len(word), 9)}"


Counts = Mapping[str, tuple[int, int]]


def value_counts(requests: Iterable[Annotated]) -> dict[str, tuple[int, int]]:
    """Return by word in lower case how often it is inside a slot, and how often it is there at all."""
    inside: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for request in requests:
        words = [token.lower() for token in request.tokens]
        every.update(words)
        for _, start, end in request.slots:
            inside.update(words[start:end])
    return {word: (inside[word], every[word]) for word in sorted(every)}


def value_words(counts: Iterable[Counts]) -> ValueWords:
    """Return how value-like words are by the counts of several domains."""
    inside: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for own in counts:
        for word, (within, number) in own.items():
            inside[word] += within
            every[word] += number
    once: dict[str, list[int]] = {}
    for word in sorted(every):
        if every[word] == 1:
            once.setdefault(shape(word), []).append(inside[word])
    seen = [one for own in once.values() for one in own]
    rest = (sum(seen) + 0.5) / (len(seen) + 1)
    shapes = {name: (sum(own) + SMOOTHING * rest) / (len(own) + SMOOTHING) for name, own in sorted(once.items())}
    return ValueWords({word: (inside[word], every[word]) for word in sorted(every)}, shapes, rest)


def pair_features(left: EmbeddedRequests, right: EmbeddedRequests, pairs: np.ndarray, values: ValueWords) -> np.ndarray:
    """Return the features of pairs of requests, (pairs, features) float32.

    ``pairs`` (pairs, 2) has the place of each pair's requests in ``left`` and in ``right``.

    Raises:
        UserError: the vectors of the two have different lengths, or not each request has one.
    """
    _check(left, right)
    made = [np.zeros((0, len(FEATURES)), np.float32)]
    for start in range(0, len(pairs), PAIRS):
        part = pairs[start : start + PAIRS]
        (own, i), (other, j) = (np.unique(column, return_inverse=True) for column in part.T)
        words = _Words([left.tokens[row] for row in own], [right.tokens[row] for row in other], values)
        u, v = (np.asarray(side.vectors)[rows].astype(np.float32) for side, rows in ((left, own), (right, other)))
        cosine = np.einsum("pd,pd->p", u[i], v[j])
        made.append(np.column_stack([cosine, *words.compare(i, j)]).astype(np.float32))
    return np.concatenate(made)


def _check(*sides: EmbeddedRequests) -> None:
    shapes = [np.shape(side.vectors) for side in sides]
    if any(len(own) != 2 or own[0] != len(side.tokens) for own, side in zip(shapes, sides, strict=True)):
        found = " and ".join(f"{len(side.tokens)} requests, vectors {np.shape(side.vectors)}" for side in sides)
        raise UserError(f"paraphrase: {found}; expected a vector of each request")
    if len({own[1] for own in shapes}) > 1:
        raise UserError(
            f"paraphrase: embeddings of {shapes[0][1]} and {shapes[1][1]} values; expected those of one model"
        )


class _Words:
    """The words of some requests, and how alike each word of the left ones is to each of the right ones."""

    def __init__(self, left: Sequence[Sequence[str]], right: Sequence[Sequence[str]], values: ValueWords) -> None:
        sides = [[[token.lower() for token in one][:MOST_WORDS] for one in side] for side in (left, right)]
        known = [sorted({word for one in side for word in one}) for side in sides]
        both = sorted({*known[0], *known[1]})
        self.numbers = {word: place for place, word in enumerate(both)}
        self.values = np.array([*map(values, both), 0.0])  # the last for places beyond the end of a request
        self.sides = [self._padded(side) for side in sides]
        local = [{self.numbers[word]: place for place, word in enumerate(own)} for own in known]
        lookups = []
        for own in local:
            lookup = np.full(len(both) + 1, len(own))
            lookup[list(own)] = list(own.values())
            lookups.append(lookup)
        self.lookups = lookups
        self.alike = np.zeros((len(known[0]) + 1, len(known[1]) + 1), np.float32)
        self.alike[:-1, :-1] = _alike(*known)

    def _padded(self, side: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the numbers of the words, (requests, longest), with -1 beyond the end."""
        made = np.full((len(side), max(map(len, side), default=0) or 1), -1)
        for row, words in enumerate(side):
            made[row, : len(words)] = [self.numbers[word] for word in words]
        return made

    def compare(self, i: np.ndarray, j: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the features of pairs (pairs,) of a request on the left and one on the right, all but the cosine."""
        x, y = self.sides[0][i], self.sides[1][j]
        equal = (x[:, :, None] == y[:, None, :]) & (x >= 0)[:, :, None]
        alike = self.alike[self.lookups[0][x][:, :, None], self.lookups[1][y][:, None, :]]
        alike = np.where(equal, 1.0, alike)
        found = equal.any(2), equal.any(1)
        best = alike.max(2), alike.max(1)
        weights = [np.where(side >= 0, self.values[side], 0.0) for side in (x, y)]
        lengths = [np.maximum((side >= 0).sum(1), 1) for side in (x, y)]
        for value in (True, False):
            own = [np.where(side >= 0, w if value else 1 - w, 0.0) for side, w in zip((x, y), weights, strict=True)]
            whole = [w.sum(1) for w in own]
            shared = [(w * f).sum(1) for w, f in zip(own, found, strict=True)]
            yield (shared[0] + shared[1] + 1e-3) / (whole[0] + whole[1] + 1e-3)
            yield np.minimum(*((s + 1e-3) / (w + 1e-3) for s, w in zip(shared, whole, strict=True)))
            yield from _both(*(np.log1p(w - s) for s, w in zip(shared, whole, strict=True)))
            if value:
                yield from _both(*((w * ~f).max(1) for w, f in zip(own, found, strict=True)))
            yield from _both(*(np.log1p((w * (1 - b)).sum(1)) for w, b in zip(own, best, strict=True)))
        yield (found[0].sum(1) + found[1].sum(1)) / (lengths[0] + lengths[1])
        after = equal[:, 1:, 1:] & equal[:, :-1, :-1]
        yield (after.any(2).sum(1) + after.any(1).sum(1)) / np.maximum(lengths[0] + lengths[1] - 2, 1)
        ends = _common(x, y) + _common(_reversed(x, lengths[0]), _reversed(y, lengths[1]))
        yield np.minimum(ends / np.maximum(lengths[0], lengths[1]), 1.0)
        yield (x[:, 0] == y[:, 0]).astype(float)
        yield np.abs(np.log(lengths[0] / lengths[1]))
        yield np.log(np.minimum(lengths[0], lengths[1]))


def _both(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.maximum(one, other), np.minimum(one, other)


def _common(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return the number of words in the common beginning of each pair."""
    width = min(x.shape[1], y.shape[1])
    same = (x[:, :width] == y[:, :width]) & (x[:, :width] >= 0)
    return np.cumprod(same, axis=1).sum(1)


def _reversed(rows: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    places = lengths[:, None] - 1 - np.arange(rows.shape[1])
    return np.where(places >= 0, np.take_along_axis(rows, np.maximum(places, 0), 1), -1)


def _alike(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """Return the Dice similarity of words by their character n-grams with marked ends, (left, right)."""
    from scipy import sparse

    grams: dict[str, int] = {}
    tables = []
    for words in (left, right):
        rows, columns = [], []
        for row, word in enumerate(words):
            marked = f"<{word}>"
            own = {marked[n : n + GRAM] for n in range(max(1, len(marked) - GRAM + 1))}
            rows += [row] * len(own)
            columns += [grams.setdefault(gram, len(grams)) for gram in sorted(own)]
        tables.append((rows, columns, len(words)))
    x, y = (
        sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(count, max(1, len(grams))))
        for rows, columns, count in tables
    )
    sizes = x.sum(1)[:, None] + y.sum(1)[None, :]
    return 2 * (x @ y.T).toarray() / np.maximum(sizes, 1)
