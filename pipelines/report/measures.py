"""The display of a metric in a report (name, unit, digits, direction), and the field's common measures.

A recipe passes its measures to the report; one that is not defined here takes one line in the recipe:
``Measure("win_loss", "Win/loss ratio", better="higher")``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Unit:
    """The display of values: multiplied by ``factor``, followed by ``suffix``, signed if they are changes."""

    name: str
    suffix: str = ""
    factor: float = 1.0
    signed: bool = False


NUMBER = Unit("number")
PERCENT = Unit("fraction", "%", 100.0)
CHANGE = Unit("relative change", "%", 100.0, signed=True)
SECONDS = Unit("seconds", " s")
MILLISECONDS = Unit("milliseconds", " ms")
HOURS = Unit("hours", " h")


@dataclass(frozen=True)
class Measure:
    """The display of one metric of the long table.

    ``label`` and ``note`` may name the report's baseline as ``{baseline}``.

    Example:
        >>> ratio = Measure("win_loss", "Win/loss ratio", digits=2, better="higher")
        >>> ratio.show(1.234), WER.show(0.0834), WER.relative().show(-0.125)
        ('1.23', '8.3%', '−12.5%')
        >>> WER.relative().verdict(-0.2, -0.05), WER.relative().verdict(-0.1, 0.1)
        ('better', '')
    """

    name: str  # in the column ``metric`` of the long table
    label: str
    unit: Unit = NUMBER
    digits: int = 3  # decimals, in its unit
    better: Literal["lower", "higher"] | None = "lower"  # None: neither
    column: bool = True  # whether it is a column of the results table
    interval: bool = False  # whether the table shows its interval
    floor: float | None = None  # smaller values are shown as "< floor"
    counts: str = ""  # of a rate: the noun for relative changes, as in "10% fewer errors"
    note: str = ""  # a sentence for the results table

    def show(self, value: float | None) -> str:
        """Return a value formatted in its unit."""
        if value is None:
            return "–"
        if self.floor is not None and value < self.floor:
            return f"< {self.floor:.{self.digits}f}{self.unit.suffix}"
        scaled = value * self.unit.factor
        if not float(f"{scaled:.{self.digits}f}"):
            scaled = 0.0  # a rounded zero has no sign
        text = f"{scaled:+,.{self.digits}f}" if self.unit.signed and scaled else f"{scaled:,.{self.digits}f}"
        return text.replace("-", "−") + self.unit.suffix

    def tick(self, value: float) -> str:
        """Return an axis tick formatted in the unit."""
        return f"{round(value * self.unit.factor, 9):g}".replace("-", "−") + self.unit.suffix

    def relative(self, *, column: bool = True) -> Measure:
        """Return the measure ``{name}_relative``: this one's relative change against the baseline."""
        label = "Relative to {baseline}"
        return Measure(f"{self.name}_relative", label, CHANGE, 1, self.better, column, interval=True)

    def verdict(self, low: float | None, high: float | None) -> Literal["", "better", "worse"]:
        """Return whether a change is better or worse; neither if its interval contains zero or is unknown."""
        if low is None or high is None or low <= 0 <= high or self.better is None:
            return ""
        return "better" if (high < 0) == (self.better == "lower") else "worse"


# Recognition.
WER = Measure("wer", "WER", PERCENT, 1, counts="errors", interval=True)
CER = Measure("cer", "CER", PERCENT, 1, counts="errors", interval=True)
PER = Measure("per", "PER", PERCENT, 1, counts="errors", interval=True)
# Parts of the errors: who hears nothing substitutes nothing, and is not the best at it.
SUBSTITUTIONS = Measure("substitutions", "Sub.", PERCENT, 1, better=None)
DELETIONS = Measure("deletions", "Del.", PERCENT, 1, better=None)
INSERTIONS = Measure("insertions", "Ins.", PERCENT, 1, better=None)
HEARING, DEAF = (WER.name, PER.name), 0.95  # measures of what a model hears, and the rate from which it is nothing
MAPSSWE = Measure(
    "mapsswe_p",
    "MAPSSWE p",
    digits=3,
    better=None,
    floor=0.001,
    note="MAPSSWE is against {baseline}; its p is the largest of the seeds'.",
)
MAPSSWE_Z = Measure("mapsswe_z", "MAPSSWE z", digits=2, better=None, column=False)

# With lists of words: gristmill.models.measures.biasing.
U_WER = Measure("u_wer", "U-WER", PERCENT, 1, counts="errors", interval=True)
B_WER = Measure("b_wer", "B-WER", PERCENT, 1, counts="errors", interval=True)
RARE_F1 = Measure("rare_f1", "Rare-word F1", PERCENT, 1, better="higher", interval=True)
RARE_PRECISION = Measure("rare_precision", "Precision", PERCENT, 1, better="higher")
RARE_RECALL = Measure("rare_recall", "Recall", PERCENT, 1, better="higher")
FALSE_WORDS = Measure("false_words", "False words in 100 utt.", digits=2, interval=True)
FALSE_WORDS_HOUR = Measure("false_words_hour", "False words an hour", digits=1)

# Language models and translation.
PERPLEXITY = Measure("perplexity", "Perplexity", digits=2, interval=True)
OOV = Measure("oov", "OOV", PERCENT, 1)
BLEU = Measure("bleu", "BLEU", digits=1, better="higher")
CHRF = Measure("chrf", "chrF", digits=1, better="higher")

# Understanding of requests.
SEMER = Measure("semer", "SemER", PERCENT, 1, counts="errors", interval=True)
ICER = Measure("icer", "ICER", PERCENT, 1)
IRER = Measure("irer", "IRER", PERCENT, 1)
SLOT_F1 = Measure("slot_f1", "Slot F1", PERCENT, 1, better="higher")
DOMAIN_ERROR = Measure("domain_error", "Domain error", PERCENT, 1)
INTENT_ACCURACY = Measure("intent_accuracy", "Intent accuracy", PERCENT, 1, better="higher")
EXACT_MATCH = Measure("exact_match", "Exact match", PERCENT, 1, better="higher")

# Calibration.
ECE = Measure("ece", "ECE", digits=4, interval=True)
NLL = Measure("nll", "NLL", digits=4)
BRIER = Measure("brier", "Brier score", digits=4)
