"""The actor that writes texts as phonemes, by the text-to-phoneme model of the phoneme teacher."""

from __future__ import annotations

import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.teacher_hama import describe, phonemes_of
from gristmill.shards.stage import BatchLimits, Stage


class Phonemise:
    """Replaces ``text`` by its phonemes, separated by spaces, with word boundaries; a text without any is rejected."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        spoken = [" ".join(phonemes_of(text or "", boundaries=True)) for text in batch["text"].to_pylist()]
        batch = set_column(batch, "text", pa.array(spoken, pa.string()))
        if not all(spoken):
            reasons = [None if text else "no phonemes" for text in spoken]
            batch = set_column(batch, "reject_reason", pa.array(reasons, pa.string()))
        return batch


def stage(name: str = "phonemise") -> Stage:
    """Return the stage; which package version made the phonemes is part of its fingerprint."""
    return Stage(
        name,
        "gristmill.actors.speech.phonemise:Phonemise",
        batch=BatchLimits(256),
        metadata={"phonemes": describe().digest},
    )
