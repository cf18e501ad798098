"""Texts scored by a trained n-gram model.

    from gristmill.pipelines.text.score import TextScorer
    for one in TextScorer("out/bootstrap-lm").score("turn on the light"):
        print(one.logprob, one.perplexity, one.text)

Over records the same is done by the actor :class:`~gristmill.actors.text.language_model.ScoreText`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa

from gristmill.actors.ngram_files import BINARIES, FILE, STORE
from gristmill.actors.text.language_model import ScoreText, TextScoreSettings
from gristmill.models.languages import exists as language_exists
from gristmill.models.normalise import words
from gristmill.pipelines.finished import chosen, open_finished
from gristmill.pipelines.inline import in_batches, texts_of
from gristmill.pipelines.text.bootstrap_report import FOLDER
from gristmill.shards import processor, store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import Damaged, GristmillError, UserError

_FIELDS = ("text", "logprob", "words", "oov", "oov_logprob")
_FILES = (".arpa", STORE, *BINARIES)


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
    if not count:
        return math.nan
    return math.exp(-logprob / count) if -logprob / count < 709 else math.inf


class TextScorer:
    """Scores texts by an n-gram model: a file, its folder, or the output of a run that bootstraps one.

    Of a run it is that of ``system``, or of the best of its systems whose models are kept for use (``in_domain`` and
    ``combined``), made of all in-domain text.

    Texts are written as those that the recipe trains models on (:func:`gristmill.models.normalise.words`): in lower
    case as ``lang`` has it, without punctuation and symbols. Nothing is spelled out: ``10`` stays a number in digits,
    which a model of texts without digits does not know. Of a run, ``lang`` is its target language. Without ``lang``
    texts are split at spaces.

    Raises:
        UserError: there is no such model or language, it is KenLM's binary and KenLM is not installed, or this machine
            does not offer the instruction set.
        GristmillError: it is damaged.
    """

    def __init__(self, model: store.Place, *, system: str | None = None, lang: str | None = None) -> None:
        processor.check()
        if lang is not None and not language_exists(lang):
            raise UserError(f"lang={lang}: there is no such language; expected a tag, such as hi or en")
        url, self.said, of_run = find_language_model(model, system)
        self.lang = lang if lang is not None else of_run
        try:
            self._scores = ScoreText(TextScoreSettings(), url)
        except Damaged as error:
            raise GristmillError(f"{error.url}: {error.fault}; expected the model as it was written") from None

    def score(self, *texts: str | Iterable[str | None] | None) -> Iterator[ScoredText | None]:
        """Yield the score of each text, of single ones and of those of iterables.

        It is ``None`` for ``None`` and for a text without a word.
        """
        for some in in_batches(texts_of(texts)):
            written = [text if text is None or self.lang is None else " ".join(words(text, self.lang)) for text in some]
            given = [(text or "").strip() or None for text in written]
            rows = self._scores(pa.table({"text": pa.array(given, pa.string())})).to_pylist()
            for text, row in zip(given, rows, strict=True):
                values = {name.removeprefix("lm_"): value for name, value in row.items()}
                yield None if text is None else ScoredText(**{name: values[name] for name in _FIELDS})


def find_language_model(place: store.Place, system: str | None = None) -> tuple[str, str, str | None]:
    """Return the URL of a model, which it is in words, and the language of its run, if it is a run's.

    Raises:
        UserError: there is none.
    """
    url = store.absolute(place)
    if url.endswith(_FILES) or get_artifact(url) is not None or store.exists(store.join(url, FILE)):
        if system is not None:
            raise UserError(f"{url}: one model; a system can be chosen of the output of a run only")
        return url, url, None
    found = open_finished(url, "score", "an n-gram model (.store, .arpa, KenLM's binary, or a folder with lm.arpa)")
    name, said = chosen(found, system)
    recipe = found.report["recipe"]
    sizes = recipe["in_domain"]["sizes"]
    if name == "in_domain":
        model = found.trained["in_domain_lm"][sizes.index(min(sizes))]
    else:
        model = store.join(url, FOLDER, f"1-{min(sizes)}.arpa")
    return model, f"{said}: {model}", recipe["translator"]["target_lang"]
