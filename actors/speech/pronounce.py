"""The actor that pronounces words, by the text-to-phoneme model of the phoneme teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.actors.speech.phonemise import with_phonemes
from gristmill.actors.speech.teacher_hama import describe
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits


class Pronounce(Actor):
    """Adds ``phones`` to rows of a ``text`` each, words as a rule: its phonemes between spaces. Some 50 ms a word."""

    name = "pronounce"
    adds = (pa.field("phones", pa.string()),)
    batch = BatchLimits(256)
    settings: Settings

    @classmethod
    def contract(cls, settings: Settings) -> Mapping[str, Any]:
        """Return the digest of the model as schema metadata: another one gives other phonemes."""
        return {"metadata": {"phonemes": describe().digest}}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with phonemes; a text without any is rejected."""
        return with_phonemes(batch, "phones", boundaries=False)
