"""What a list of words does to a recogniser: errors on rare and on other words, and words heard that were not said.

WER, U-WER and B-WER are those of the public benchmark of Le et al., "Contextualized Streaming End-to-End Speech
Recognition with Trie-Based Deep Biasing and Shallow Fusion", Interspeech 2021 (``score.py`` of ``is21_deep_bias``), to
the letter. Each utterance has a set of rare words. Reference and hypothesis are aligned with NIST's costs (3 for an
insertion or deletion, 4 for a substitution; of equal paths the one that, from the end, prefers a word of both, then an
insertion). A reference word of the set is *biased*, any other *unbiased*; its substitution or deletion is an error of
its kind, whatever was heard instead. An inserted word is an error of the biased words if it is in the set of its
utterance, and otherwise of the unbiased, even if it is on the list. B-WER is the errors of the biased over the number
of biased reference words, repetitions counted; U-WER is likewise; WER has both.

Precision, recall and F1 do not depend on an alignment: of each word that is rare or on the list, the smaller of its
numbers in reference and hypothesis is found, what the reference has more is missed, what the hypothesis has more is
inserted. *False words* are those of the inserted that are on the list: what the list has done. They need the list that
was in use, so that a system without one, measured beside another, has the other's.

Everything is a count of each utterance, and each measure a ratio of sums, so that
:mod:`gristmill.models.measures.significance` gives intervals and paired changes of all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from gristmill.models.measures.significance import Ratio
from gristmill.models.measures.wer import CORRECT, DELETED, INSERTED, NIST_EDIT, align, named_speakers
from gristmill.shards.errors import UserError

_SWAPPED = str.maketrans(DELETED + INSERTED, INSERTED + DELETED)


@dataclass(frozen=True)
class BiasingResult:
    """The counts of one system on one test set with its lists, one entry per utterance, in the order given.

    Its measures are :meth:`ratio`'s.
    """

    words: np.ndarray  # (utterances,) int64, words of the reference
    errors: np.ndarray  # (utterances,) int64, of all words
    rare_words: np.ndarray  # (utterances,) int64, biased words of the reference
    rare_errors: np.ndarray  # (utterances,) int64
    found: np.ndarray  # (utterances,) int64, rare or listed words of the reference that were heard
    missed: np.ndarray  # (utterances,) int64, and those that were not
    inserted: np.ndarray  # (utterances,) int64, rare or listed words that were heard and not said
    false: np.ndarray  # (utterances,) int64, the listed of them
    seconds: np.ndarray  # (utterances,) float64, of audio; not a number where unknown
    speakers: tuple[str, ...]  # (utterances,); an utterance without one is its own speaker

    def ratio(self, measure: str) -> Ratio:
        """Return what :data:`MEASURES` names, as sums over the utterances.

        Raises:
            UserError: there is no such measure.

        Example:
            >>> from gristmill.models.measures.significance import wer_interval
            >>> result = score_biasing([["call", "ann"]] * 9, [["call", "an"]] * 9, [{"ann"}] * 9, [{"ann"}] * 9)
            >>> wer_interval({0: result.ratio("b_wer")}).value, wer_interval({0: result.ratio("u_wer")}).value
            (1.0, 0.0)
        """
        if measure not in MEASURES:
            raise UserError(f"biasing: measure {measure!r} is unknown; expected one of {', '.join(MEASURES)}")
        over, under = MEASURES[measure](self)
        return Ratio(over, under, self.speakers)

    def __len__(self) -> int:
        return len(self.words)


MEASURES: Mapping[str, Callable[[BiasingResult], tuple[np.ndarray, np.ndarray]]] = {
    "wer": lambda r: (r.errors, r.words),
    "u_wer": lambda r: (r.errors - r.rare_errors, r.words - r.rare_words),
    "b_wer": lambda r: (r.rare_errors, r.rare_words),
    "rare_precision": lambda r: (r.found, r.found + r.inserted),
    "rare_recall": lambda r: (r.found, r.found + r.missed),
    "rare_f1": lambda r: (2 * r.found, 2 * r.found + r.missed + r.inserted),
    "false_words": lambda r: (100 * r.false, np.ones(len(r), np.int64)),
    "false_words_hour": lambda r: (r.false, r.seconds / 3600),
}
"""The measures by name: fractions, but for false words in 100 utterances and in an hour of audio."""


def score_biasing(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[Sequence[str]],
    rare: Sequence[Set[str]],
    listed: Sequence[Set[str]],
    speakers: Sequence[str | None] | None = None,
    seconds: Sequence[float] | None = None,
) -> BiasingResult:
    """Score a batch of hypotheses, each the words of an utterance, as the module says.

    ``rare`` has the rare words of each reference, ``listed`` the list that was in use; all are compared as they are, so
    they have to be normalised alike.

    Raises:
        UserError: the arguments are not of the same length.

    Example:
        >>> reference, hypothesis = "call ann at noon".split(), "call an at noon bob".split()
        >>> result = score_biasing([reference], [hypothesis], [{"ann"}], [{"ann", "bob"}], seconds=[1.8])
        >>> [float(result.ratio(name).value) for name in ("wer", "u_wer", "b_wer", "rare_recall", "false_words_hour")]
        [0.5, 0.3333333333333333, 1.0, 0.0, 2000.0]
    """
    n = len(references)
    given = {"hypotheses": hypotheses, "sets of rare words": rare, "lists": listed, "speakers": speakers}
    for name, some in {**given, "durations": seconds}.items():
        if some is not None and len(some) != n:
            raise UserError(f"biasing: {n} references, {len(some)} {name}; expected one for each reference")
    counts = [
        (*_errors(reference, hypothesis, own), *_heard(reference, hypothesis, own, words))
        for reference, hypothesis, own, words in zip(references, hypotheses, rare, listed, strict=True)
    ]
    words, errors, rare_words, rare_errors, found, missed, inserted, false = np.array(counts, np.int64).reshape(n, 8).T
    durations = np.full(n, np.nan) if seconds is None else np.array(seconds, np.float64)
    named = named_speakers(speakers if speakers is not None else [None] * n)
    return BiasingResult(words, errors, rare_words, rare_errors, found, missed, inserted, false, durations, named)


def _errors(reference: Sequence[str], hypothesis: Sequence[str], rare: Set[str]) -> tuple[int, int, int, int]:
    """Return the words and errors of an utterance, and the biased ones of both."""
    # The other way round, so that of equal alignments it is the benchmark's.
    letters = align(hypothesis, reference, NIST_EDIT).translate(_SWAPPED)
    errors, place, heard = [0, 0], 0, 0
    for letter in letters:
        word = hypothesis[heard] if letter == INSERTED else reference[place]
        errors[word in rare] += letter != CORRECT
        place += letter != INSERTED
        heard += letter != DELETED
    return len(reference), sum(errors), sum(word in rare for word in reference), errors[True]


def _heard(
    reference: Sequence[str], hypothesis: Sequence[str], rare: Set[str], listed: Set[str]
) -> tuple[int, int, int, int]:
    """Return the numbers of rare or listed words that were found, missed and inserted, and the false words."""
    said = Counter(word for word in reference if word in rare or word in listed)
    heard = Counter(word for word in hypothesis if word in rare or word in listed)
    inserted = heard - said
    false = sum(count for word, count in inserted.items() if word in listed)
    return (said & heard).total(), (said - heard).total(), inserted.total(), false
