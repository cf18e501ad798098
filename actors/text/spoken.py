"""Text in the form of speech: small letters, no punctuation, so that every text and every model have the same words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.models.normalise import words
from gristmill.shards.schema import TRANSLATIONS_FIELD
from gristmill.shards.stage import BatchLimits, Stage

EMPTY = "no word"


class Spoken:
    """Rewrites text columns, each in its language; a record of which one has no word left is rejected."""

    def __init__(self, columns: Mapping[str, str]) -> None:
        self._columns = columns

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        reasons: list[str | None] = [None] * len(batch)
        for name, lang in self._columns.items():
            texts = [" ".join(words(text or "", lang)) for text in batch[name].to_pylist()]
            reasons = [
                reason or (None if text else f"{EMPTY}: {name}") for reason, text in zip(reasons, texts, strict=True)
            ]
            batch = set_column(batch, name, pa.array(texts, pa.string()))
        return batch.append_column("reject_reason", pa.array(reasons, pa.string()))


class SpokenTranslations:
    """Rewrites the texts of ``translations``; of those that are then equal the first stays, of empty ones none."""

    def __init__(self, lang: str) -> None:
        self._lang = lang

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        lists = []
        for some in batch["translations"].to_pylist():
            by_text: dict[str, dict[str, Any]] = {}
            for one in some or []:
                text = " ".join(words(one["text"], self._lang))
                if text:
                    by_text.setdefault(text, one | {"text": text})
            lists.append(list(by_text.values()))
        return set_column(batch, "translations", pa.array(lists, TRANSLATIONS_FIELD.type))


def translations_stage(lang: str, name: str = "spoken_translations") -> Stage:
    """Return the stage for what a translator gave."""
    return Stage(
        name,
        "gristmill.actors.text.spoken:SpokenTranslations",
        adds=(TRANSLATIONS_FIELD,),
        params={"lang": lang},
        batch=BatchLimits(1024),
    )


def stage(columns: Mapping[str, str], name: str = "spoken") -> Stage:
    """Return the stage; ``columns`` gives the language of each text column."""
    return Stage(
        name, "gristmill.actors.text.spoken:Spoken", params={"columns": dict(columns)}, batch=BatchLimits(1024)
    )
