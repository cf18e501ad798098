"""Acceptance of filtered requests by a recogniser and by label propagation together.

The graph has the annotated requests of the function, those of others that the recogniser finds nearest to it, and the
filtered requests of the pool. Both scores are log-odds; each is counted from its own threshold and in units of its own
spread over held-out annotated requests of the function, and a request is accepted if their sum is not negative.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field
from scipy import sparse
from threadpoolctl import threadpool_limits

from gristmill.actors.embed import EMBEDDING, vectors_of
from gristmill.actors.requests.function_reader import ACCEPTED, FunctionReader
from gristmill.models.nlu.linear import Features
from gristmill.models.nlu.operating_point import threshold
from gristmill.models.requests.propagation import propagate
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings

_FAR = -30.0  # log-odds of annotated requests of others that are not in the graph


class PropagationSettings(Settings):
    """Label propagation inside the filtered requests."""

    neighbours: int = Field(12, ge=1)
    """Nearest requests that each is connected to."""
    alpha: float = Field(0.9, gt=0, lt=1)
    """How far labels spread."""
    power: float = Field(4.0, gt=0)
    """Of cosines, as weights of the graph."""
    others: int = Field(400, ge=1)
    """Annotated requests of others in the graph: those with the highest scores of the recogniser."""
    prior: float = Field(0.03, gt=0, lt=1)
    """The share of traffic that the threshold is for."""


def accept(
    settings: PropagationSettings, context: TrainContext, *, seeds: str, others: str, requests: str, model: str
) -> dict[str, Any]:
    """Return the accepted requests of a small set by their ids, as a fit: the graph is in memory.

    With each are the folds of the recogniser's cross-validation without whose labels it is accepted too.

    Raises:
        UserError: the sets have no embeddings that the recogniser reads.
    """
    reader = FunctionReader(model)
    own, against, found = (_table(url) for url in (seeds, others, requests))
    if not found.num_rows:
        return {"files": {ACCEPTED: canonical.dumps({})}, "requests": 0, "accepted": 0}
    sure = reader.log_odds(against)
    near = np.sort(np.argsort(-sure, kind="stable")[: settings.others])
    labels = np.concatenate([np.ones(len(own)), -np.ones(len(near)), np.zeros(len(found))])
    with threadpool_limits(1):  # sums are the same on every machine of a level
        similarity = _cosines([own, against.take(pa.array(near)), found])

        def spread(given: np.ndarray) -> np.ndarray:
            return propagate(similarity, given, settings.neighbours, settings.alpha, settings.power)

        held, without = _held_out(spread, labels, reader.folds)
        whole = spread(labels)
    mine, theirs = held[labels > 0], held[labels < 0]
    limit = threshold(mine, np.concatenate([theirs, np.full(len(against) - len(near), _FAR)]), settings.prior)
    told = json.loads(read_file(model, "training.json"))

    def scores(graph: np.ndarray, recogniser: np.ndarray) -> np.ndarray:
        sure = (recogniser - reader.model.threshold) / told["spread"]
        return (graph[-len(found) :] - limit) / _spread(mine) + sure

    kept = scores(whole, reader.log_odds(found)) >= 0
    each = zip(without, reader.log_odds_without(found).T, strict=True)
    again = np.array([scores(graph, sure) >= 0 for graph, sure in each], bool).reshape(reader.folds, len(found))
    names = found["id"].to_pylist()
    folds = {names[row]: _places(again[:, row]) if reader.folds else None for row in np.flatnonzero(kept)}
    context.report({"step": 0, "accepted": float(len(folds))})
    return {"files": {ACCEPTED: canonical.dumps(folds)}, "requests": len(found), "accepted": len(folds)}


def _held_out(
    spread: Callable[[np.ndarray], np.ndarray], labels: np.ndarray, folds: int
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the log-odds of each annotated request when the labels of its fold are not known, and those of all
    requests without each fold's."""
    found, each = np.zeros(len(labels)), []
    fold = np.full(len(labels), -1)
    for sign in (1, -1):
        places = np.flatnonzero(labels == sign)
        fold[places] = np.arange(len(places)) % max(folds, 1)
    for number in range(folds):
        left = np.where(fold == number, 0, labels)
        # Without any label of the function nothing is told apart from it.
        each.append(spread(left) if (left > 0).any() and (left < 0).any() else np.zeros(len(labels)))
        found[fold == number] = each[-1][fold == number]
    return found, each


def _places(told: np.ndarray) -> list[int]:
    return np.flatnonzero(told).tolist()


def _spread(values: np.ndarray) -> float:
    return max(float(values.std(ddof=1)), 1e-6) if len(values) > 1 else 1.0


def _table(url: str) -> pa.Table:
    """Return the requests of a set by their ids."""
    sealed = open_sealed(url)
    if EMBEDDING not in sealed.schema.names:
        raise UserError(f"{url}: requests without {EMBEDDING}; expected it, for the graph of similar requests")
    columns = ["id", "tokens", EMBEDDING]
    return pa.concat_tables([sealed.schema.empty_table().select(columns), *sealed.tables(columns)]).sort_by("id")


def _cosines(tables: Sequence[pa.Table]) -> np.ndarray:
    """Return the cosines of requests over n-grams of words and of letters, length 1 each, and embeddings, length 2."""
    whole = pa.concat_tables(tables)
    features = Features.of([one or [] for one in whole["tokens"].to_pylist()], 2)
    vectors = vectors_of(whole[EMBEDDING]).astype(np.float64)
    rows = sparse.csr_array(sparse.hstack([features.rows.astype(np.float64), 2.0 * vectors]))
    products = (rows @ rows.T).toarray()
    lengths = np.sqrt(np.maximum(products.diagonal(), 1e-12))
    return products / lengths[:, None] / lengths[None]
