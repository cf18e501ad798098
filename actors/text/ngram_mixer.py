"""Mixtures of n-gram models: their weights on a development text, and one model that stands for the mixture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.text.language_model import FILE, LanguageModel
from gristmill.actors.text.ngram_texts import all_texts
from gristmill.models.text.arpa import Arpa
from gristmill.models.text.ngram_counts import split_words
from gristmill.models.text.ngram_mix import em_weights, mixture_logprobs
from gristmill.models.text.ngram_mix import mix as mixed
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext

WEIGHTS = "weights.json"


def mix(config: Mapping[str, Any], context: TrainContext) -> dict[str, Any]:
    """Return ``lm.arpa``, one model for the mixture, and ``weights.json``.

    ``models`` are URLs, ``dev`` pairs of a sealed set's URL and a column, ``only`` as in
    :func:`gristmill.actors.text.ngram_trainer.train`; ``weights`` may be given, then no text is read. Unknown words do
    not count.

    Raises:
        UserError: the models cannot be mixed, or none of the development text's words is known.
    """
    models = [Arpa.from_bytes(read_file(url, FILE), url) for url in config["models"]]
    told: dict[str, Any] = {}
    if config.get("weights") is not None:
        weights = np.asarray(config["weights"], np.float64)
    else:
        logprobs = _logprobs(config)
        try:
            weights = em_weights(logprobs)
        except ValueError as error:
            raise UserError(str(error)) from None
        told = {
            "tokens": logprobs.shape[1],
            "perplexities": np.exp(-logprobs.mean(axis=1)).tolist(),
            "perplexity": float(np.exp(-mixture_logprobs(logprobs, weights).mean())),
        }
    model = mixed(models, weights.tolist())
    body = {"weights": weights.tolist(), **told}
    return {"files": {FILE: model.chunks, WEIGHTS: canonical.dumps(body)}, **body}


def _logprobs(config: Mapping[str, Any]) -> np.ndarray:
    """Return (models, tokens) natural logarithms on the development text."""
    sentences: list[list[str]] = []
    for texts in all_texts(config["dev"], config.get("only")):
        sentences += split_words(
            pa.concat_arrays(texts.chunks) if texts.num_chunks else pa.array([], pa.string())
        ).to_pylist()
    rows = []
    for url in config["models"]:
        model = LanguageModel(url)
        rows.append([logprob for words in sentences for logprob, missing in model.tokens(words) if not missing])
    return np.array(rows, np.float64).reshape(len(rows), -1)
