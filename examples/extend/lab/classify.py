"""The actor that applies the model of lab/linear.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gristmill.shards.artifact import read_file
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

import numpy as np
import pyarrow as pa
from safetensors.numpy import load


class ClassifySettings(Settings):
    """The columns that the classifier reads and adds."""

    vector: str = "vector"
    """The column of vectors."""
    column: str = "predicted"
    """The column that is added."""


class Classify(Actor):
    """Adds the most probable domain of a vector by a model of :func:`lab.linear.train`."""

    batch = BatchLimits(rows=1024)
    settings: ClassifySettings

    def __init__(self, settings: ClassifySettings, model: str) -> None:
        super().__init__(settings)
        self.names = json.loads(read_file(model, "names.json"))
        self.weights = load(read_file(model, "weights.safetensors"))

    @classmethod
    def contract(cls, settings: ClassifySettings) -> Mapping[str, Any]:
        """Return the columns that are read and added."""
        return {"columns": (settings.vector,), "adds": (pa.field(settings.column, pa.string()),)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the domains."""
        vectors = np.array(batch[self.settings.vector].to_pylist(), np.float32)
        scores = vectors @ self.weights["weight"].T + self.weights["bias"]
        return batch.append_column(self.settings.column, pa.array([self.names[i] for i in scores.argmax(1)]))
