"""Hypotheses of one recogniser rescored by how well another output of it, over phones, hears their words.

Technique 3 of the decoder biasing of Dingliwal et al. (SLT 2022): the phones of each text of an n-best list are aligned
with the output of a phone head, and the cost of the alignment is counted against the text. Names that are spelled
unlike anything the subword head has learned are often heard right in phones.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from pydantic import Field

from gristmill.models.speech.decode import checked
from gristmill.models.speech.decoder import Decoded
from gristmill.models.speech.pronunciations import Pronunciations
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

_LEAST = -1000.0  # nats: of a probability that is 0


class RescoringSettings(Settings):
    """What the phones of a hypothesis weigh."""

    weight: float = Field(0.5, ge=0)
    """Score taken from a hypothesis for each nat of its phone distance."""
    unknown: float = Field(0.5, ge=0)
    """Nats of distance for each phone heard in place of a word without pronunciation, and for at least one. On read
    speech of other speakers right words cost a good phone model 0.4 for each of their phones."""


class PhoneRescorer:
    """Orders n-best lists anew by the distance of their words' phones from what a phone head hears.

    Example:
        >>> from gristmill.models.speech.units import phonemes
        >>> units = phonemes(["a", "b", "n"])
        >>> rescorer = PhoneRescorer(Pronunciations({"ban": ["b a n"], "an": ["a n"]}, units))
        >>> log_probs = np.log(np.full((3, 4), 0.1) + 0.6 * np.eye(4)[[2, 1, 3]])
        >>> rescorer.distances([["ban"], ["an"], ["nab"]], log_probs).round(2).tolist()
        [0.0, 1.95, 1.5]
        >>> ranked = rescorer.rescored([Decoded("an", (), (), -1.0, 0.5), Decoded("ban", (), (), -1.5, 0.3)], log_probs)
        >>> [(one.text, round(one.score, 2), round(one.share, 2)) for one in ranked]
        [('ban', -1.5, 0.49), ('an', -1.97, 0.31)]
    """

    def __init__(self, pronunciations: Pronunciations, settings: RescoringSettings | None = None) -> None:
        self.settings = settings or RescoringSettings()
        self._pronunciations = pronunciations

    def rescored(self, hypotheses: Sequence[Decoded], log_probs: np.ndarray) -> list[Decoded]:
        """Return hypotheses with new scores and shares, best first, by phone log-probabilities (T, P).

        ``log_probs`` are of the frames of the hypotheses' whole utterance. A score loses the weighted distance; the
        share that the hypotheses had together is dealt out anew. Of equal scores the one given first is the better.

        Raises:
            UserError: ``log_probs`` has another shape.
        """
        found = self.distances([one.text.split() for one in hypotheses], log_probs)
        scores = np.array([one.score for one in hypotheses]) - (self.settings.weight * found if len(found) else 0.0)
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        mass = np.exp(ranked - ranked[0]) if len(ranked) and ranked[0] > -math.inf else np.ones(len(ranked))
        shares = mass / mass.sum() * sum(one.share for one in hypotheses)
        return [
            replace(hypotheses[place], score=score, share=share)
            for place, score, share in zip(order, ranked.tolist(), shares.tolist(), strict=True)
        ]

    def distances(self, texts: Sequence[Sequence[str]], log_probs: np.ndarray) -> np.ndarray:
        """Return the phone distances (n,) of texts, each a list of words, from log-probabilities (T, P): nats.

        The distance is the log-probability of the best path of any phones less that of the best path through the
        words' phones (CTC, Viterbi), by the best of each word's pronunciations; between words there may be blanks and,
        if the units have it, the word boundary. A word without pronunciation is any phones that are heard, at
        :attr:`RescoringSettings.unknown` nats each: what a right word costs or somewhat more, so that such a word
        neither wins nor loses a list by itself. A text with more phones than there are frames is infinitely far.

        Raises:
            UserError: ``log_probs`` has another shape.
        """
        from gristmill.models.speech import rescoring_kernels  # compiles

        log_probs = np.maximum(checked(log_probs), _LEAST)
        units, boundary = self._pronunciations.units, self._pronunciations.boundary
        if log_probs.shape[1] != len(units):
            raise UserError(f"rescoring: frames of {log_probs.shape[1]} phones; expected {len(units)}")
        number = {word: place for place, word in enumerate(dict.fromkeys(word for text in texts for word in text))}
        numbered = [[number[word] for word in text] for text in texts]
        order = sorted(range(len(texts)), key=lambda text: numbered[text])
        ordered = [numbered[text] for text in order]
        shared = [_alike(one, other) for one, other in zip([[], *ordered], ordered, strict=False)]
        lost = np.ascontiguousarray((log_probs - log_probs.max(axis=1, keepdims=True)).T)
        quiet = lost[0] if boundary is None else np.maximum(lost[0], lost[boundary])
        heard = log_probs.argmax(axis=1)
        begins = (heard != np.concatenate([[0], heard[:-1]])) & (quiet < 0) if len(heard) else np.zeros(0, bool)
        unknown = self.settings.unknown
        scores = rescoring_kernels.align(
            lost,
            quiet,
            np.where(begins, -unknown, 0.0),
            unknown,
            np.array([word for text in ordered for word in text], np.int64),
            np.cumsum([0, *map(len, ordered)]),
            np.array(shared, np.int64),
            *self._table(list(number)),
        )
        found = np.empty(len(texts))
        found[order] = -scores
        return found + 0.0  # no -0.0

    def _table(self, words: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the pronunciations of words (m, longest), which of them are whose (words + 1,), their last units."""
        several = [self._pronunciations[word] for word in words]
        every = [one for ways in several for one in ways]
        spellings = np.zeros((max(len(every), 1), max(map(len, every), default=1)), np.int64)
        for row, one in zip(spellings, every, strict=False):
            row[: len(one)] = one
        last = np.array([one[-1] for one in every], np.int64)
        return spellings, np.cumsum([0, *map(len, several)]), last


def _alike(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many first words two texts have in common."""
    same = 0
    while same < min(len(one), len(other)) and one[same] == other[same]:
        same += 1
    return same
