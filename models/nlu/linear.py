"""Linear domain models: logistic regression on n-grams for domain and intent, a CRF for slots.

A request is the set of its word 1-2-grams and character 3-4-grams, in lower case; each of the two kinds is scaled to
length 1. This does not depend on any model's vocabulary, so it is computed once for all domains. A model may have
fused features: the request's sentence embedding beside them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from scipy import sparse

from gristmill.models.nlu.crf import CrfSettings, Tagger, features
from gristmill.models.nlu.crf import fit as fit_tagger
from gristmill.models.nlu.domain import (
    Example,
    FamilySettings,
    Slot,
    describe,
    from_iob,
    log_sigmoid,
    log_softmax,
    single,
)
from gristmill.models.nlu.logistic import balanced, logistic
from gristmill.models.nlu.operating_point import threshold
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
    balanced: bool = False
    """Whether the domain's requests have the same total weight as the others. The few of a new domain then count."""
    embedding: NonNegativeFloat = 0.0
    """Length of the sentence embedding beside n-grams, each kind of which has length 1 (0: not used)."""
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


class Features(NamedTuple):
    """The n-grams of some requests that occur in several of them."""

    vocabulary: dict[str, list[str]]  # by kind, sorted
    rows: sparse.csr_array  # (requests, n-grams) float32, in the order of the vocabulary

    @classmethod
    def of(cls, tokens: Sequence[Sequence[str]], min_count: int) -> Features:
        """Return the features of requests, token lists: the n-grams of at least ``min_count`` of them."""
        found = [grams(one) for one in tokens]
        vocabulary: dict[str, list[str]] = {}
        numbers: dict[str, dict[str, int]] = {}
        columns = 0
        for place, kind in enumerate(KINDS):
            counts = Counter(name for names in found for name in names[place])
            vocabulary[kind] = sorted(name for name, count in counts.items() if count >= min_count)
            numbers[kind] = {name: columns + i for i, name in enumerate(vocabulary[kind])}
            columns += len(vocabulary[kind])
        return cls(vocabulary, matrix(found, numbers, columns))


class LinearModel:
    """The linear models of one domain. ``weights`` (n-grams + dim, 1 + intents) and ``bias``: the domain's first.

    ``dim`` is that of the sentence embeddings that it reads, 0 for none; ``threshold`` is the log-odds from which a
    request is accepted by this domain alone. ``folds`` (1 + n-grams + dim, folds) are the bias and the weights of the
    domain's classifiers that found the threshold, each trained without the annotated requests of one fold.
    """

    family: ClassVar[str] = LinearSettings.family

    def __init__(
        self,
        domain: str,
        intents: Sequence[str],
        vocabulary: Mapping[str, Sequence[str]],
        weights: np.ndarray,
        bias: np.ndarray,
        slots: bytes | None,
        dim: int = 0,
        threshold: float = 0.0,
        folds: np.ndarray | None = None,
    ) -> None:
        self.domain, self.intents, self.slots, self.dim = domain, tuple(intents), slots, dim
        self.threshold = float(threshold)
        self.vocabulary = {kind: list(vocabulary[kind]) for kind in KINDS}
        self.weights, self.bias = np.asarray(weights, np.float32), np.asarray(bias, np.float32)
        self.tagger = Tagger(slots)
        rows = sum(map(len, self.vocabulary.values())) + dim
        if self.weights.shape != (rows, 1 + len(self.intents)) or self.bias.shape != self.weights.shape[1:]:
            raise ValueError(f"weights {self.weights.shape} of {rows} features and {len(self.intents)} intents")
        self.folds = np.zeros((rows + 1, 0), np.float32) if folds is None else np.asarray(folds, np.float32)
        if self.folds.ndim != 2 or len(self.folds) != rows + 1:
            raise ValueError(f"weights {self.folds.shape} of folds of {rows} features")

    def without(self, fold: int) -> LinearModel:
        """Return the model whose domain classifier has not seen the annotated requests of a fold."""
        weights, bias = self.weights.copy(), self.bias.copy()
        bias[0], weights[:, 0] = self.folds[0, fold], self.folds[1:, fold]
        return LinearModel(self.domain, self.intents, self.vocabulary, weights, bias, None, self.dim, self.threshold)

    def files(self) -> dict[str, bytes]:
        """Return ``model.json`` (with the vocabulary), ``weights.safetensors`` and, if any, ``slots.crfsuite``."""
        from safetensors.numpy import save

        more = {name: value for name in ("dim", "threshold") if (value := getattr(self, name))}
        files = {
            "model.json": describe(self, vocabulary=self.vocabulary, slots=self.slots is not None, **more),
            "weights.safetensors": save(
                {"bias": self.bias, "weights": np.ascontiguousarray(self.weights)}
                | ({"folds": np.ascontiguousarray(self.folds)} if self.folds.size else {})
            ),
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
        more = described.get("dim", 0), described.get("threshold", 0.0)
        return cls(*given, tensors["weights"], tensors["bias"], slots, *more, tensors.get("folds"))

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
        self.dim = max(model.dim for model in models)
        self.fused = np.zeros((self.dim, len(self.bias)), np.float32)  # weights of the embedding
        for model, start, end in zip(models, starts, starts[1:], strict=False):
            places = [self.vocabulary[kind][name] for kind in KINDS for name in model.vocabulary[kind]]
            self.weights[places, start:end] = model.weights[: len(places)]
            if model.dim not in (0, self.dim):
                raise UserError(f"domain {model.domain!r} reads embeddings of {model.dim} numbers, others {self.dim}")
            self.fused[: model.dim, start:end] = model.weights[len(places) :]
        self.first, self.ends = starts[:-1], starts[1:]

    def __call__(self, tokens: Sequence[Sequence[str]], vectors: np.ndarray | None = None) -> LinearScores:
        """Return the scores of a batch of requests, token lists, and their embeddings (requests, dim) if they are read.

        Raises:
            UserError: there are none, or of another dimension.
        """
        rows = matrix([grams(one) for one in tokens], self.vocabulary, len(self.weights))
        values = rows @ self.weights + self.bias
        if self.dim:
            shape = None if vectors is None else vectors.shape[1:]
            if vectors is None or shape != (self.dim,):
                raise UserError(f"domain models read embeddings of {self.dim} numbers; given {shape or 'none'}")
            # Row by row: the blocks of a matrix product, and so its last bits, depend on the number of rows.
            values += np.stack([row @ self.fused for row in vectors.astype(np.float32)]) if len(vectors) else 0
        return LinearScores(self, tokens, values)


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
    *,
    vectors: np.ndarray | None = None,
    weights: Sequence[float] | None = None,
    tagged: Sequence[Example] = (),
    folds: np.ndarray | None = None,
    seen: np.ndarray | None = None,
    prior: float = 0.03,
) -> tuple[LinearModel, dict[str, Any]]:
    """Train on a domain's requests and the tokens of others'; return the model and metrics of the training.

    ``vectors`` are the sentence embeddings of both, (requests, dim), if the settings ask for them; ``weights`` are
    those of the domain's requests, 1 by default; ``tagged`` are further requests for the slot tagger alone. ``folds``
    of all requests, own first, are those of the cross-validation of the threshold, which scores no request of fold -1;
    ``seen`` (requests, folds) tells which requests each fold trains on, by default all but its own. ``prior`` is the
    expected share of the domain's requests. The same requests in the same order give the same weights, with any seed:
    there is no randomness. ``report`` is called once, with the numbers of iterations.
    """
    if not examples or not others:
        raise UserError(f"domain {domain!r}: {len(examples)} requests of it and {len(others)} of others; expected both")
    settings = settings or LinearSettings()
    features = Features.of([*(example.tokens for example in examples), *others], settings.min_count)
    rows, dim = features.rows.astype(np.float64), 0
    count, columns = rows.shape
    if settings.embedding:
        if vectors is None:
            raise UserError(
                f"domain {domain!r}: no embeddings; expected some, as `embedding` is {settings.embedding:g}"
            )
        dim = vectors.shape[1]
        rows = sparse.csr_array(sparse.hstack([rows, settings.embedding * vectors.astype(np.float64)]))
    own = np.arange(count) < len(examples)
    mine = np.ones(len(examples)) if weights is None else np.asarray(weights, np.float64)
    each = balanced(mine, len(others)) if settings.balanced else np.concatenate([mine, np.ones(len(others))])
    weighted = each if settings.balanced or weights is not None else None
    of_domain = logistic(rows, own.astype(int), settings.domain_c, settings.solver, settings.iterations, weighted)
    held = None
    if folds is not None:
        seen = folds[:, None] != np.arange(folds.max(initial=-1) + 1) if seen is None else seen
        held = _cross_validated(rows, own, mine, folds, seen, settings, prior)
    names = sorted({example.intent for example in examples})
    which = np.array([names.index(example.intent) for example in examples])
    intents = np.zeros((columns + dim, len(names))), np.zeros(len(names)), 0
    if len(names) > 1:
        given = None if weights is None else mine
        intents = logistic(rows[: len(examples)], which, settings.intent_c, "lbfgs", settings.iterations, given)
    found_weights = np.concatenate([of_domain[0][:, 1:], intents[0]], axis=1)
    found_weights[columns:] *= settings.embedding  # a model is given embeddings of length 1
    if held is not None and held.models is not None:
        held.models[1 + columns :] *= settings.embedding
    model = LinearModel(
        domain,
        names,
        features.vocabulary,
        found_weights,
        np.concatenate([of_domain[1][1:], intents[1]]),
        fit_tagger([*examples, *tagged], settings.crf),
        dim,
        0.0 if held is None else held.threshold,
        None if held is None else held.models,
    )
    iterations = {"domain_iterations": of_domain[2], "intent_iterations": intents[2]}
    report({"step": 0, **iterations})
    return model, {**iterations, "grams": columns, **({} if held is None else {"spread": held.spread})}


class _HeldOut(NamedTuple):
    """What held-out scores tell of a domain classifier."""

    threshold: float
    spread: float  # standard deviation of the scores of the domain's requests; 1 for fewer than two
    models: np.ndarray | None  # (1 + features, folds): bias and weights of each fold


def _cross_validated(
    rows: sparse.csr_array,
    own: np.ndarray,
    mine: np.ndarray,
    folds: np.ndarray,
    seen: np.ndarray,
    settings: LinearSettings,
    prior: float,
) -> _HeldOut:
    """Return the threshold of the domain classifier, by scores of requests that it was not trained on."""
    found = np.zeros(len(own))
    each = np.concatenate([mine, np.ones(len(own) - len(mine))])
    models = []
    for fold in range(seen.shape[1]):
        here, held = seen[:, fold], folds == fold
        if not held.any() or not (here & own).any() or not (here & ~own).any():
            return _HeldOut(0.0, 1.0, None)
        few = int((here & own).sum())
        weights = balanced(each[here][:few], int(here.sum()) - few) if settings.balanced else each[here]
        given = rows[np.flatnonzero(here)], own[here].astype(int), settings.domain_c, settings.solver
        weight, bias, _ = logistic(*given, settings.iterations, weights)
        found[held] = rows[np.flatnonzero(held)] @ weight[:, 1] + bias[1]
        models.append(np.concatenate([bias[1:], weight[:, 1]]))
    scores, others = found[own & (folds >= 0)], found[~own & (folds >= 0)]
    spread = float(scores.std(ddof=1)) if len(scores) > 1 else 0.0
    return _HeldOut(threshold(scores, others, prior), spread or 1.0, np.stack(models, 1))
