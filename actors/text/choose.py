"""Choice of one translation from each n-best list, by the scores of the translator and the in-domain language model.

Punjabi et al., ASRU 2019: rescoring keeps the translation with the best weighted sum of the two scores, normalised per
unit and per word; filtering drops translations that the in-domain model finds too improbable.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.shards.schema import PAIR_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

NONE, IMPROBABLE = "no translation", "too improbable for the in-domain model"
PER_WORD = pa.field("in_domain_logprob", pa.float32())  # of the chosen one, natural logarithm per word, end included
_FIELDS = {field.name: field for field in PAIR_FIELDS}


def scores(translations: Sequence[dict[str, Any]], logprobs: Sequence[float], weight: float) -> list[float]:
    """Return the score of each translation of a list: log-probability per unit plus ``weight`` times that per word."""
    return [
        one["logprob"] / max(1, one["units"]) + weight * per_word(one["text"], logprob)
        for one, logprob in zip(translations, logprobs, strict=True)
    ]


def per_word(text: str, logprob: float) -> float:
    """Return a sentence's log-probability per word, counting its end as one."""
    return logprob / (len(text.split()) + 1)


def best(translations: Sequence[dict[str, Any]], logprobs: Sequence[float], weight: float) -> tuple[str, float] | None:
    """Return the translation with the best score, the first of equals, and its in-domain log-probability per word.

    The number is in single precision, as it is stored: a threshold set to it keeps the record that it came from.
    """
    if not translations:
        return None
    ranked = scores(translations, logprobs, weight)
    place = max(range(len(ranked)), key=lambda n: (ranked[n], -n))
    text = translations[place]["text"]
    return text, float(np.float32(per_word(text, logprobs[place])))


class ChoiceSettings(Settings):
    """Settings of rescoring and filtering."""

    source_lang: str
    """The language of the texts."""
    target_lang: str
    """The language of the translations."""
    weight: float = Field(0.0, ge=0)
    """The weight of the in-domain model's score per word; 0 takes the translator's best."""
    least: float | None = None
    """The lowest log-probability per word that is kept; ``None`` keeps all."""


class Choose(Actor):
    """Makes a pair of a ``text`` from its ``translations`` and the in-domain model's ``lm_logprobs``."""

    name = "choose"
    adds = (*(field for name, field in _FIELDS.items() if name != "id"), PER_WORD)
    drops = ("translations", "lm_logprobs")
    batch = BatchLimits(256)
    settings: ChoiceSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the columns of pairs, ``in_domain_logprob`` and ``reject_reason``."""
        weight, least = self.settings.weight, self.settings.least
        targets, values, reasons = [], [], []
        for row in batch.select(["translations", "lm_logprobs"]).to_pylist():
            found = best(row["translations"] or [], row["lm_logprobs"] or [], weight)
            text, value = found or ("", None)
            targets.append(text)
            values.append(value)
            improbable = value is not None and least is not None and value < least
            reasons.append(NONE if not text else IMPROBABLE if improbable else None)
        for field, column in (
            (_FIELDS["source"], batch["text"].to_pylist()),
            (_FIELDS["target"], targets),
            (_FIELDS["source_lang"], [self.settings.source_lang] * len(batch)),
            (_FIELDS["target_lang"], [self.settings.target_lang] * len(batch)),
            (_FIELDS["label_source"], ["synthetic"] * len(batch)),
            (PER_WORD, values),
        ):
            batch = set_column(batch, field.name, pa.array(column, field.type))
        return batch.append_column("reject_reason", pa.array(reasons, pa.string()))
