"""Mixtures of n-gram models: weights estimated on development text, and one model that approximates the mixture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.ngram_files import FILE
from gristmill.actors.text.language_model import LanguageModel
from gristmill.actors.text.ngram_texts import RowSettings, all_texts
from gristmill.models.ngrams.arpa import Arpa
from gristmill.models.ngrams.counts import split_words
from gristmill.models.text.ngram_mix import em_weights, mixture_logprobs
from gristmill.models.text.ngram_mix import mix as mixed
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext

WEIGHTS = "weights.json"


class MixtureSettings(RowSettings):
    """The weights of a mixture, or the rows of the development text to estimate them on."""

    weights: tuple[float, ...] | None = None
    """Weights of the models, in order; ``None`` maximises the likelihood of the development text."""


def mix(
    settings: MixtureSettings, context: TrainContext, *, models: Sequence[str], dev: tuple[str, str] | None = None
) -> dict[str, Any]:
    """Return ``lm.arpa``, one model for the mixture, and ``weights.json``.

    ``models`` are URLs; ``dev`` is the development text, the URL of a sealed set and a column, which is not read if the
    weights are given. Unknown words are ignored.

    Raises:
        UserError: the models cannot be mixed, or they know none of the development text's words.
    """
    arpas = [Arpa.from_bytes(read_file(url, FILE), url) for url in models]
    measured: dict[str, Any] = {}
    if settings.weights is not None:
        weights = np.asarray(settings.weights, np.float64)
    else:
        logprobs = _logprobs(models, [dev] if dev else [], settings.only)
        try:
            weights = em_weights(logprobs)
        except ValueError as error:
            raise UserError(str(error)) from None
        measured = {
            "tokens": logprobs.shape[1],
            "perplexities": np.exp(-logprobs.mean(axis=1)).tolist(),
            "perplexity": float(np.exp(-mixture_logprobs(logprobs, weights).mean())),
        }
    model = mixed(arpas, weights.tolist())
    body = {"weights": weights.tolist(), **measured}
    return {"files": {FILE: model.chunks, WEIGHTS: canonical.dumps(body)}, **body}


def _logprobs(models: Sequence[str], dev: Sequence[tuple[str, str]], only: str | None) -> np.ndarray:
    """Return (models, tokens) natural logarithms on the development text."""
    sentences: list[list[str]] = []
    for texts in all_texts(dev, only):
        sentences += split_words(
            pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())
        ).to_pylist()
    rows = []
    for url in models:
        model = LanguageModel(url)
        rows.append([logprob for words in sentences for logprob, missing in model.tokens(words) if not missing])
    return np.array(rows, np.float64).reshape(len(rows), -1)
