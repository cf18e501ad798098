"""Whether two turns mean the same: the same intent with the same values, in whatever words.

A calibrated logistic regression over features of the pair. The detector of the wing ``requests``
(:mod:`gristmill.models.requests.paraphrase`) does not serve here: it is trained on templates with slots of several
annotated domains, and needs a sentence embedding of each request, while turns of a log have neither; and what decides
on a label must be a probability.

Weights of words are inverse document frequencies of the training texts; words that were never seen weigh most, as
values do. Where training texts have slots, a word's share of occurrences inside slots says how value-like it is. Texts
that differ in one word (:mod:`gristmill.models.sessions.meaning_texts`) say of a word how often its change is one of
the meaning, and of two words ("on", "off") whether they stand for each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np

from gristmill.models.measures.wer import distance
from gristmill.models.sessions.calibrated import CalibratedModel
from gristmill.models.sessions.meaning_texts import OneWordChanges
from gristmill.models.sessions.units import WordUnit, join_units, read_units, similarity

MODEL = "paraphrase.json"
FEATURES = (
    "same",  # the same units in the same order
    "dice",  # overlap of units, weighted
    "cover",  # the lesser of the two weighted shares that have a counterpart, alike words counting in part
    "missing",  # the greater and the lesser weight without one
    "missing_less",
    "worst",  # the weight of the heaviest unit without a counterpart: the greater and the lesser of the two
    "worst_less",
    "value_missing",  # as missing, weighted by how value-like words are
    "value_missing_less",
    "value_worst",
    "value_worst_less",
    "told_missing",  # as missing, weighted by how often a change of the word is one of the meaning
    "told_missing_less",
    "told_worst",
    "told_worst_less",
    "swap",  # of words without a counterpart, how surely two make a difference in each other's place, from -1 to 1
    "number_missing",  # numbers that the other lacks: the greater and the lesser
    "number_missing_less",
    "letters",  # overlap of character trigrams
    "bigrams",  # overlap of unit bigrams
    "edit",  # normalised edit similarity of the whole
    "ends",  # share of units in the common beginning and end
    "length_ratio",
    "length",
)
_LONGEST = 40  # units that are compared
_SMOOTHING = 2.0
_POLITE = 100  # changes that are taken to be known of words of politeness


@dataclass(frozen=True)
class WordCounts:
    """In how many of ``texts`` each word occurs, its occurrences inside slots and in all texts with slots, and what is
    known of its changes: how many there are (``changed``), how many of the meaning (``told``), and of two words with a
    tab between them, how many of the one to the other are of the meaning and how many are not (``swaps``)."""

    texts: int
    found: Mapping[str, int]
    inside: Mapping[str, int]
    slotted: Mapping[str, int]
    changed: Mapping[str, int] = field(default_factory=dict)
    told: Mapping[str, int] = field(default_factory=dict)
    swaps: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def weight(self, word: str) -> float:
        """Return the inverse document frequency, from 0 to 1: that of a new word is 1."""
        return math.log((self.texts + 1) / (self.found.get(word, 0) + 1)) / math.log(self.texts + 2)

    def value(self, word: str) -> float:
        """Return how value-like a word is, from 0 to 1; of new words, and without slots, as its weight says."""
        every = self.slotted.get(word, 0)
        return (self.inside.get(word, 0) + _SMOOTHING * self.weight(word)) / (every + _SMOOTHING)

    def change(self, word: str) -> float:
        """Return how often a change of a word is one of the meaning, from 0 to 1; of words that are in no change, as
        the weight says."""
        every = self.changed.get(word, 0)
        return (self.told.get(word, 0) + _SMOOTHING * self.weight(word)) / (every + _SMOOTHING)

    def swap(self, one: str, other: str) -> float:
        """Return how surely two words make a difference in each other's place, from -1 (none) to 1; 0: not known."""
        differ, same = self.swaps.get("\t".join(sorted((one, other))), (0, 0))
        return (differ - same) / (differ + same + _SMOOTHING)


def count_words(
    texts: Iterable[tuple[Sequence[str], Sequence[tuple[int, int]] | None]],
    lang: str = "en",
    changes: OneWordChanges | None = None,
    politeness: Iterable[str] = (),
) -> WordCounts:
    """Return the counts of texts: their tokens, and the spans of their slots, if they are known.

    ``changes`` are those of one word in the texts; words of ``politeness`` never change the meaning.

    Example:
        >>> made = count_words([(["stop"], None), (["play", "seal"], [(1, 2)]), (["play", "queen"], [(1, 2)])])
        >>> made.weight("seal") > made.weight("play"), made.value("seal") > made.value("play")
        (True, True)
    """
    found: Counter[str] = Counter()
    inside: Counter[str] = Counter()
    slotted: Counter[str] = Counter()
    number = 0
    for tokens, spans in texts:
        number += 1
        units = read_units(tokens, lang)
        found.update({unit.form for unit in units})
        if spans is not None:
            slotted.update(unit.form for unit in units)
            inside.update(unit.form for unit in units if any(start <= unit.start < end for start, end in spans))
    changed, told = (Counter[str](), Counter[str]()) if changes is None else (+changes.found, +changes.told)
    changed.update({word: _POLITE for phrase in politeness for word in phrase.split()})
    swaps = {} if changes is None else {"\t".join(pair): counts for pair, counts in changes.swaps.items()}
    kept = [dict(sorted(one.items())) for one in (found, inside, slotted, changed, told)]
    return WordCounts(number, kept[0], kept[1], kept[2], kept[3], kept[4], swaps)


def pair_features(left: Sequence[str], right: Sequence[str], counts: WordCounts, lang: str = "en") -> np.ndarray:
    """Return the features of a pair of token lists, (features,); the order of the two does not matter.

    Example:
        >>> counts = count_words([(["lights", "on"], None)])
        >>> found = pair_features(["wake", "me", "at", "ten", "am"], ["10am", "alarm"], counts)
        >>> made = dict(zip(FEATURES, found.tolist()))
        >>> made["number_missing"], made["same"]
        (0.0, 0.0)
    """
    first, second = read_units(left[:_LONGEST], lang), read_units(right[:_LONGEST], lang)
    one, other = join_units(first, second), join_units(second, first)
    forms = [unit.form for unit in one], [unit.form for unit in other]
    lost = [_lost(mine, theirs) for mine, theirs in ((one, other), (other, one))]
    weights = [np.array([counts.weight(form) for form in side]) for side in forms]
    values = [np.array([counts.value(form) for form in side]) for side in forms]
    missing = [float(share @ weight) for share, weight in zip(lost, weights, strict=True)]
    worst = [float(np.max(share * weight, initial=0)) for share, weight in zip(lost, weights, strict=True)]
    gone = [float(share @ value) for share, value in zip(lost, values, strict=True)]
    most = [float(np.max(share * value, initial=0)) for share, value in zip(lost, values, strict=True)]
    changes = [np.array([counts.change(form) for form in side]) for side in forms]
    lost_change = [float(share @ change) for share, change in zip(lost, changes, strict=True)]
    worst_change = [float(np.max(share * change, initial=0)) for share, change in zip(lost, changes, strict=True)]
    numbers = [
        float(sum(unit.is_number and share > 0.5 for unit, share in zip(side, shares, strict=True)))
        for side, shares in zip((one, other), lost, strict=True)
    ]
    cover = [
        1 - part / whole if (whole := float(weight.sum())) else 1.0
        for part, weight in zip(missing, weights, strict=True)
    ]
    texts = " ".join(forms[0]), " ".join(forms[1])
    length = max(len(forms[0]), len(forms[1]), 1)
    found = [
        float(forms[0] == forms[1]),
        _dice(Counter(forms[0]), Counter(forms[1]), counts),
        min(cover),
        *_both(missing),
        *_both(worst),
        *_both(gone),
        *_both(most),
        *_both(lost_change),
        *_both(worst_change),
        _swap(forms, lost, counts),
        *_both(numbers),
        _dice(Counter(_grams(texts[0])), Counter(_grams(texts[1]))),
        _dice(Counter(_bigrams(forms[0])), Counter(_bigrams(forms[1]))),
        1 - distance(*texts) / max(len(texts[0]), len(texts[1]), 1),
        _ends(*forms) / length,
        min(len(forms[0]), len(forms[1])) / length,
        math.log1p(length),
    ]
    return np.array(found)


class ParaphraseModel:
    """The probability that two turns mean the same.

    Example:
        >>> counts = count_words([(["lights", "on"], None)])
        >>> zeros = np.zeros(len(FEATURES))
        >>> model = ParaphraseModel(CalibratedModel(FEATURES, False, zeros, zeros + 1, zeros, 0.0), counts)
        >>> float(model.probability(["lights", "on"], ["on"]))
        0.5
    """

    def __init__(self, model: CalibratedModel, counts: WordCounts) -> None:
        self.model, self.counts = model, counts

    def probability(self, left: Sequence[str], right: Sequence[str], lang: str = "en") -> float:
        """Return the probability that two token lists mean the same."""
        return float(self.model.probabilities(pair_features(left, right, self.counts, lang)[None])[0])

    def described(self) -> dict[str, Any]:
        """Return the model as JSON values."""
        counts = {"texts": self.counts.texts, "found": self.counts.found}
        counts |= {"inside": self.counts.inside, "slotted": self.counts.slotted, "swaps": self.counts.swaps}
        counts |= {"changed": self.counts.changed, "told": self.counts.told}
        return {"model": self.model.described(), "counts": counts}

    @classmethod
    def from_described(cls, given: Mapping[str, Any]) -> Self:
        """Return the model of JSON values.

        Raises:
            UserError: it is of another format.
        """
        return cls(CalibratedModel.from_described(given["model"], FEATURES), WordCounts(**given["counts"]))


def _lost(own: Sequence[WordUnit], other: Sequence[WordUnit]) -> np.ndarray:
    """Return how much of each unit the other wording has no counterpart of, 0 to 1."""
    there = {unit.form for unit in other}
    return np.array(
        [
            0.0 if unit.form in there else 1 - max((similarity(unit.form, form) for form in sorted(there)), default=0.0)
            for unit in own
        ]
    )


def _swap(forms: Sequence[Sequence[str]], lost: Sequence[np.ndarray], counts: WordCounts) -> float:
    """Return the surest swap of a word that the other wording lacks for one that this one lacks; 0: there is none."""
    without = [
        {form for form, share in zip(side, shares, strict=True) if share > 0}
        for side, shares in zip(forms, lost, strict=True)
    ]
    return max((counts.swap(one, other) for one in without[0] for other in without[1]), default=0.0)


def _both(values: Sequence[float]) -> list[float]:
    return sorted(values, reverse=True)


def _dice(left: Counter[Any], right: Counter[Any], counts: WordCounts | None = None) -> float:
    def total(bag: Counter[Any]) -> float:
        return sum(number * (1.0 if counts is None else counts.weight(one)) for one, number in sorted(bag.items()))

    whole = total(left) + total(right)
    return 2 * total(left & right) / whole if whole else float(left == right)


def _grams(text: str) -> list[str]:
    padded = f" {text} "
    return [padded[n : n + 3] for n in range(len(padded) - 2)]


def _bigrams(forms: Sequence[str]) -> list[tuple[str, str]]:
    padded = ["", *forms, ""]
    return list(pairwise(padded))


def _ends(left: Sequence[str], right: Sequence[str]) -> int:
    least = min(len(left), len(right))
    begin = next((n for n in range(least) if left[n] != right[n]), least)
    end = next((n for n in range(least - begin) if left[-1 - n] != right[-1 - n]), least - begin)
    return begin + end
