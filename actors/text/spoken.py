"""Text in spoken form: lower case without punctuation, so that all texts and models share their words.

Digits stay as they are: no number is spelled out.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.models.normalise import words
from gristmill.shards.schema import TRANSLATIONS_FIELD
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

EMPTY = "no word"


class SpokenSettings(Settings):
    """The columns to rewrite."""

    columns: dict[str, str]
    """Text columns, and the language of each."""


class Spoken(Actor):
    """Rewrites text columns in spoken form; a record with a column that has no word left is rejected."""

    name = "spoken"
    version = 2  # joiners, zero-width spaces and apostrophes
    batch = BatchLimits(1024)
    settings: SpokenSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with its columns in spoken form, and ``reject_reason``."""
        reasons: list[str | None] = [None] * len(batch)
        for name, lang in self.settings.columns.items():
            texts = [" ".join(words(text or "", lang)) for text in batch[name].to_pylist()]
            reasons = [
                reason or (None if text else f"{EMPTY}: {name}") for reason, text in zip(reasons, texts, strict=True)
            ]
            batch = set_column(batch, name, pa.array(texts, pa.string()))
        return batch.append_column("reject_reason", pa.array(reasons, pa.string()))


class SpokenTranslationsSettings(Settings):
    """The language of translations."""

    lang: str
    """Their language."""


class SpokenTranslations(Actor):
    """Rewrites ``translations`` in spoken form; of equal ones the first is kept, empty ones are dropped."""

    name = "spoken_translations"
    adds = (TRANSLATIONS_FIELD,)
    batch = BatchLimits(1024)
    settings: SpokenTranslationsSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``translations`` in spoken form."""
        lists = []
        for some in batch["translations"].to_pylist():
            by_text: dict[str, dict[str, Any]] = {}
            for one in some or []:
                text = " ".join(words(one["text"], self.settings.lang))
                if text:
                    by_text.setdefault(text, one | {"text": text})
            lists.append(list(by_text.values()))
        return set_column(batch, "translations", pa.array(lists, TRANSLATIONS_FIELD.type))
