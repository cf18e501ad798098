"""One translation of each n-best list is chosen, with the in-domain language model's word on it; others are filtered.

Punjabi et al., ASRU 2019: rescoring keeps the translation with the best sum of both models' scores a unit and a word;
filtering drops what the in-domain model finds too improbable.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.shards.schema import PAIR_FIELDS
from gristmill.shards.stage import BatchLimits, Stage

NONE, IMPROBABLE = "no translation", "too improbable for the in-domain model"
PER_WORD = pa.field("in_domain_logprob", pa.float32())  # of the one chosen, natural logarithm a word, end included
_FIELDS = {field.name: field for field in PAIR_FIELDS}
CHOICE = "choice.json"  # of a tuning, see gristmill.actors.text.lm_tuning


def scores(translations: Sequence[dict[str, Any]], logprobs: Sequence[float], weight: float) -> list[float]:
    """Return the score of each translation of a list: log-probability a unit, and ``weight`` times that a word."""
    return [
        one["logprob"] / max(1, one["units"]) + weight * per_word(one["text"], logprob)
        for one, logprob in zip(translations, logprobs, strict=True)
    ]


def per_word(text: str, logprob: float) -> float:
    """Return a sentence's log-probability a word, its end counted as one."""
    return logprob / (len(text.split()) + 1)


def best(translations: Sequence[dict[str, Any]], logprobs: Sequence[float], weight: float) -> tuple[str, float] | None:
    """Return the translation with the best score, of equals the first, and its log-probability a word in-domain.

    The number is as it is stored, in single precision: a threshold that was taken from it keeps what it was taken from.
    """
    if not translations:
        return None
    ranked = scores(translations, logprobs, weight)
    place = max(range(len(ranked)), key=lambda n: (ranked[n], -n))
    text = translations[place]["text"]
    return text, float(np.float32(per_word(text, logprobs[place])))


class Choose:
    """Turns a ``text`` with its ``translations`` and the in-domain model's ``lm_logprobs`` into a pair.

    ``least``: the lowest log-probability a word that is kept; none keeps all.
    """

    def __init__(self, langs: Sequence[str], weight: float, least: float | None) -> None:
        self._langs, self._weight = langs, weight
        self._least = -math.inf if least is None else least

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        targets, told, reasons = [], [], []
        for row in batch.select(["translations", "lm_logprobs"]).to_pylist():
            found = best(row["translations"] or [], row["lm_logprobs"] or [], self._weight)
            text, value = found or ("", None)
            targets.append(text)
            told.append(value)
            reasons.append(NONE if not text else IMPROBABLE if value is not None and value < self._least else None)
        for field, values in (
            (_FIELDS["source"], batch["text"].to_pylist()),
            (_FIELDS["target"], targets),
            (_FIELDS["source_lang"], [self._langs[0]] * len(batch)),
            (_FIELDS["target_lang"], [self._langs[1]] * len(batch)),
            (_FIELDS["label_source"], ["synthetic"] * len(batch)),
            (PER_WORD, told),
        ):
            batch = set_column(batch, field.name, pa.array(values, field.type))
        return batch.append_column("reject_reason", pa.array(reasons, pa.string()))


def stage(
    source_lang: str, target_lang: str, *, weight: float = 0.0, least: float | None = None, name: str = "choose"
) -> Stage:
    """Return the stage; weight 0 takes the translator's best, and without ``least`` nothing is filtered."""
    return Stage(
        name,
        "gristmill.actors.text.choose:Choose",
        adds=(*(field for name, field in _FIELDS.items() if name != "id"), PER_WORD),
        drops=("translations", "lm_logprobs"),
        params={"langs": [source_lang, target_lang], "weight": weight, "least": least},
        batch=BatchLimits(256),
    )
