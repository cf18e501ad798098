"""Pairs become texts to translate, each with its reference."""

from __future__ import annotations

import pyarrow as pa

from shards.schema import TEXTS
from shards.stage import BatchLimits, Stage

REFERENCES = pa.field("references", pa.list_(pa.string()))


class ReferenceTexts:
    """Adds ``text``, the source of a pair, and ``references``, its target alone."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        targets = [[target] for target in batch["target"].to_pylist()]
        batch = batch.append_column("text", batch["source"])
        return batch.append_column(REFERENCES, pa.array(targets, REFERENCES.type))


def stage() -> Stage:
    """Return the stage."""
    adds = (TEXTS.field("text"), REFERENCES)
    return Stage("reference_texts", "actors.reference_texts:ReferenceTexts", adds, batch=BatchLimits(1024))
