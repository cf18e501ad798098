"""Vocabularies, and n-gram models of text whose counts fit into one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field

from gristmill.actors.ngram_files import FILE
from gristmill.actors.text.ngram_texts import (
    VOCABULARY,
    CountSettings,
    RowSettings,
    all_texts,
    counted,
    read_vocabulary,
)
from gristmill.actors.text.ngram_words import tally, tally_of_units
from gristmill.models.ngrams.counts import SPECIALS, Vocabulary
from gristmill.models.ngrams.estimate import NgramSettings, estimate_counts
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext


class NgramTraining(NgramSettings, CountSettings, RowSettings):
    """A model, the rows of its text, and its counting."""


class VocabularySettings(RowSettings):
    """The words of a vocabulary."""

    min_count: int = Field(1, ge=1)
    """The least number of occurrences of a word in the texts."""
    words: tuple[str, ...] = ()
    """Words that are included whatever their count."""


def train(
    settings: NgramTraining, context: TrainContext, *, texts: Sequence[tuple[str, str]], vocabulary: str
) -> dict[str, Any]:
    """Estimate a model and return its file, ``lm.arpa``.

    ``texts`` are pairs of a sealed set's URL and a column, ``vocabulary`` is the URL of a vocabulary.

    Raises:
        UserError: a column is missing, or there is no text.
    """
    words = read_vocabulary(vocabulary)
    counts, read, sentences = counted(all_texts(texts, settings.only), words, settings.order, settings.at_once)
    model = estimate_counts(counts, words, settings)
    grams = [len(grams) for grams in model.orders]
    return {"files": {FILE: model.chunks}, "words": read, "sentences": sentences, "grams": grams}


def collect(
    settings: VocabularySettings,
    context: TrainContext,
    *,
    texts: Sequence[tuple[str, str]] = (),
    units: str | None = None,
) -> dict[str, Any]:
    """Collect the words of texts and return ``vocabulary.txt``, sorted.

    ``texts`` are as in :func:`train`; alternatively ``units`` is the URL of a set whose words
    :class:`gristmill.actors.text.ngram_words.CollectWords` counted.

    Raises:
        UserError: a column is missing, or there are no words.
    """
    found = tally(all_texts(texts, settings.only)) if units is None else tally_of_units(units)
    chosen = {word for word, times in found.items() if times >= settings.min_count} | set(settings.words)
    chosen -= {"", *SPECIALS}
    if not chosen:
        raise UserError(
            f"vocabulary: none of {len(found)} words occurs in the text at least {settings.min_count} times"
        )
    names = Vocabulary(chosen).words
    return {"files": {VOCABULARY: "".join(f"{word}\n" for word in names).encode()}, "words": len(names)}
