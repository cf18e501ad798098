"""A training loop, and the actor that applies its model: softmax regression of the domain on a vector."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

NAMES, WEIGHTS = "names.json", "weights.npy"  # in the artifact


class DescentSettings(Settings):
    """Stochastic gradient descent."""

    epochs: int = Field(6, ge=1)
    lr: float = Field(2.0, gt=0)
    """Learning rate."""
    batch: int = Field(16, ge=1)
    """Vectors in a step."""


class LinearTraining(DescentSettings):
    """The training of one model."""

    vector: str
    """The column of vectors."""
    seed: int = 0
    """Of the order in which vectors are visited."""


def train(settings: LinearTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Train on the sealed set at ``data``, without fold -1, and return the names and weights of the model.

    A checkpoint follows each epoch. An epoch's order depends on the seed and its number alone, so that a training
    that resumes gives the bytes of one that ran through.
    """
    vectors, domains = _read(data, settings.vector)
    names = sorted(set(domains))
    target = np.eye(len(names), dtype=np.float32)[[names.index(domain) for domain in domains]]
    saved = context.resume()
    done, weights = _load(saved) if saved else (0, np.zeros((vectors.shape[1], len(names)), np.float32))
    for epoch in range(done, settings.epochs):
        order = np.random.Generator(np.random.Philox(key=[settings.seed, epoch])).permutation(len(vectors))
        loss = 0.0
        for start in range(0, len(order), settings.batch):
            rows = order[start : start + settings.batch]
            given = _softmax(vectors[rows] @ weights)
            loss -= float(np.log((given * target[rows]).sum(1)).sum())
            weights -= settings.lr / len(rows) * (vectors[rows].T @ (given - target[rows]))
        context.report({"step": epoch + 1, "loss": loss / len(order)}, _dump(epoch + 1, weights))
    return {"files": {NAMES: canonical.dumps(names), WEIGHTS: _npy(weights)}, "vectors": len(vectors)}


class ClassifySettings(Settings):
    """The columns that the classifier reads and adds."""

    vector: str = "vector"
    """The column of vectors."""
    column: str = "predicted"
    """The column that is added."""


class Classify(Actor):
    """Adds the most probable domain of a vector by a model of :func:`train`."""

    batch = BatchLimits(rows=1024)
    settings: ClassifySettings

    def __init__(self, settings: ClassifySettings, model: str) -> None:
        super().__init__(settings)
        self.names = json.loads(read_file(model, NAMES))
        self.weights = np.load(io.BytesIO(read_file(model, WEIGHTS)))

    @classmethod
    def contract(cls, settings: ClassifySettings) -> Mapping[str, Any]:
        """Return the columns that are read and added."""
        return {"columns": (settings.vector,), "adds": (pa.field(settings.column, pa.string()),)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the domains."""
        vectors = np.array(batch[self.settings.vector].to_pylist(), np.float32)
        best = [self.names[place] for place in (vectors @ self.weights).argmax(1)]
        return batch.append_column(self.settings.column, pa.array(best, pa.string()))


def _read(data: str, vector: str) -> tuple[np.ndarray, list[str]]:
    vectors: list[list[float]] = []
    domains: list[str] = []
    for table in open_sealed(data).tables([vector, "domain", "fold"]):
        kept = table.filter(pc.field("fold") >= 0)
        vectors += kept[vector].to_pylist()
        domains += kept["domain"].to_pylist()
    if not vectors:
        raise UserError("linear: there is nothing to train on; expected at least one request outside the test part")
    return np.array(vectors, np.float32), domains


def _softmax(scores: np.ndarray) -> np.ndarray:
    raised = np.exp(scores - scores.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)


def _npy(weights: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, weights)
    return out.getvalue()


def _dump(done: int, weights: np.ndarray) -> bytes:
    return done.to_bytes(4) + _npy(weights)


def _load(data: bytes) -> tuple[int, np.ndarray]:
    return int.from_bytes(data[:4]), np.load(io.BytesIO(data[4:]))
