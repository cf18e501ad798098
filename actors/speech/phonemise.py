"""The actor that converts texts to phonemes, by the text-to-phoneme model of the phoneme teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.teacher_hama import describe, phonemes_of
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits


class Phonemise(Actor):
    """Replaces ``text`` by its phonemes, separated by spaces, with word boundaries; a text without any is rejected."""

    name = "phonemise"
    batch = BatchLimits(256)
    settings: Settings

    @classmethod
    def contract(cls, settings: Settings) -> Mapping[str, Any]:
        """Return the digest of the model as schema metadata: other models give other phonemes."""
        return {"metadata": {"phonemes": describe().digest}}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with phonemes in ``text``."""
        return with_phonemes(batch, "text", boundaries=True)


def with_phonemes(batch: pa.Table, column: str, *, boundaries: bool) -> pa.Table:
    """Return a batch with the phonemes of ``text`` in a column; a text without any is rejected."""
    spoken = [" ".join(phonemes_of(text or "", boundaries=boundaries)) for text in batch["text"].to_pylist()]
    batch = set_column(batch, column, pa.array(spoken, pa.string()))
    if not all(spoken):
        reasons = [None if text else "no phonemes" for text in spoken]
        batch = set_column(batch, "reject_reason", pa.array(reasons, pa.string()))
    return batch
