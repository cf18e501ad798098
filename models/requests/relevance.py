"""The relevance of requests to a new function: a logistic regression on their word n-grams.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019): a request's score is the sum of the weights of
its n-grams. The model is fitted on the few annotated requests of the function against requests of other ones, or
against the unlabelled pool itself: then what it estimates is the probability of being annotated, whose order is that
of relevance if the annotated requests are drawn at random (Elkan and Noto, KDD 2008).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse

from gristmill.models.nlu.logistic import balanced, logistic
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

FORMAT = 1
MODEL, WEIGHTS = "relevance.json", "weights.safetensors"
_VECTOR_C = 10.0  # inverse regularisation on embeddings, whose length is 1
_TOKENS = pa.list_(pa.string())


class RelevanceSettings(Settings):
    """The relevance model."""

    order: PositiveInt = 3
    """Longest word n-grams."""
    c: PositiveFloat = 1.0
    """Inverse regularisation of the logistic regression."""
    min_count: PositiveInt = 1
    """Least number of requests with an n-gram for it to be a feature."""
    iterations: PositiveInt = 300
    """Most iterations of the solver."""
    embedding: NonNegativeFloat = 0.0
    """Weight of a second score, the log-odds by sentence embeddings, beside that of n-grams (0: none)."""


def ngrams(tokens: Sequence[str], order: int) -> list[str]:
    """Return the distinct word n-grams of a request, in lower case.

    Example:
        >>> ngrams(["Wake", "me", "up"], 2)
        ['wake', 'me', 'up', 'wake me', 'me up']
    """
    words = [token.lower() for token in tokens]
    found = dict.fromkeys(words)
    for size in range(2, order + 1):
        found.update(dict.fromkeys(map(" ".join, zip(*(words[start:] for start in range(size)), strict=False))))
    return list(found)


class RelevanceModel:
    """The weight of each n-gram and the bias, in log-odds.

    ``vector`` (1 + dim,) are the bias and the weights of sentence embeddings, if there is a second score.
    """

    def __init__(
        self, order: int, grams: Sequence[str], weights: np.ndarray, bias: float, vector: np.ndarray | None = None
    ) -> None:
        if len(grams) != len(weights):
            raise ValueError(f"{len(weights)} weights of {len(grams)} n-grams")
        self.order, self.bias = order, float(bias)
        self.vector = None if vector is None else np.asarray(vector, np.float32)
        self.weights = dict(zip(grams, np.asarray(weights, np.float32).tolist(), strict=True))
        self._index = _GramIndex(self.weights, order)

    def score(self, tokens: pa.ListArray | Sequence[Sequence[str]], vectors: np.ndarray | None = None) -> np.ndarray:
        """Return the log-odds of requests, token lists: (requests,) float32. Of a request without any known n-gram it
        is the bias. ``vectors`` (requests, dim) are their embeddings, for a model that reads them. The score of a
        request is the same bytes beside any others.

        Raises:
            UserError: there are no embeddings, or of another dimension.
        """
        rows, grams = self._index.find(tokens if isinstance(tokens, pa.Array) else pa.array(tokens, _TOKENS))
        # One after the other in float64, those of a request in the order of the index.
        sums = np.bincount(rows, self._index.weights[grams], len(tokens))
        return (self.bias + sums + self._second(vectors)).astype(np.float32)

    def _second(self, vectors: np.ndarray | None) -> np.ndarray | float:
        if self.vector is None:
            return 0.0
        dim = len(self.vector) - 1
        if vectors is None or vectors.shape[1:] != (dim,):
            given = "none" if vectors is None else f"of {vectors.shape[1]}"
            raise UserError(f"relevance: the model reads embeddings of {dim} numbers; given {given}")
        products = vectors.astype(np.float64) * self.vector[1:]
        return self.vector[0] + products.sum(1)

    def files(self) -> dict[str, bytes]:
        """Return the files of an artifact."""
        from safetensors.numpy import save

        tensors = {"weights": np.array(list(self.weights.values()), np.float32)}
        if self.vector is not None:
            tensors["vector"] = self.vector
        described = {"format": FORMAT, "order": self.order, "bias": self.bias, "grams": list(self.weights)}
        return {MODEL: canonical.dumps(described), WEIGHTS: save(tensors)}

    @classmethod
    def from_files(cls, described: dict[str, Any], weights: bytes) -> RelevanceModel:
        """Return the model stored in files.

        Raises:
            ValueError: they are of another format, or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.numpy import load

        if described.get("format") != FORMAT:
            raise ValueError(f"{MODEL}: format {described.get('format')}; expected {FORMAT}")
        try:
            stored = load(weights)
        except SafetensorError as error:
            raise ValueError(f"{WEIGHTS}: {error}") from None
        given = described["order"], described["grams"], stored["weights"], described["bias"]
        return cls(*given, stored.get("vector"))


class _GramIndex:
    """The n-grams of a model as numbers, by which those of many requests are found at once.

    An n-gram's key is made of the number of the n-gram without its last word, and of that word's. A word that is in no
    n-gram of the model is dropped before any n-gram is looked for; most words of irrelevant requests are.
    """

    def __init__(self, weights: Mapping[str, float], order: int) -> None:
        split = [tuple(gram.split(" ")) for gram in weights]
        # With what they begin with, which a model need not have: its weight is 0.
        grams = {gram[:size] for gram in split for size in range(1, len(gram) + 1)}
        words = sorted({word for gram in grams for word in gram})
        self._words = {word: number for number, word in enumerate(words)}
        numbers: dict[tuple[str, ...], int] = {(word,): number for word, number in self._words.items()}
        self._keys: list[np.ndarray] = []  # of each size from 2, in order: the places of keys are those of n-grams
        self._starts: list[int] = []  # the number of the first n-gram of each size
        for size in range(2, order + 1):
            own = {numbers[gram[:-1]] * len(words) + self._words[gram[-1]]: gram for gram in grams if len(gram) == size}
            self._starts.append(len(numbers))
            self._keys.append(np.array(sorted(own), np.int64))
            numbers |= {own[key]: len(numbers) + place for place, key in enumerate(sorted(own))}
        self.weights = np.zeros(max(1, len(numbers)))
        for gram, weight in zip(split, weights.values(), strict=True):
            if gram in numbers:  # not if it is longer than the order
                self.weights[numbers[gram]] = weight

    def find(self, tokens: pa.ListArray) -> tuple[np.ndarray, np.ndarray]:
        """Return the distinct n-grams of requests that the model knows, sorted: (their requests, their numbers)."""
        lengths = np.asarray(pc.fill_null(pc.list_value_length(tokens), 0))
        met = tokens.flatten().dictionary_encode(null_encoding="encode")
        known = np.array([self._words.get(word.lower(), -1) for word in met.dictionary.to_pylist()], np.int64)
        words = known[np.asarray(met.indices)]
        rows = np.repeat(np.arange(len(lengths)), lengths)
        ends = np.flatnonzero(words >= 0)  # the last word of each n-gram that is found
        grams = words[ends]
        found = [(rows[ends], grams)]
        for keys, start in zip(self._keys, self._starts, strict=True):
            # One word more, if it is of the same request; of a word that is not known no key is.
            inside = ends + 1 < len(rows)
            ends, grams = ends[inside] + 1, grams[inside]
            inside = (rows[ends] == rows[ends - 1]) & (words[ends] >= 0)
            ends, grams = ends[inside], grams[inside]
            wanted = grams * len(self._words) + words[ends]
            places = np.searchsorted(keys, wanted)
            hits = np.flatnonzero(keys[np.minimum(places, len(keys) - 1)] == wanted) if len(keys) else places[:0]
            ends, grams = ends[hits], start + places[hits]
            found.append((rows[ends], grams))
        each = len(self.weights)
        every = np.sort(np.concatenate([rows * each + grams for rows, grams in found]))
        distinct = every[np.diff(every, prepend=-1) > 0]  # np.unique takes ten times as long
        return distinct // each, distinct % each


def fit(
    own: Sequence[Sequence[str]],
    others: Sequence[Sequence[str]],
    settings: RelevanceSettings | None = None,
    vectors: np.ndarray | None = None,
) -> RelevanceModel:
    """Fit the relevance to some requests, token lists, against others; each of the two has half of the weight.

    ``vectors`` (requests, dim) are the embeddings of both, if the settings ask for a second score.

    Raises:
        UserError: there are none of one kind, or no embeddings.

    Example:
        >>> model = fit([["wake", "me", "at", "six"]], [["play", "me", "a", "song"]])
        >>> [round(float(one), 1) for one in model.score([["wake", "me"], ["play", "me"]])]
        [0.4, -0.4]
    """
    if not own or not others:
        raise UserError(f"relevance: {len(own)} requests of the function and {len(others)} others; expected both")
    settings = settings or RelevanceSettings()
    found = [ngrams(tokens, settings.order) for tokens in [*own, *others]]
    counts = Counter(gram for grams in found for gram in grams)
    vocabulary = sorted(gram for gram, count in counts.items() if count >= settings.min_count)
    places = {gram: place for place, gram in enumerate(vocabulary)}
    indices = [[places[gram] for gram in grams if gram in places] for grams in found]
    ends = np.cumsum([0, *map(len, indices)])
    flat = np.array([place for one in indices for place in one], np.int64)
    rows = sparse.csr_array((np.ones(len(flat)), flat, ends), shape=(len(found), len(vocabulary)))
    labels = (np.arange(len(found)) < len(own)).astype(int)
    even = balanced(np.ones(len(own)), len(others))
    weights, bias, _ = logistic(rows, labels, settings.c, "lbfgs", settings.iterations, even)
    vector = None
    if settings.embedding:
        if vectors is None:
            raise UserError(f"relevance: no embeddings; expected some, as `embedding` is {settings.embedding:g}")
        second, base, _ = logistic(
            sparse.csr_array(vectors.astype(np.float64)), labels, _VECTOR_C, "lbfgs", settings.iterations, even
        )
        vector = settings.embedding * np.concatenate([base[1:], second[:, 1]])
    return RelevanceModel(settings.order, vocabulary, weights[:, 1], bias[1], vector)
