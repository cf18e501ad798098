"""Settings of rescoring and filtering, chosen by the perplexity of development text.

Each candidate is carried through: translations are chosen by it, a language model is estimated of them and mixed with
the in-domain one, and the mixture that foretells the development text best wins. Test text has no part in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.text.choose import CHOICE, best
from gristmill.actors.text.language_model import LanguageModel
from gristmill.actors.text.ngram_texts import all_texts, read_vocabulary
from gristmill.models.text.ngram import estimate
from gristmill.models.text.ngram_mix import em_weights, mixture_logprobs
from gristmill.shards import canonical
from gristmill.shards.dataset import open_sealed
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom

MOST = 20000  # records that are tried; of more, a sample by id


def tune(config: Mapping[str, Any], context: TrainContext) -> dict[str, Any]:
    """Return ``choice.json``: ``weight`` of the in-domain model and ``least`` log-probability a word, each by itself
    (the other one switched off) and ``together``; and the perplexities of all candidates.

    ``translations`` is the URL of a set with ``translations`` and ``lm_logprobs`` of the in-domain model ``lm``;
    ``dev`` a list of a set's URL and a column; ``weights`` and ``keeps`` (shares of translations, best first) are the
    candidates. ``vocabulary`` and ``order`` are those of the language models.

    Raises:
        UserError: there is no translation or no development text, or a share is not above 0 and at most 1.
    """
    keeps = sorted(config["keeps"], reverse=True)
    if not keeps or not all(0 < keep <= 1 for keep in keeps) or not config["weights"]:
        raise UserError(f"filtering: keeps {list(config['keeps'])}; expected shares above 0 and at most 1, and weights")
    trial = _Trial(config)
    alone = {weight: trial.perplexity(weight, 1.0) for weight in sorted({0.0, *config["weights"]})}
    weight = min(alone, key=lambda value: (alone[value], value))
    kept = {keep: trial.perplexity(0.0, keep) for keep in keeps}
    keep = min(kept, key=lambda value: (kept[value], -value))
    both = {share: trial.perplexity(weight, share) for share in keeps}
    share = min(both, key=lambda value: (both[value], -value))
    choice = {
        "rescoring": {"weight": weight, "least": None},
        "filtering": {"weight": 0.0, "least": trial.least(0.0, keep)},
        "together": {"weight": weight, "least": trial.least(weight, share)},
        "keep": keep,
        "keep_together": share,
        "perplexities": {
            "rescoring": [[value, told] for value, told in alone.items()],
            "filtering": [[value, told] for value, told in kept.items()],
            "together": [[value, told] for value, told in both.items()],
        },
    }
    return {"files": {CHOICE: canonical.dumps(choice)}, "keep": keep, "weight": weight}


class _Trial:
    """Tries settings on the translations at hand."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self._lists = list(_lists(config["translations"]))
        self._words = read_vocabulary(config["vocabulary"]).words
        self._order = config["order"]
        dev = [text.as_py().split() for texts in all_texts([config["dev"]]) for text in texts if text.is_valid]
        if not dev or not self._lists:
            what = "development text" if self._lists else "translation"
            raise UserError(f"rescoring and filtering cannot be tuned: there is no {what}; expected at least one")
        self._dev = dev
        self._tried: dict[tuple[float, float], float] = {}
        self._own = self._logprobs(LanguageModel(config["lm"]))

    def perplexity(self, weight: float, keep: float) -> float:
        """Return the perplexity of the development text when translations are so chosen; each is tried once."""
        if (weight, keep) not in self._tried:
            least = self.least(weight, keep)
            texts = [text for text, value in self._chosen(weight) if least is None or value >= least]
            with LanguageModel.of(estimate((text.split() for text in texts), self._order, self._words)) as model:
                both = np.array([self._own, self._logprobs(model)])
            self._tried[weight, keep] = float(np.exp(-mixture_logprobs(both, em_weights(both)).mean()))
        return self._tried[weight, keep]

    def least(self, weight: float, keep: float) -> float | None:
        """Return the log-probability a word that this share of the translations has or is above."""
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
