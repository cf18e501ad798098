"""Semantic error rate of a request's reading, and the metrics of a corpus of readings, with standard errors.

A reading is a domain, an intent and slots in the order of the request. Its errors are those of Su et al. (SLT 2018):
the intent counts as one label, wrong where the domain or the intent is, and the slots as one label each, compared by
Levenshtein distance over (name, value). With one intent and two slots, one slot wrong gives 1/3.

Every metric of a corpus is a ratio of two sums over utterances; its standard error is the linearised one of a ratio
estimator (Cochran, Sampling Techniques, 3rd ed., 1977, eq. 2.46): sqrt(n / (n - 1) sum (y - r x)^2) / sum x. Nothing is
resampled, so the number is exact for the given corpus and the same on every run.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from gristmill.shards.errors import UserError


class Interpretation(NamedTuple):
    """The reading of a request: slots are (name, value), in the order of the request."""

    domain: str
    intent: str
    slots: tuple[tuple[str, str], ...] = ()


class Estimate(NamedTuple):
    """A metric of a corpus, its standard error (NaN where it has none), and its number of utterances."""

    value: float
    error: float
    n: int


def errors(reference: Interpretation, hypothesis: Interpretation) -> int:
    """Return the errors of a reading: 1 for another domain or intent, and the Levenshtein distance of the slots.

    Slots are compared as given; normalise values by :func:`slot_value` to ignore case and spaces.

    Example:
        >>> errors(Interpretation("music", "play", (("room", "hall"),)), Interpretation("music", "stop"))
        2
    """
    return int(reference[:2] != hypothesis[:2]) + _distance(reference.slots, hypothesis.slots)


def reference_length(reference: Interpretation) -> int:
    """Return the number of labels of a reference: its slots, and 1 for its intent."""
    return len(reference.slots) + 1


def slot_value(text: str) -> str:
    """Return a slot's value normalised for comparison: NFKC, case folded, single spaces."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def _distance(reference: Sequence[tuple[str, str]], hypothesis: Sequence[tuple[str, str]]) -> int:
    if reference == hypothesis:
        return 0
    row = list(range(len(hypothesis) + 1))
    for i, wanted in enumerate(reference, 1):
        before, row[0] = row[0], i
        for j, given in enumerate(hypothesis, 1):
            before, row[j] = row[j], min(before + (wanted != given), row[j] + 1, row[j - 1] + 1)
    return row[-1]


@dataclass(frozen=True)
class SemerResult:
    """Counts of one system's readings of a corpus; one entry per utterance, in the order given, all int64."""

    errors: np.ndarray  # of intent and slots
    length: np.ndarray  # slots of the reference, and 1 for its intent
    domain_errors: np.ndarray  # 1 where the domain is wrong
    intent_errors: np.ndarray  # 1 where the domain or the intent is wrong
    found: np.ndarray  # correct slots as (name, value), in any position
    given: np.ndarray  # slots of the hypothesis
    inexact: np.ndarray  # 1 where the intent is wrong, or the slots, sorted, are not those of the reference

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def semer(self) -> Estimate:
        """All errors over all labels of the references: a fraction, which may exceed 1."""
        return ratio(self.errors, self.length)

    @property
    def ier(self) -> Estimate:
        """Interpretation (request) error rate, IRER: the share of utterances with any error in intent or slots."""
        return ratio(self.errors > 0)

    @property
    def icer(self) -> Estimate:
        """Intent classification error rate: the share of utterances whose domain or intent is wrong."""
        return ratio(self.intent_errors)

    @property
    def domain_error(self) -> Estimate:
        """The share of utterances whose domain is wrong."""
        return ratio(self.domain_errors)

    @property
    def intent_accuracy(self) -> Estimate:
        """The share of utterances whose domain and intent are correct: 1 - ICER."""
        return ratio(1 - self.intent_errors)

    @property
    def slot_f1(self) -> Estimate:
        """Micro-averaged F1 of slots as (name, value): twice the correct ones over all predicted and all expected.

        NaN for a corpus without any slot, predicted or expected.
        """
        return ratio(2 * self.found, self.given + self.length - 1)

    @property
    def exact_match(self) -> Estimate:
        """The share of utterances whose intent and whose slots, in any order, are all correct."""
        return ratio(1 - self.inexact)

    def metrics(self) -> dict[str, Estimate]:
        """Return every metric by its name in reports."""
        return {
            "semer": self.semer,
            "irer": self.ier,
            "icer": self.icer,
            "domain_error": self.domain_error,
            "intent_accuracy": self.intent_accuracy,
            "slot_f1": self.slot_f1,
            "exact_match": self.exact_match,
        }


def score(references: Sequence[Interpretation], hypotheses: Sequence[Interpretation | None]) -> SemerResult:
    """Count the errors of each hypothesis against its reference; ``None`` (an empty list) has every label wrong.

    Raises:
        UserError: the two have different lengths, or are empty.

    Example:
        >>> wanted = Interpretation("music", "play", (("title", "blue river"), ("room", "hall")))
        >>> heard = wanted._replace(slots=(("title", "blue"), ("room", "hall")))
        >>> result = score([wanted, wanted], [wanted, heard])
        >>> round(result.semer.value, 3), result.exact_match.value, result.slot_f1.value
        (0.167, 0.5, 0.75)
    """
    if len(references) != len(hypotheses) or not references:
        raise UserError(
            f"scoring: {len(references)} references and {len(hypotheses)} hypotheses: "
            "expected one hypothesis per reference, and at least one"
        )
    rows = [_counts(wanted, given) for wanted, given in zip(references, hypotheses, strict=True)]
    return SemerResult(*np.array(rows, np.int64).T)


def _counts(wanted: Interpretation, given: Interpretation | None) -> tuple[int, ...]:
    length = reference_length(wanted)
    if given is None:
        return length, length, 1, 1, 0, 0, 1
    left = list(wanted.slots)
    for slot in given.slots:
        if slot in left:
            left.remove(slot)
    found = len(wanted.slots) - len(left)
    wrong = int(wanted[:2] != given[:2])
    inexact = int(bool(wrong or left or len(given.slots) != len(wanted.slots)))
    return errors(wanted, given), length, int(wanted[0] != given[0]), wrong, found, len(given.slots), inexact


def ratio(counts: np.ndarray, sizes: np.ndarray | None = None) -> Estimate:
    """Return sum(counts) / sum(sizes) over utterances with its linearised standard error; sizes default to 1.

    The standard error is NaN for one utterance; both are NaN where the sizes sum to 0.
    """
    y = np.asarray(counts, np.float64)
    x = np.ones(len(y)) if sizes is None else np.asarray(sizes, np.float64)
    n, total = len(y), x.sum()
    if not n or total == 0:
        return Estimate(math.nan, math.nan, n)
    value = y.sum() / total
    error = math.sqrt(n / (n - 1) * float(((y - value * x) ** 2).sum())) / total if n > 1 else math.nan
    return Estimate(float(value), float(error), n)
