"""An actor with an artifact: vectors of texts, over words that were counted in a sealed set."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any, Literal

from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

FILE = "idf.json"  # in the artifact


class WordSettings(Settings):
    """The words that vectors are over."""

    size: int = Field(300, ge=1)
    """The number of words: those that occur in the most texts."""


def fit(settings: WordSettings, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Return the artifact's file ``idf.json``: the inverse document frequency of each word, in nats.

    ``data`` is the URL of a sealed set with ``text`` and ``fold``; fold -1, the test part, is left out.
    """
    found: Counter[str] = Counter()
    texts = 0
    for table in open_sealed(data).tables(["text", "fold"]):
        for text in table.filter(pc.field("fold") >= 0)["text"].to_pylist():
            found.update(set(text.split()))
            texts += 1
    if not found:
        raise UserError("words: there is no text to count; expected at least one word")
    words = sorted(found, key=lambda word: (-found[word], word))[: settings.size]
    return {"files": {FILE: canonical.dumps({word: math.log(texts / found[word]) for word in words})}, "texts": texts}


class VectorSettings(Settings):
    """The vector of a text."""

    weighting: Literal["binary", "idf"] = "idf"
    """The weight of a word that the text has: 1, or its inverse document frequency."""
    column: str = "vector"
    """The column that is added."""


class Vectors(Actor):
    """Adds the vector of ``text``, of unit length, over the words of an artifact of :func:`fit`."""

    version = 1  # raised whenever the same settings give other bytes
    columns = ("text",)
    batch = BatchLimits(rows=1024)
    settings: VectorSettings

    def __init__(self, settings: VectorSettings, words: str) -> None:
        super().__init__(settings)
        idf: dict[str, float] = json.loads(read_file(words, FILE))
        self.place = {word: place for place, word in enumerate(idf)}
        self.weight = np.array(list(idf.values())) if settings.weighting == "idf" else np.ones(len(idf))

    @classmethod
    def contract(cls, settings: VectorSettings) -> Mapping[str, Any]:
        """Return the column that is added, whose name is a setting."""
        return {"adds": (pa.field(settings.column, pa.list_(pa.float32())),)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the vectors."""
        rows = [self._vector(text) for text in batch["text"].to_pylist()]
        return batch.append_column(self.settings.column, pa.array(rows, pa.list_(pa.float32())))

    def _vector(self, text: str) -> np.ndarray:
        made = np.zeros(len(self.weight), np.float32)
        places = [self.place[word] for word in set(text.split()) if word in self.place]
        made[places] = self.weight[places]
        return made / max(float(np.linalg.norm(made)), 1e-12)
