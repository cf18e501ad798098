"""Semantic error rate of a request's reading, and what a corpus of readings is scored by, with standard errors.

A reading is a domain, an intent and slots in the order in which they stand. Its errors are those of Su et al. (SLT
2018): the intent counts as one label, wrong where the domain or the intent is, and the slots as one label each,
compared by Levenshtein distance over (name, value). With one intent and two slots, one slot wrong gives 1/3.

Every measure of a corpus is a ratio of two sums over utterances; its standard error is the linearised one of a ratio
estimator (Cochran, Sampling Techniques, 3rd ed., 1977, eq. 2.46): sqrt(n / (n - 1) sum (y - r x)^2) / sum x. No
utterance is drawn again, so the number is exact for the corpus given and the same on every run.
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
    """What a request is read as: slots are (name, value), in the order in which they stand in it."""

    domain: str
    intent: str
    slots: tuple[tuple[str, str], ...] = ()


class Estimate(NamedTuple):
    """A measure of a corpus, its standard error (NaN where it has none), and how many utterances it rests on."""

    value: float
    error: float
    n: int


def errors(reference: Interpretation, hypothesis: Interpretation) -> int:
    """Return the errors of a reading: 1 for another domain or intent, and the Levenshtein distance of the slots.

    Slots are compared as they are; give values spelled by :func:`slot_value` where case and spaces mean nothing.

    Example:
        >>> errors(Interpretation("music", "play", (("room", "hall"),)), Interpretation("music", "stop"))
        2
    """
    return int(reference[:2] != hypothesis[:2]) + _distance(reference.slots, hypothesis.slots)


def reference_length(reference: Interpretation) -> int:
    """Return what errors are counted against: the slots of the reference, and 1 for its intent."""
    return len(reference.slots) + 1


def slot_value(text: str) -> str:
    """Return a slot's value as it is compared: NFKC, case folded, single spaces."""
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
    """One system's readings of a corpus, counted; one entry an utterance, in the order given, all int64."""

    errors: np.ndarray  # of intent and slots
    length: np.ndarray  # slots of the reference, and 1 for its intent
    domain_errors: np.ndarray  # 1 where the domain is wrong
    intent_errors: np.ndarray  # 1 where the domain or the intent is wrong
    found: np.ndarray  # slots that are right, as (name, value) wherever they stand
    given: np.ndarray  # slots of the hypothesis
    inexact: np.ndarray  # 1 where the intent is wrong, or the slots, sorted, are not those of the reference

    def __len__(self) -> int:
        return len(self.errors)

    @property
    def semer(self) -> Estimate:
        """All errors over all labels of the references: a fraction, which may pass 1."""
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
        """The share of utterances whose domain and intent are right: 1 - ICER."""
        return ratio(1 - self.intent_errors)

    @property
    def slot_f1(self) -> Estimate:
        """F1 of slots as (name, value), pooled: twice the right ones over all given and all wanted.

        A corpus without any slot, given or wanted, has none (NaN).
        """
        return ratio(2 * self.found, self.given + self.length - 1)

    @property
    def exact_match(self) -> Estimate:
        """The share of utterances whose intent and whose slots, in any order, are all right."""
        return ratio(1 - self.inexact)

    def metrics(self) -> dict[str, Estimate]:
        """Return every measure by its name in a report."""
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
        UserError: the two are not of one length, or there is none.

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
            "expected one hypothesis for each reference, and at least one"
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

    Of one utterance, or with nothing to divide by, the standard error (and there the value) is NaN.
    """
    y = np.asarray(counts, np.float64)
    x = np.ones(len(y)) if sizes is None else np.asarray(sizes, np.float64)
    n, total = len(y), x.sum()
    if not n or total == 0:
        return Estimate(math.nan, math.nan, n)
    value = y.sum() / total
    error = math.sqrt(n / (n - 1) * float(((y - value * x) ** 2).sum())) / total if n > 1 else math.nan
    return Estimate(float(value), float(error), n)
