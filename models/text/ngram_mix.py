"""Mixtures of n-gram models: weights by EM, and several models as one.

The probability of a mixture is the weighted sum of its models' (Jelinek and Mercer, 1980). The single model lists every
n-gram that any of them lists, with the mixture's probability; its back-offs are recomputed so that each context's
probabilities sum to 1. It differs from the mixture where no model lists an n-gram (static interpolation, as in SRILM).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gristmill.models.ngrams.arpa import Arpa, Grams, packed
from gristmill.shards.errors import UserError

_LEAST = 1e-99


def em_weights(logprobs: np.ndarray, *, iterations: int = 200, tolerance: float = 1e-7) -> np.ndarray:
    """Return weights (models,) that sum to 1 and maximise the likelihood of a development text.

    ``logprobs`` is (models, tokens): natural logarithms of the probability of each token.

    Raises:
        ValueError: there are no tokens.

    Example:
        >>> logprobs = np.log([[0.5, 0.1, 0.6], [0.1, 0.4, 0.2]])
        >>> em_weights(logprobs).round(2).tolist()
        [0.77, 0.23]
    """
    if not logprobs.size:
        raise ValueError("weights of a mixture: the models know none of the development text's words")
    scaled = np.exp(logprobs - logprobs.max(axis=0))
    weights = np.full(len(logprobs), 1.0 / len(logprobs))
    for _ in range(iterations):
        shares = weights[:, None] * scaled
        better = (shares / shares.sum(axis=0)).mean(axis=1)
        change = np.abs(better - weights).max()
        weights = better / better.sum()
        if change < tolerance:
            break
    return weights


def mixture_logprobs(logprobs: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the mixture's natural log-probabilities (tokens,); see :func:`em_weights`."""
    most = logprobs.max(axis=0)
    return most + np.log(weights @ np.exp(logprobs - most))


def mix(models: Sequence[Arpa], weights: Sequence[float]) -> Arpa:
    """Return one model that approximates the mixture of several over one vocabulary.

    Raises:
        UserError: the vocabularies differ, a model lists an n-gram without its ends, or the weights do not sum to 1.
    """
    shares = np.asarray(weights, np.float64)
    if len(shares) != len(models) or (shares < 0).any() or abs(shares.sum() - 1) > 1e-6:
        raise UserError(f"mixture: weights are {list(weights)}; expected {len(models)} shares that sum to 1")
    words = list(models[0].words)
    for model in models[1:]:
        if set(model.words) != set(words):
            unlike = sorted(set(model.words) ^ set(words))[:3]
            raise UserError(
                f"mixture: the models have different vocabularies (only one of them has {', '.join(unlike)}); "
                "estimate them on the same one"
            )
    number = {word: place for place, word in enumerate(words)}
    places = [np.array([number[word] for word in model.words], np.uint32) for model in models]
    order = max(model.order for model in models)
    union = _Union(len(words))
    sides = [_Side(model, own, len(words)) for model, own in zip(models, places, strict=True)]
    chances = [sum(share * 10.0**side.logprob for share, side in zip(shares, sides, strict=True))]
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # words, suffix and context of each order from 2
    for size in range(2, order + 1):
        found = union.grow([side.grams(size) for side in sides])
        for side in sides:
            side.grow(size, *found, union)
        rows.append(found)
        chances.append(sum(share * 10.0**side.logprob for share, side in zip(shares, sides, strict=True)))
    return Arpa(words, _grams(chances, rows))


def _grams(chances: list[np.ndarray], rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> list[Grams]:
    """Return the n-grams of a model with these probabilities, and back-offs by which contexts sum to 1."""
    found = []
    for place, chance in enumerate(chances):
        words = rows[place - 1][0] if place else np.arange(len(chance), dtype=np.uint32)[:, None]
        backoff = None
        if place < len(rows):
            _, suffix, context = rows[place]
            listed = np.bincount(context, chances[place + 1], len(chance))
            below = np.bincount(context, chance[suffix], len(chance))
            left = np.maximum(1.0 - listed, 0.0) / np.maximum(1.0 - below, _LEAST)
            # Where every word is listed there is no back-off, and the remaining masses are rounding errors.
            left[(1.0 - below < 1e-9) | (listed == 0)] = 1.0
            backoff = _log10(left)
        found.append(Grams(words, np.minimum(_log10(chance), np.float32(0)), backoff))
    return found


def _log10(values: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(values, _LEAST)).astype(np.float32)


class _Union:
    """The n-grams of all models, order by order; a row is identified by its suffix's row and its first word."""

    def __init__(self, words: int) -> None:
        self.keys: list[np.ndarray] = []
        self.words = words

    def row(self, grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of n-grams (n-grams, order), and whether they are present."""
        row = grams[:, -1].astype(np.int64)
        there = np.ones(len(grams), bool)
        for place in range(grams.shape[1] - 1):
            row, found = _find(self.keys[place], packed(row, grams[:, -2 - place]))
            there &= found
        return row, there

    def grow(self, given: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Add the n-grams of the next order; return their words and the rows of their suffixes and contexts."""
        grams = np.concatenate(given)
        suffix, there = self.row(grams[:, 1:])
        if not there.all():
            raise UserError("mixture: a model lists an n-gram without its suffix; expected models pruned by count")
        keys, first = np.unique(packed(suffix, grams[:, 0]), return_index=True)
        self.keys.append(keys)
        words = grams[first]
        context, there = self.row(words[:, :-1])
        if not there.all():
            raise UserError("mixture: a model lists an n-gram without its context; expected a complete ARPA file")
        return words, suffix[first], context


class _Side:
    """One model's view of the union: logarithms (base 10) of probability and back-off by row."""

    def __init__(self, model: Arpa, places: np.ndarray, words: int) -> None:
        self.model, self.places = model, places
        self.logprob = np.full(words, -99.0)
        self.backoff = np.zeros(words)
        unigrams = model.orders[0]
        row = places[unigrams.words[:, 0]]
        self.logprob[row] = unigrams.logprob
        if unigrams.backoff is not None:
            self.backoff[row] = unigrams.backoff

    def grams(self, size: int) -> np.ndarray:
        """Return the model's own n-grams of an order, as word numbers of the union."""
        if size > self.model.order:
            return np.zeros((0, size), np.uint32)
        return self.places[self.model.orders[size - 1].words]

    def grow(self, size: int, words: np.ndarray, suffix: np.ndarray, context: np.ndarray, union: _Union) -> None:
        """Advance to the next order; n-grams that the model does not list get their back-off probability."""
        logprob = self.backoff[context] + self.logprob[suffix]
        backoff = np.zeros(len(words))
        if size <= self.model.order:
            own = self.model.orders[size - 1]
            row, _ = union.row(self.grams(size))
            logprob[row] = own.logprob
            if own.backoff is not None:
                backoff[row] = own.backoff
        self.logprob, self.backoff = logprob, backoff


def _find(keys: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    row = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return row, keys[row] == wanted
