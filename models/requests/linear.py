"""Linear domain models: logistic regression on n-grams for domain and intent, a CRF for slots.

A request is the set of its word 1-2-grams and character 3-4-grams, in lower case; each of the two kinds is scaled to
length 1. This does not depend on any model's vocabulary, so it is computed once for all domains.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt
from scipy import sparse

from gristmill.models.requests.crf import CrfSettings, Tagger, features
from gristmill.models.requests.crf import fit as fit_tagger
from gristmill.models.requests.domain import (
    Example,
    FamilySettings,
    Slot,
    describe,
    from_iob,
    log_sigmoid,
    log_softmax,
    single,
)
from gristmill.models.requests.logistic import logistic
from gristmill.shards.errors import UserError

WORDS = (1, 2)
CHARACTERS = (3, 4)
KINDS = ("words", "characters")


class LinearSettings(FamilySettings):
    """Training of a linear domain model."""

    family: ClassVar[str] = "linear"

    domain_c: PositiveFloat = 30.0
    """Inverse regularisation of the domain classifier: a smaller one keeps weights and scores nearer to 0."""
    intent_c: PositiveFloat = 30.0
    """The same of the intent classifier."""
    solver: Literal["lbfgs", "liblinear"] = "lbfgs"
    """Solver of the domain classifier; intents, of which there may be many, are always fitted by L-BFGS."""
    iterations: PositiveInt = 300
    """Most iterations of each classifier's solver."""
    min_count: PositiveInt = 2
    """Least number of requests with an n-gram for it to be a feature."""
    crf: CrfSettings = CrfSettings()
    """The slot tagger."""


def grams(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the distinct n-grams of words and of characters, in order of occurrence."""
    words = [token.lower() for token in tokens]
    text = f" {' '.join(words)} "
    two = [f"{left} {right}" for left, right in pairwise(words)]
    letters = [text[i : i + size] for size in CHARACTERS for i in range(len(text) - size + 1)]
    return list(dict.fromkeys(words + two)), list(dict.fromkeys(letters))


def matrix(
    found: Sequence[tuple[list[str], list[str]]], vocabulary: Mapping[str, Mapping[str, int]], columns: int
) -> sparse.csr_array:
    """Return a sparse matrix (requests, columns) of n-grams, float32.

    Entries are in the order of the request, not of the columns, so that a sum over them is the same in every larger
    vocabulary.
    """
    data: list[float] = []
    indices: list[int] = []
    ends = [0]
    for kinds in found:
        for kind, names in zip(KINDS, kinds, strict=True):
            known = vocabulary[kind]
            places = [known[name] for name in names if name in known]
            indices += places
            data += [1.0 / math.sqrt(len(names))] * len(places) if names else []
        ends.append(len(indices))
    rows = np.array(data, np.float32), np.array(indices, np.int32), np.array(ends, np.int32)
    return sparse.csr_array(rows, shape=(len(found), columns))


class LinearModel:
    """The linear models of one domain. ``weights`` (n-grams, 1 + intents) and ``bias``: the domain's first."""

    family: ClassVar[str] = LinearSettings.family

    def __init__(
        self,
        domain: str,
        intents: Sequence[str],
        vocabulary: Mapping[str, Sequence[str]],
        weights: np.ndarray,
        bias: np.ndarray,
        slots: bytes | None,
    ) -> None:
        self.domain, self.intents, self.slots = domain, tuple(intents), slots
        self.vocabulary = {kind: list(vocabulary[kind]) for kind in KINDS}
        self.weights, self.bias = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
        self.tagger = Tagger(slots)
        rows = sum(map(len, self.vocabulary.values()))
        if self.weights.shape != (rows, 1 + len(self.intents)) or self.bias.shape != self.weights.shape[1:]:
            raise ValueError(f"weights {self.weights.shape} of {rows} n-grams and {len(self.intents)} intents")

    def files(self) -> dict[str, bytes]:
        """Return ``model.json`` (with the vocabulary), ``weights.safetensors`` and, if any, ``slots.crfsuite``."""
        from safetensors.numpy import save

        files = {
            "model.json": describe(self, vocabulary=self.vocabulary, slots=self.slots is not None),
            "weights.safetensors": save({"bias": self.bias, "weights": np.ascontiguousarray(self.weights)}),
        }
        return files if self.slots is None else files | {"slots.crfsuite": self.slots}

    @classmethod
    def from_files(cls, described: Mapping[str, Any], files: Mapping[str, bytes]) -> LinearModel:
        """Return the model stored in files."""
        from safetensors import SafetensorError
        from safetensors.numpy import load

        try:
            tensors = load(files["weights.safetensors"])
        except SafetensorError as error:
            raise ValueError(f"weights.safetensors: {error}") from None
        slots = files["slots.crfsuite"] if described["slots"] else None
        given = described["domain"], described["intents"], described["vocabulary"]
        return cls(*given, tensors["weights"], tensors["bias"], slots)

    @classmethod
    def together(cls, models: Sequence[LinearModel]) -> LinearScorer:
        """Return a scorer of several models."""
        return LinearScorer(models)


class LinearScorer:
    """Several linear models: one product with the n-grams of a batch scores all domains and intents."""

    def __init__(self, models: Sequence[LinearModel]) -> None:
        self.models = models
        every = {kind: dict.fromkeys(name for m in models for name in m.vocabulary[kind]) for kind in KINDS}
        self.vocabulary: dict[str, dict[str, int]] = {}
        rows = 0
        for kind in KINDS:
            self.vocabulary[kind] = {name: rows + i for i, name in enumerate(every[kind])}
            rows += len(every[kind])
        starts = np.cumsum([0, *(len(model.bias) for model in models)])
        self.bias = np.concatenate([model.bias for model in models])
        self.weights = np.zeros((rows, len(self.bias)), np.float32)
        for model, start, end in zip(models, starts, starts[1:], strict=False):
            places = [self.vocabulary[kind][name] for kind in KINDS for name in model.vocabulary[kind]]
            self.weights[places, start:end] = model.weights
        self.first, self.ends = starts[:-1], starts[1:]

    def __call__(self, tokens: Sequence[Sequence[str]]) -> LinearScores:
        """Return the scores of a batch of requests, token lists."""
        rows = matrix([grams(one) for one in tokens], self.vocabulary, len(self.weights))
        return LinearScores(self, tokens, rows @ self.weights + self.bias)


class LinearScores:
    """Scores of a batch; slots are tagged on demand."""

    def __init__(self, scorer: LinearScorer, tokens: Sequence[Sequence[str]], values: np.ndarray) -> None:
        self._models, self._tokens = scorer.models, tokens
        self.domain = log_sigmoid(values[:, scorer.first]).astype(np.float32)
        spans = zip(scorer.first, scorer.ends, strict=True)
        self.intents = [log_softmax(values[:, start + 1 : end]).astype(np.float32) for start, end in spans]
        self._features: dict[int, Any] = {}

    def slots(self, row: int, place: int) -> tuple[tuple[Slot, ...], float]:
        """Return a domain's slots of a request and their log-probability."""
        tokens = self._tokens[row]
        if row not in self._features:
            self._features[row] = features(tokens)
        tags, logprob = self._models[place].tagger(len(tokens), self._features[row])
        return from_iob(tokens, tags), single(logprob)


def fit(
    domain: str,
    examples: Sequence[Example],
    others: Sequence[Sequence[str]],
    settings: LinearSettings | None = None,
    seed: int = 0,
    report: Callable[[dict[str, float]], None] = lambda metrics: None,
) -> tuple[LinearModel, dict[str, Any]]:
    """Train on a domain's requests and the tokens of others'; return the model and metrics of the training.

    The same requests in the same order give the same weights, with any seed: there is no randomness. ``report`` is
    called once, with the numbers of iterations.
    """
    if not examples or not others:
        raise UserError(f"domain {domain!r}: {len(examples)} requests of it and {len(others)} of others; expected both")
    settings = settings or LinearSettings()
    found = [grams(tokens) for tokens in [*(example.tokens for example in examples), *others]]
    vocabulary = {}
    for place, kind in enumerate(KINDS):
        counts = Counter(name for names in found for name in names[place])
        vocabulary[kind] = sorted(name for name, count in counts.items() if count >= settings.min_count)
    numbers: dict[str, dict[str, int]] = {}
    columns = 0
    for kind, names in vocabulary.items():
        numbers[kind] = {name: columns + i for i, name in enumerate(names)}
        columns += len(names)
    rows = matrix(found, numbers, columns).astype(np.float64)
    own = np.arange(len(found)) < len(examples)
    weights, bias, rounds = logistic(rows, own.astype(int), settings.domain_c, settings.solver, settings.iterations)
    names = sorted({example.intent for example in examples})
    which = np.array([names.index(example.intent) for example in examples])
    intents = np.zeros((columns, len(names))), np.zeros(len(names)), 0
    if len(names) > 1:
        intents = logistic(rows[: len(examples)], which, settings.intent_c, "lbfgs", settings.iterations)
    model = LinearModel(
        domain,
        names,
        vocabulary,
        np.concatenate([weights[:, 1:], intents[0]], axis=1),
        np.concatenate([bias[1:], intents[1]]),
        fit_tagger(examples, settings.crf),
    )
    iterations = {"domain_iterations": rounds, "intent_iterations": intents[2]}
    report({"step": 0, **iterations})
    return model, {**iterations, "grams": columns}
