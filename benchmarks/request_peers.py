"""Other packages' ways to a recogniser of a new function, on the features and with the thresholds of the recipe.

They are measured by benchmarks.expansion_peers. A fit is given the places of annotated requests, and returns how it
scores any; a selector returns some of the requests that the recipe has labelled itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from typing import Any

from gristmill.actors.requests.diversity import rows_of
from gristmill.models.nlu.domain import log_sigmoid
from gristmill.models.nlu.linear import KINDS, grams, matrix
from gristmill.models.nlu.logistic import balanced, logistic
from gristmill.models.nlu.operating_point import threshold
from gristmill.pipelines.requests.expand_parts import FunctionCell
from gristmill.pipelines.requests.expand_systems import FunctionRecogniserSettings, SelfTrained
from gristmill.shards.dataset import SealedSet

import numpy as np
import pyarrow as pa
from scipy import sparse
from sklearn.base import BaseEstimator, ClassifierMixin

PAIRS = 32  # of a step of the projection
TUNED_PAIRS = 16  # of the encoder
OTHERS = 1000  # others' requests that the tuned encoder embeds, of some 3,000


class BalancedRegression(ClassifierMixin, BaseEstimator):
    """The recipe's logistic regression as scikit-learn takes estimators: both classes have the same weight."""

    def __init__(self, c: float = 30.0, iterations: int = 300) -> None:
        self.c, self.iterations = c, iterations

    def fit(self, rows: Any, labels: np.ndarray) -> BalancedRegression:
        order = np.argsort(-np.asarray(labels), kind="stable")  # `balanced` takes the function's own first
        own = int((np.asarray(labels) == 1).sum())
        weights = balanced(np.ones(own), len(labels) - own)
        given = sparse.csr_array(rows)[order], np.asarray(labels)[order].astype(int), self.c, "lbfgs"
        weight, bias, _ = logistic(*given, self.iterations, weights)
        self.classes_, self.weight_, self.bias_ = np.array([0, 1]), weight[:, 1], float(bias[1])
        return self

    def decision_function(self, rows: Any) -> np.ndarray:
        return rows @ self.weight_ + self.bias_

    def predict_proba(self, rows: Any) -> np.ndarray:
        own = np.exp(log_sigmoid(self.decision_function(rows)))
        return np.stack([1 - own, own], axis=1)

    def predict(self, rows: Any) -> np.ndarray:
        return (self.decision_function(rows) >= 0).astype(int)


class Requests:
    """The requests of a cell with fused features: seeds, others, what was filtered, what was added, and the test."""

    def __init__(
        self, cell: FunctionCell, whole: SelfTrained, filtered: SealedSet, settings: FunctionRecogniserSettings
    ) -> None:
        assert cell.test is not None
        tables = [pa.concat_tables(one.tables()) for one in (cell.seeds, cell.others, filtered, whole.added)]
        tables = [one.sort_by("id") for one in tables] + [pa.concat_tables(cell.test.tables())]  # as the trainer has it
        self.seeds, self.others, self.filtered, self.added, self.test = tables
        ends = np.cumsum([0, *(one.num_rows for one in tables)])
        self.places = [np.arange(start, end) for start, end in pairwise(ends)]
        self.tokens = [tokens or [] for one in tables for tokens in one["tokens"].to_pylist()]
        self.vectors = np.concatenate([rows_of(one).embeddings for one in tables]).astype(np.float32)
        found = [grams(one) for one in self.tokens]
        vocabulary: dict[str, dict[str, int]] = {}
        columns = 0
        for place, kind in enumerate(KINDS):
            counts = Counter(name for names in found[: ends[-2]] for name in names[place])
            known = sorted(name for name, count in counts.items() if count >= settings.model.min_count)
            vocabulary[kind] = {name: columns + number for number, name in enumerate(known)}
            columns += len(known)
        self.grams = matrix(found, vocabulary, columns).astype(np.float64)
        self.length, self.settings = settings.model.embedding, settings
        intents = {name: number for number, name in enumerate(sorted(set(self.others["intent"].to_pylist())), 1)}
        self.classes = np.array([0] * self.seeds.num_rows + [intents[one] for one in self.others["intent"].to_pylist()])

    def fused(self, vectors: np.ndarray | None = None) -> sparse.csr_array:
        """Return n-grams beside embeddings."""
        own = self.vectors if vectors is None else vectors
        return sparse.csr_array(sparse.hstack([self.grams, self.length * own.astype(np.float64)]))


Score = Callable[[np.ndarray], np.ndarray]  # the log-odds of requests, by their places


def read_by(requests: Requests, fit: Callable[[np.ndarray], Score], others: int | None = None) -> dict[str, Any]:
    """Return the log-odds of the test and the threshold, tuned as the recipe does.

    ``fit`` is given the places of annotated requests, and returns how it scores any. ``others`` limits their number.
    """
    folds, prior = requests.settings.folds, requests.settings.prior
    parts = requests.places[0], requests.places[1][:: max(1, len(requests.places[1]) // others) if others else 1]
    rows, fold = np.concatenate(parts), np.concatenate([np.arange(len(one)) % folds for one in parts])
    own = np.arange(len(rows)) < len(parts[0])
    found = np.zeros(len(rows))
    for number in range(folds):
        found[fold == number] = fit(rows[fold != number])(rows[fold == number])
    return {"test": fit(rows)(requests.places[4]), "threshold": threshold(found[own], found[~own], prior)}


def self_training(requests: Requests, **given: Any) -> dict[str, Any]:
    """Read by scikit-learn's self-training."""
    from sklearn.semi_supervised import SelfTrainingClassifier

    rows = requests.fused()
    estimator = BalancedRegression(requests.settings.model.domain_c, requests.settings.model.iterations)

    def fit(seen: np.ndarray) -> Score:
        whole = np.concatenate([seen, requests.places[2]])
        labels = np.concatenate([(seen < len(requests.places[0])).astype(int), np.full(len(requests.places[2]), -1)])
        fitted = SelfTrainingClassifier(estimator, **given).fit(sparse.csr_matrix(rows[whole]), labels)
        return lambda places: fitted.decision_function(rows[places])

    return read_by(requests, fit)


def pairs(classes: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return pairs, half of them of one class; half of them begin with a request of the function, of class 0."""
    order, sizes = np.argsort(classes, kind="stable"), np.bincount(classes)
    left = np.where(rng.random(count) < 0.5, rng.integers(sizes[0], size=count), rng.integers(len(order), size=count))
    left = order[left]
    own = classes[left]
    mate = order[np.cumsum([0, *sizes])[own] + (rng.random(count) * sizes[own]).astype(int)]
    other = rng.integers(len(order), size=count)
    while (same := classes[other] == own).any():
        other[same] = rng.integers(len(order), size=int(same.sum()))
    alike = np.arange(count) % 2 == 0
    return left, np.where(alike, mate, other), alike.astype(np.float32)


def projection(requests: Requests, steps: int = 300) -> dict[str, dict[str, Any]]:
    """Read by frozen embeddings that a linear map, trained on pairs, has moved: alone, and beside n-grams."""
    import torch

    def encode(seen: np.ndarray) -> np.ndarray:
        rng, classes = np.random.Generator(np.random.Philox(0)), requests.classes[seen]
        own = torch.from_numpy(requests.vectors[seen])
        weight = torch.eye(own.shape[1], requires_grad=True)
        optimiser = torch.optim.Adam([weight], 1e-3)
        for _ in range(steps):
            left, right, alike = pairs(classes, PAIRS, rng)
            found = torch.nn.functional.cosine_similarity(own[left] @ weight, own[right] @ weight)
            optimiser.zero_grad()
            torch.nn.functional.mse_loss(found, torch.from_numpy(alike)).backward()
            optimiser.step()
        moved = requests.vectors @ weight.detach().numpy()
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    return by_encoder(requests, "projection", encode)


def by_encoder(
    requests: Requests, name: str, encode: Callable[[np.ndarray], np.ndarray], others: int | None = None
) -> dict[str, dict[str, Any]]:
    """Read by the embeddings of an encoder that is trained on the places given, alone and beside n-grams."""
    known: dict[bytes, np.ndarray] = {}

    def once(seen: np.ndarray) -> np.ndarray:
        key = seen.tobytes()
        if key not in known:
            known[key] = encode(seen)
        return known[key]

    ends = (("", False), ("_grams", True))
    return {f"{name}{end}": read_by(requests, head_on(requests, once, grams), others) for end, grams in ends}


def head_on(requests: Requests, encode: Callable[[np.ndarray], np.ndarray], with_grams: bool) -> Any:
    """Return the fit of the balanced regression on what an encoder, trained on the same requests, gives."""

    def fit(seen: np.ndarray) -> Score:
        vectors = encode(seen)
        rows = requests.fused(vectors) if with_grams else sparse.csr_array(requests.length * vectors.astype(np.float64))
        model = BalancedRegression(requests.settings.model.domain_c, requests.settings.model.iterations)
        fitted = model.fit(rows[seen], (seen < len(requests.places[0])).astype(int))
        return lambda places: fitted.decision_function(rows[places])

    return fit


def tuned(requests: Requests, embedder: str, steps: int) -> dict[str, dict[str, Any]]:
    """Read by embeddings of an encoder that was trained on pairs: alone, and beside n-grams."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import CosineSimilarityLoss

    texts = [" ".join(tokens) for tokens in requests.tokens]

    def encode(seen: np.ndarray) -> np.ndarray:
        torch.manual_seed(0)
        model = SentenceTransformer(embedder, device="cpu")
        loss, rng = CosineSimilarityLoss(model), np.random.Generator(np.random.Philox(0))
        optimiser = torch.optim.AdamW(model.parameters(), 2e-5)
        model.train()
        for _ in range(steps):
            left, right, alike = pairs(requests.classes[seen], TUNED_PAIRS, rng)
            given = [model.preprocess([texts[place] for place in seen[side]]) for side in (left, right)]
            optimiser.zero_grad()
            loss(given, torch.from_numpy(alike)).backward()
            optimiser.step()
        # Only what is asked for: embedding everything would take most of the time.
        others = requests.places[1][:: max(1, len(requests.places[1]) // OTHERS)]
        whole = np.isin(requests.places[0], seen).all()  # not a fold
        asked = np.concatenate([requests.places[0], others, *([requests.places[4]] if whole else [])])
        vectors = np.zeros_like(requests.vectors)
        vectors[asked] = model.encode([texts[place] for place in asked], normalize_embeddings=True)
        return vectors

    return by_encoder(requests, "tuned", encode, OTHERS)


def cleaned(requests: Requests) -> pa.Table:
    """Return what was added without the rows whose label cleanlab doubts."""
    from cleanlab.filter import find_label_issues

    parts = requests.places[0], requests.places[3], requests.places[1]
    rows, fold = np.concatenate(parts), np.concatenate([np.arange(len(one)) % 4 for one in parts])
    labels = (np.arange(len(rows)) < len(parts[0]) + len(parts[1])).astype(int)
    whole, found = requests.fused(), np.zeros((len(rows), 2))
    for number in range(4):
        seen, held = fold != number, fold == number
        model = BalancedRegression(requests.settings.model.domain_c).fit(whole[rows[seen]], labels[seen])
        found[held] = model.predict_proba(whole[rows[held]])
    doubted = find_label_issues(labels, found, n_jobs=1)[len(parts[0]) :][: len(parts[1])]
    return requests.added.filter(pa.array(~doubted))


def selected(requests: Requests, how: str, count: int) -> pa.Table:
    """Return as many of the added rows by another package's selector."""
    vectors = requests.vectors[requests.places[3]].astype(np.float64)
    if how == "apricot_facility":
        import apricot

        chosen = apricot.FacilityLocationSelection(count, metric="cosine").fit(vectors).ranking
    elif how == "apricot_features":
        import apricot

        own = requests.grams[requests.places[3]].toarray()
        chosen = apricot.FeatureBasedSelection(count, "sqrt").fit(own[:, own.any(0)]).ranking
    else:
        import submodlib

        objective = submodlib.FacilityLocationFunction(len(vectors), "dense", data=vectors, metric="cosine")
        chosen = [place for place, _ in objective.maximize(count, "LazyGreedy", show_progress=False)]
    return requests.added.take(np.sort(np.asarray(chosen, np.int64)))
