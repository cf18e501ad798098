"""Texts scored by a trained n-gram model.

from gristmill.pipelines.text.score import TextScorer
for one in TextScorer("out/bootstrap-lm").score(["turn on the light"]):
    print(one.logprob, one.perplexity, one.text)
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from gristmill.actors.text.language_model import ScoreText, TextScoreSettings, available
from gristmill.models.normalise import words
from gristmill.pipelines.finished import chosen, open_finished
from gristmill.pipelines.inline import in_batches
from gristmill.pipelines.text.bootstrap_report import FOLDER
from gristmill.shards import store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import Damaged, GristmillError, UserError

_FILES = (".arpa", ".binary", ".bin", ".klm", ".mmap")
_PUBLISHED = re.compile(r"1-(\d+)\.arpa")


@dataclass(frozen=True)
class ScoredText:
    """A text with the natural logarithm of its probability, its end included."""

    text: str
    """As it was scored."""
    logprob: float
    words: int
    """Of the text, and 1 for its end."""
    oov: int
    """Words that the model does not know."""
    oov_logprob: float
    """The share of ``logprob`` that these have."""

    @property
    def perplexity(self) -> float:
        """The perplexity of a word."""
        return perplexity(self.logprob, self.words)


def perplexity(logprob: float, count: int) -> float:
    """Return the perplexity of ``count`` words; infinite where no double holds it.

    Example:
        >>> round(perplexity(-4.6052, 2), 2)
        10.0
    """
    return math.exp(min(-logprob / count, 709.0)) if count else math.nan


class TextScorer:
    """Scores texts by an n-gram model: a file, its folder, or the output of a run that bootstraps one.

    Texts are written as those that the model was made of: in spoken form in ``lang`` (lower case, no punctuation); of a
    run that is its target language. Without ``lang`` they are split at spaces.

    Raises:
        UserError: there is no such model, or KenLM is not installed.
        GristmillError: it is damaged.
    """

    def __init__(self, model: str, *, lang: str | None = None) -> None:
        available()
        url, self.said, of_run = find_language_model(model)
        self.lang = lang if lang is not None else of_run
        try:
            self._scores = ScoreText(TextScoreSettings(), url)
        except Damaged as error:
            raise GristmillError(f"{error.url}: {error.fault}; expected the model as it was written") from None

    def score(self, texts: Iterable[str | None]) -> Iterator[ScoredText | None]:
        """Yield the score of each text; ``None`` for ``None`` and for a text without a word."""
        for some in in_batches(texts):
            written = [text if text is None or self.lang is None else " ".join(words(text, self.lang)) for text in some]
            given = [text or None for text in (None if text is None else text.strip() for text in written)]
            for text, row in zip(
                given, self._scores(pa.table({"text": pa.array(given, pa.string())})).to_pylist(), strict=True
            ):
                yield (
                    None
                    if text is None
                    else ScoredText(text, row["lm_logprob"], row["lm_words"], row["lm_oov"], row["lm_oov_logprob"])
                )


def find_language_model(url: str) -> tuple[str, str, str | None]:
    """Return the URL of a model, which it is in words, and the language of its run, if it is a run's.

    Raises:
        UserError: there is none.
    """
    url = store.absolute(url)
    if url.endswith(_FILES) or get_artifact(url) is not None or store.exists(store.join(url, "lm.arpa")):
        return url, url, None
    found = open_finished(url, "score", "an n-gram model (.arpa, KenLM's binary, or a folder with lm.arpa)")
    _, said = chosen(found, None)
    sizes = sorted(
        int(match[1]) for name in store.list_names(store.join(url, FOLDER)) if (match := _PUBLISHED.fullmatch(name))
    )
    if not sizes:
        raise UserError(f"{store.join(url, FOLDER)}: holds no model; run the recipe again, which writes it there")
    model = store.join(url, FOLDER, f"1-{sizes[0]}.arpa")
    return model, f"{said}: {model}", found.report["recipe"]["translator"]["target_lang"]
