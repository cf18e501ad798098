"""Vocabularies, and n-gram models of text that one process holds the counts of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.actors.text.language_model import FILE
from gristmill.actors.text.ngram_texts import VOCABULARY, all_texts, counted, read_vocabulary
from gristmill.actors.text.ngram_words import tally, tally_of_units
from gristmill.models.text.ngram import check_settings, estimate_counts
from gristmill.models.text.ngram_counts import SPECIALS, Vocabulary
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext

AT_ONCE = 1 << 21  # words that are counted at a time


def train(config: Mapping[str, Any], context: TrainContext) -> dict[str, Any]:
    """Estimate a model and return its file, ``lm.arpa``.

    ``texts`` are pairs of the URL of a sealed set and a column, ``only`` may name a column of truth values that
    chooses rows of the sets that have it, ``vocabulary`` is the URL of one, ``order`` and ``prune`` are as in
    :func:`gristmill.models.text.ngram.estimate`.

    Raises:
        UserError: a setting is out of its range, a column is missing, or there is no text.
    """
    order = int(config["order"])
    prune = check_settings(order, config["prune"])
    vocabulary = read_vocabulary(config["vocabulary"])
    texts = all_texts(config["texts"], config.get("only"))
    counts, words, sentences = counted(texts, vocabulary, order, AT_ONCE)
    model = estimate_counts(counts, vocabulary, prune)
    grams = [len(grams) for grams in model.orders]
    return {"files": {FILE: model.chunks}, "words": words, "sentences": sentences, "grams": grams}


def collect(config: Mapping[str, Any], context: TrainContext) -> dict[str, Any]:
    """Collect the words that are in the texts at least ``min_count`` times and return ``vocabulary.txt``, sorted.

    ``texts`` and ``only`` are as in :func:`train`; or ``units`` is the URL of a set in which
    :class:`gristmill.actors.text.ngram_words.CollectWords` counted them. ``words`` are added whatever their count.

    Raises:
        UserError: a column is missing, or there is no word.
    """
    if "units" in config:
        found = tally_of_units(config["units"])
    else:
        found = tally(all_texts(config["texts"], config.get("only")))
    least = int(config.get("min_count", 1))
    chosen = {word for word, times in found.items() if times >= least} | set(config.get("words", ()))
    chosen -= {"", *SPECIALS}
    if not chosen:
        raise UserError(f"vocabulary: none of {len(found)} words is in the text at least {least} times")
    names = Vocabulary(chosen).words
    return {"files": {VOCABULARY: "".join(f"{word}\n" for word in names).encode()}, "words": len(names)}
