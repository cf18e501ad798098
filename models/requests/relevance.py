"""The relevance of requests to a new function: a logistic regression on their word n-grams.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019): a request's score is the sum of the weights of
its n-grams. The model is fitted on the few annotated requests of the function against requests of other ones, or
against the unlabelled pool itself: then what it estimates is the probability of being annotated, whose order is that
of relevance if the annotated requests are drawn at random (Elkan and Noto, KDD 2008).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from scipy import sparse

from gristmill.models.requests.logistic import balanced, logistic
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

FORMAT = 1
MODEL, WEIGHTS = "relevance.json", "weights.safetensors"


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
    """The weight of each n-gram and the bias, in log-odds."""

    def __init__(self, order: int, grams: Sequence[str], weights: np.ndarray, bias: float) -> None:
        if len(grams) != len(weights):
            raise ValueError(f"{len(weights)} weights of {len(grams)} n-grams")
        self.order, self.bias = order, float(bias)
        self.weights = dict(zip(grams, np.asarray(weights, np.float32).tolist(), strict=True))

    def score(self, tokens: Sequence[Sequence[str]]) -> np.ndarray:
        """Return the log-odds of requests, token lists: (requests,) float32. Of a request without any known n-gram it
        is the bias."""
        weight, order, bias = self.weights.get, self.order, self.bias
        sums = (sum(weight(gram, 0.0) for gram in ngrams(one, order)) for one in tokens)
        return np.fromiter((bias + value for value in sums), np.float32, len(tokens))

    def files(self) -> dict[str, bytes]:
        """Return the files of an artifact."""
        from safetensors.numpy import save

        weights = np.array(list(self.weights.values()), np.float32)
        described = {"format": FORMAT, "order": self.order, "bias": self.bias, "grams": list(self.weights)}
        return {MODEL: canonical.dumps(described), WEIGHTS: save({"weights": weights})}

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
            stored = load(weights)["weights"]
        except SafetensorError as error:
            raise ValueError(f"{WEIGHTS}: {error}") from None
        return cls(described["order"], described["grams"], stored, described["bias"])


def fit(
    own: Sequence[Sequence[str]], others: Sequence[Sequence[str]], settings: RelevanceSettings | None = None
) -> RelevanceModel:
    """Fit the relevance to some requests, token lists, against others; each of the two has half of the weight.

    Raises:
        UserError: there are none of one kind.

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
    return RelevanceModel(settings.order, vocabulary, weights[:, 1], bias[1])
