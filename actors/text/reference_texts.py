"""Pairs as texts to translate with references, and their exclusion from training."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards.dataset import open_sealed
from gristmill.shards.schema import TEXTS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

IN_REFERENCES = "a reference"
REFERENCES = pa.field("references", pa.list_(pa.string()))


class ReferenceTexts(Actor):
    """Adds ``text``, the source of a pair, and ``references``, a list of its target."""

    name = "reference_texts"
    adds = (TEXTS.field("text"), REFERENCES)
    batch = BatchLimits(1024)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``text`` and ``references``."""
        targets = [[target] for target in batch["target"].to_pylist()]
        batch = batch.append_column("text", batch["source"])
        return batch.append_column(REFERENCES, pa.array(targets, REFERENCES.type))


class KeptApart(Actor):
    """Rejects pairs whose source is the text of a reference, both in spoken form.

    ``references``: the set of references.
    """

    name = "kept_apart"

    def __init__(self, settings: Settings, references: str) -> None:
        super().__init__(settings)
        tables = open_sealed(references).tables(["text"])
        self._texts = pa.array(sorted({text for table in tables for text in table["text"].to_pylist()}), pa.string())

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        found = pc.is_in(batch["source"], value_set=self._texts)
        reasons = pc.if_else(found, pa.scalar(IN_REFERENCES), pa.scalar(None, pa.string()))
        return batch.append_column("reject_reason", reasons)
