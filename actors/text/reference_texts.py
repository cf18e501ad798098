"""Pairs become texts to translate, each with its reference, and are kept apart from those that train."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.schema import TEXTS
from gristmill.shards.stage import ArtifactRef, BatchLimits, Stage

IN_REFERENCES = "a reference"
REFERENCES = pa.field("references", pa.list_(pa.string()))


class ReferenceTexts:
    """Adds ``text``, the source of a pair, and ``references``, its target alone."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        targets = [[target] for target in batch["target"].to_pylist()]
        batch = batch.append_column("text", batch["source"])
        return batch.append_column(REFERENCES, pa.array(targets, REFERENCES.type))


class KeptApart:
    """Turns down pairs whose source is the text of a reference."""

    def __init__(self, references: str) -> None:
        tables = open_sealed(references).tables(["text"])
        self._texts = pa.array(sorted({text for table in tables for text in table["text"].to_pylist()}), pa.string())

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        found = pc.is_in(batch["source"], value_set=self._texts)
        reasons = pc.if_else(found, pa.scalar(IN_REFERENCES), pa.scalar(None, pa.string()))
        return batch.append_column("reject_reason", reasons)


def apart_stage(references: SealedSet) -> Stage:
    """Return the stage that keeps references out of pairs; the sources of both are in spoken form."""
    ref = ArtifactRef(references.url, references.digest)
    return Stage("kept_apart", "gristmill.actors.text.reference_texts:KeptApart", artifacts={"references": ref})


def stage() -> Stage:
    """Return the stage that makes references of pairs."""
    adds = (TEXTS.field("text"), REFERENCES)
    return Stage(
        "reference_texts", "gristmill.actors.text.reference_texts:ReferenceTexts", adds, batch=BatchLimits(1024)
    )
