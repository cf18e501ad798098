"""Tuning of rescoring and filtering by the perplexity of development text.

Each candidate is evaluated end to end: it chooses translations, a language model is estimated from them and mixed with
the in-domain one, and the mixture with the lowest perplexity on the development text wins. Test text is not used.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal, TypedDict

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveFloat

from gristmill.actors.text.choose import best
from gristmill.actors.text.language_model import LanguageModel
from gristmill.actors.text.ngram_texts import all_texts, read_vocabulary
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.text.ngram_mix import em_weights, mixture_logprobs
from gristmill.shards import canonical
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import Settings

CHOICE = "choice.json"
MOST = 20000  # records used for tuning; of more, a sample by id

Share = Annotated[float, Field(gt=0, le=1)]
Way = Literal["rescoring", "filtering", "together"]


class Rule(TypedDict):
    """The rule by which translations are chosen, see :class:`gristmill.actors.text.choose.ChoiceSettings`."""

    weight: float
    least: float | None


class Choice(TypedDict):
    """The result of tuning: a rule per technique, the shares of translations they keep, and all perplexities."""

    rescoring: Rule
    filtering: Rule
    together: Rule
    keep: float
    keep_together: float
    perplexities: dict[Way, list[tuple[float, float]]]


class TuningSettings(Settings):
    """The candidates for rescoring and filtering."""

    weights: tuple[PositiveFloat, ...] = Field((0.25, 0.5, 1.0, 2.0, 4.0), min_length=1)
    """Weights of the in-domain model's score per word."""
    keeps: tuple[Share, ...] = Field((1.0, 0.8, 0.6, 0.4, 0.2), min_length=1)
    """Shares of the translations to keep, best first."""


class Tuning(TuningSettings):
    """The candidates, and the language models estimated from their translations."""

    ngrams: NgramSettings = NgramSettings()
    """The models of the chosen translations."""


def tune(
    settings: Tuning, context: TrainContext, *, translations: str, lm: str, dev: tuple[str, str], vocabulary: str
) -> dict[str, Any]:
    """Return ``choice.json``: the best rules and the perplexities of all candidates.

    Rules are given for the ``weight`` of the in-domain model and the ``least`` log-probability per word, each tuned
    alone (the other switched off) and ``together``.

    ``translations`` is the URL of a set with ``translations`` and ``lm_logprobs`` of the in-domain model ``lm``;
    ``dev`` a set's URL and a column; ``vocabulary`` is that of the language models.

    Raises:
        UserError: there are no translations or no development text.
    """
    keeps = sorted(settings.keeps, reverse=True)
    trial = _Trial(settings.ngrams, translations, lm, dev, vocabulary)
    alone = {weight: trial.perplexity(weight, 1.0) for weight in sorted({0.0, *settings.weights})}
    weight = min(alone, key=lambda value: (alone[value], value))
    kept = {keep: trial.perplexity(0.0, keep) for keep in keeps}
    keep = min(kept, key=lambda value: (kept[value], -value))
    both = {share: trial.perplexity(weight, share) for share in keeps}
    share = min(both, key=lambda value: (both[value], -value))
    choice: Choice = {
        "rescoring": {"weight": weight, "least": None},
        "filtering": {"weight": 0.0, "least": trial.least(0.0, keep)},
        "together": {"weight": weight, "least": trial.least(weight, share)},
        "keep": keep,
        "keep_together": share,
        "perplexities": {
            "rescoring": list(alone.items()),
            "filtering": list(kept.items()),
            "together": list(both.items()),
        },
    }
    return {"files": {CHOICE: canonical.dumps(choice)}, "keep": keep, "weight": weight}


class _Trial:
    """Evaluates candidates on the given translations."""

    def __init__(self, ngrams: NgramSettings, translations: str, lm: str, dev: tuple[str, str], words: str) -> None:
        self._ngrams = ngrams
        self._lists = list(_lists(translations))
        self._words = read_vocabulary(words).words
        self._dev = [text.as_py().split() for texts in all_texts([dev]) for text in texts if text.is_valid]
        if not self._dev or not self._lists:
            missing = "development text" if self._lists else "translation"
            raise UserError(f"rescoring and filtering cannot be tuned: there is no {missing}; expected at least one")
        self._tried: dict[tuple[float, float], float] = {}
        self._own = self._logprobs(LanguageModel(lm))

    def perplexity(self, weight: float, keep: float) -> float:
        """Return the development perplexity of a candidate; results are cached."""
        if (weight, keep) not in self._tried:
            least = self.least(weight, keep)
            texts = [text for text, value in self._chosen(weight) if least is None or value >= least]
            with LanguageModel.of(estimate((text.split() for text in texts), self._ngrams, self._words)) as model:
                both = np.array([self._own, self._logprobs(model)])
            self._tried[weight, keep] = float(np.exp(-mixture_logprobs(both, em_weights(both)).mean()))
        return self._tried[weight, keep]

    def least(self, weight: float, keep: float) -> float | None:
        """Return the log-probability per word that this share of the translations reaches."""
        if keep == 1.0:
            return None
        values = sorted((value for _, value in self._chosen(weight)), reverse=True)
        return values[max(1, round(keep * len(values))) - 1]

    def _chosen(self, weight: float) -> list[tuple[str, float]]:
        found = (best(some, logprobs, weight) for some, logprobs in self._lists)
        return [one for one in found if one is not None]

    def _logprobs(self, model: LanguageModel) -> list[float]:
        return [logprob for words in self._dev for logprob, missing in model.tokens(words) if not missing]


def _lists(url: str) -> Iterator[tuple[Sequence[dict[str, Any]], Sequence[float]]]:
    data = open_sealed(url)
    draw = RecordRandom(0, "tuning")
    share = MOST / max(1, data.records)
    for table in data.tables(["id", "translations", "lm_logprobs"]):
        if share < 1:
            table = table.filter(pa.array([draw(name).random() < share for name in table["id"].to_pylist()]))
        for row in table.to_pylist():
            if row["translations"]:
                yield row["translations"], row["lm_logprobs"]
