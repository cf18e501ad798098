"""Slot tagging by a linear-chain conditional random field (Lafferty et al., ICML 2001), with CRFsuite.

Features of a token: its word as written and in lower case, prefixes and suffixes, its shape, the same of its
neighbours, and pairs of neighbouring words. They are computed once per request, for all domains. Beside them a tagger
may read the words' states in an encoder, as real-valued features.
"""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pycrfsuite
from pydantic import NonNegativeFloat, PositiveInt

from gristmill.models.nlu.domain import OUTSIDE, Example
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

AFFIX = 3  # letters of the longest prefix and suffix
_MAGIC = b"lCRF"


class CrfSettings(Settings):
    """Training of a slot tagger."""

    l1: NonNegativeFloat = 0.05
    """Weight of the L1 penalty: a larger one leaves fewer features."""
    l2: NonNegativeFloat = 0.05
    """Weight of the L2 penalty: a larger one keeps weights nearer to 0."""
    iterations: PositiveInt = 60
    """Most iterations of L-BFGS."""


def features(tokens: Sequence[str], states: np.ndarray | None = None) -> pycrfsuite.ItemSequence:
    """Return the features of each token of a request; ``states`` (tokens, dim) are those in an encoder."""
    words = [token.lower() for token in tokens]
    shapes = [shape(token) for token in tokens]
    padded = ["<s>", *words, "</s>"]
    pairs = [f"{left} {right}" for left, right in pairwise(padded)]
    items = []
    for place, (token, word) in enumerate(zip(tokens, words, strict=True)):
        item = [
            "bias",
            f"w={word}",
            f"t={token}",
            f"s={shapes[place]}",
            f"-1={padded[place]}",
            f"+1={padded[place + 2]}",
            f"-1 0={pairs[place]}",
            f"0 +1={pairs[place + 1]}",
        ]
        item += [f"p={word[:size]}" for size in range(1, AFFIX + 1)]
        item += [f"e={word[-size:]}" for size in range(1, AFFIX + 1)]
        if place:
            item += [f"-1s={shapes[place - 1]}", f"-1e={words[place - 1][-AFFIX:]}", f"-2={padded[place - 1]}"]
        if place + 1 < len(words):
            item += [f"+1s={shapes[place + 1]}", f"+1e={words[place + 1][-AFFIX:]}", f"+2={padded[place + 3]}"]
        items.append(item)
    if states is None:
        return pycrfsuite.ItemSequence(items)
    names = [f"v{number}" for number in range(states.shape[1])]
    rows = zip(items, states.tolist(), strict=True)
    return pycrfsuite.ItemSequence(
        [dict.fromkeys(item, 1.0) | dict(zip(names, row, strict=True)) for item, row in rows]
    )


def shape(token: str) -> str:
    """Return a token with ``a`` for its letters and ``0`` for its digits, each run once; capitals are ``A``."""
    token = "".join("A" if letter.isupper() else letter for letter in token)
    token = re.sub(r"[^\W\d_A]", "a", token)
    return re.sub(r"(.)\1+", r"\1", re.sub(r"\d", "0", token))


def fit(
    examples: Sequence[Example], settings: CrfSettings | None = None, states: Sequence[np.ndarray] | None = None
) -> bytes | None:
    """Train on the requests of a domain and return the tagger's bytes, ``None`` without slots.

    ``states`` are those of each request's tokens in an encoder, (tokens, dim), if the tagger is to read them. The same
    examples in the same order give the same bytes.
    """
    if all(tag == OUTSIDE for example in examples for tag in example.tags):
        return None
    settings = settings or CrfSettings()
    trainer = pycrfsuite.Trainer(algorithm="lbfgs", verbose=False)
    trainer.set_params(
        {
            "c1": settings.l1,
            "c2": settings.l2,
            "max_iterations": settings.iterations,
            "feature.possible_transitions": True,
        }
    )
    for place, example in enumerate(examples):
        if example.tokens:
            trainer.append(features(example.tokens, states[place] if states else None), list(example.tags))
    # The library writes models to files only.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slots.crfsuite"
        trainer.train(str(path))
        return path.read_bytes()


class Tagger:
    """A trained tagger, from its bytes; ``None`` for a domain without slots."""

    def __init__(self, data: bytes | None) -> None:
        self._tagger: pycrfsuite.Tagger | None = None
        self._data = data  # the library reads it in place, and does not keep it
        if data is not None:
            if not data.startswith(_MAGIC) or int.from_bytes(data[4:8], "little") != len(data):
                raise UserError("slot tagger: not a CRFsuite model, or a truncated one")
            self._tagger = pycrfsuite.Tagger()
            self._tagger.open_inmemory(data)

    @property
    def labels(self) -> list[str]:
        """The tags seen in training, sorted."""
        return [OUTSIDE] if self._tagger is None else sorted(self._tagger.labels())

    def __call__(self, length: int, items: pycrfsuite.ItemSequence) -> tuple[list[str], float]:
        """Return the likeliest tag sequence of a request of ``length`` tokens and its log-probability."""
        if self._tagger is None or not length:
            return [OUTSIDE] * length, 0.0
        self._tagger.set(items)
        tags = self._tagger.tag()
        return tags, self._log(self._tagger.probability(tags))

    def with_marginals(self, length: int, items: pycrfsuite.ItemSequence) -> tuple[list[str], list[float]]:
        """Return the likeliest tag sequence of a request, and the probability of each tag at its place."""
        if self._tagger is None or not length:
            return [OUTSIDE] * length, [1.0] * length
        self._tagger.set(items)
        tags = self._tagger.tag()
        return tags, [self._tagger.marginal(tag, place) for place, tag in enumerate(tags)]

    def logprob(self, items: pycrfsuite.ItemSequence, tags: Sequence[str]) -> float:
        """Return the log-probability of a tag sequence, all tags among :attr:`labels`."""
        if self._tagger is None:
            return 0.0
        self._tagger.set(items)
        return self._log(self._tagger.probability(list(tags)))

    @staticmethod
    def _log(probability: float) -> float:
        return min(0.0, math.log(max(probability, 5e-324)))
