"""The verdict of a report: which system is best on each test set, and whether it is ahead of each baseline.

A recipe declares its ``proposals`` and its ``baselines``. Each proposal is compared with each baseline on each test set
on the same utterances; all these comparisons are one family, whose p-values are corrected by Holm's procedure. A claim
needs a corrected p below :data:`LEVEL`. Where a baseline is best, the verdict begins with that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from gristmill.models.measures.significance import holm, interval_p
from gristmill.pipelines.report.measures import MAPSSWE, Measure
from gristmill.pipelines.report.report import MetricRow, Report
from gristmill.pipelines.report.tables import change, label_of, shown, test_sets

LEVEL = 0.05
Kind = Literal["lost", "behind", "tied", "unproven", "won", "alone", "unscored"]
_FEW = "utterances within speakers"  # resampled where there are few speakers


@dataclass(frozen=True)
class Comparison:
    """A proposal against a baseline on one test set, paired; ``None`` is what the recipe has no number for."""

    system: str
    baseline: str
    test_set: str
    change: float | None  # of the main measure, relative
    low: float | None  # bound of its 95 % interval
    high: float | None
    p: float | None
    p_holm: float | None
    mapsswe_p: float | None
    mapsswe_p_holm: float | None
    outcome: Literal["ahead", "behind", "open"]  # beyond chance, or neither


@dataclass(frozen=True)
class SetVerdict:
    """The verdict on one test set.

    ``kind``: a baseline is best, beyond chance (``lost``) or not (``behind``); proposal and baseline have the same
    figure (``tied``); a proposal is best, and is ahead of every baseline beyond chance (``won``) or not of each
    (``unproven``); no baseline (``alone``) or no proposal (``unscored``) has a figure.
    """

    test_set: str
    kind: Kind
    best: str  # of all systems
    proposal: str | None  # the best of them
    baseline: str | None
    uncertain: Sequence[str] = ()  # the baselines that the proposal is not ahead of beyond chance, the best first
    sentence: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a report concludes: a paragraph, a sentence and the comparisons for each test set."""

    sentence: str
    sets: Sequence[SetVerdict]
    comparisons: Sequence[Comparison]

    def to_json(self) -> dict[str, Any]:
        """Return the verdict as JSON values."""
        rule = {"level": LEVEL, "correction": "Holm", "family": sum(one.p is not None for one in self.comparisons)}
        sets, comparisons = ([asdict(one) for one in some] for some in (self.sets, self.comparisons))
        return {"sentence": self.sentence, **rule, "sets": sets, "comparisons": comparisons}


def conclude(report: Report) -> Verdict | None:
    """Return the verdict of a report's metrics; ``None`` if it has no proposal, or no test set was scored."""
    measure = report.main
    if measure is None or measure.better is None or not report.proposed:
        return None
    comparisons = _compared(report, measure)
    judged = [_Judge(report, measure, comparisons, name).verdict() for name in _ordered(report)]
    sets = [one for one in judged if one is not None]
    return Verdict(_paragraph(report, measure, sets), sets, comparisons) if sets else None


def summary(report: Report) -> str:
    """Return the report's own sentence, or its verdict's."""
    verdict = None if report.summary else conclude(report)
    return report.summary if verdict is None else verdict.sentence


def _ordered(report: Report) -> list[str]:
    """Return the test sets, that of the headline first."""
    names = test_sets(report)
    first = [report.headline[1]] if report.headline and report.headline[1] in names else []
    return [*first, *(name for name in names if name not in first)]


def _compared(report: Report, measure: Measure) -> list[Comparison]:
    made = []
    for test_set in _ordered(report):
        for baseline in report.compared:
            for system in report.proposed:
                if report.find(system, test_set, measure.name) and report.find(baseline, test_set, measure.name):
                    made.append(_comparison(report, measure, system, baseline, test_set))
    corrected = {name: _corrected([getattr(one, name) for one in made]) for name in ("p", "mapsswe_p")}
    return [
        replace(one, p_holm=p, mapsswe_p_holm=other, outcome=_outcome(report, measure, one, p))
        for one, p, other in zip(made, corrected["p"], corrected["mapsswe_p"], strict=True)
    ]


def _comparison(report: Report, measure: Measure, system: str, baseline: str, test_set: str) -> Comparison:
    suffix = "" if baseline == report.baseline else f":{baseline}"

    def row(name: str) -> MetricRow | None:
        found = report.find(system, test_set, name + suffix)
        return None if found is None or found.value is None else found

    moved, p = row(measure.relative().name), row(f"{measure.name}_p")
    mapsswe = row(MAPSSWE.name) if measure.counts else None  # it is of errors, whatever else is measured beside them
    value, low, high = (moved.value, moved.low, moved.high) if moved else (None, None, None)
    chance = p.value if p else None
    if chance is None and value is not None and low is not None and high is not None:
        chance = interval_p(value, low, high)
    own = (value, low, high, chance, None, mapsswe.value if mapsswe else None, None)
    return Comparison(system, baseline, test_set, *own, "open")


def _corrected(p_values: Sequence[float | None]) -> list[float | None]:
    known = iter(holm([p for p in p_values if p is not None]))
    return [None if p is None else next(known) for p in p_values]


def _outcome(
    report: Report, measure: Measure, one: Comparison, p_holm: float | None
) -> Literal["ahead", "behind", "open"]:
    mine, theirs = (_value(report, measure, name, one.test_set) for name in (one.system, one.baseline))
    if p_holm is None or p_holm >= LEVEL or mine is None or theirs is None or mine == theirs:
        return "open"
    return "ahead" if (mine < theirs) == (measure.better == "lower") else "behind"


def _value(report: Report, measure: Measure, system: str, test_set: str) -> float | None:
    row = report.find(system, test_set, measure.name)
    return None if row is None else row.value


class _Judge:
    """Judges one test set."""

    def __init__(self, report: Report, measure: Measure, comparisons: Sequence[Comparison], test_set: str) -> None:
        self.report, self.measure, self.test_set = report, measure, test_set
        self.compared = {(one.system, one.baseline): one for one in comparisons if one.test_set == test_set}
        found = {row.system: row.value for row in report.metrics if (row.test_set, row.seed) == (test_set, None)
                 and row.metric == measure.name and row.value is not None}  # fmt: skip
        self.values: dict[str, float] = dict(sorted(found.items(), key=lambda one: one[1]))
        if measure.better == "higher":
            self.values = dict(reversed(self.values.items()))

    def verdict(self) -> SetVerdict | None:
        if not self.values:
            return None
        proposal = next((name for name in self.values if name in self.report.proposed), None)
        baseline = next((name for name in self.values if name in self.report.compared), None)
        best = next(iter(self.values))
        uncertain = self.not_ahead(proposal) if proposal else []
        made = SetVerdict(self.test_set, self._kind(proposal, baseline), best, proposal, baseline, uncertain)
        return replace(made, sentence=f"{_begun(shown(self.report, self.test_set))}: {self._sentence(made)}.")

    def _kind(self, proposal: str | None, baseline: str | None) -> Kind:
        if proposal is None:
            return "unscored"
        if baseline is None:
            return "alone"
        if self.figure(proposal) == self.figure(baseline) and self.outcome(proposal, baseline) == "open":
            return "tied"
        names = list(self.values)
        if names.index(baseline) < names.index(proposal):
            return "lost" if self.outcome(proposal, baseline) == "behind" else "behind"
        return "won" if not self.not_ahead(proposal) else "unproven"

    def outcome(self, proposal: str, baseline: str) -> str:
        return self.compared[proposal, baseline].outcome

    def not_ahead(self, proposal: str) -> list[str]:
        """Return the baselines that a proposal is not ahead of beyond chance, the best first."""
        return [
            name for name in self.values if name in self.report.compared and self.outcome(proposal, name) != "ahead"
        ]

    def name(self, system: str) -> str:
        return shown(self.report, system)

    def figure(self, system: str) -> str:
        return self.measure.show(self.values[system])

    def against(self, proposal: str, baseline: str) -> str:
        """Return the change against a baseline, with its interval."""
        one = self.compared[proposal, baseline]
        if one.change is None:
            return "no relative change"
        ends = "" if one.low is None or one.high is None else f", 95% interval {change(one.low)} to {change(one.high)}"
        return change(one.change) + ends

    def _sentence(self, made: SetVerdict) -> str:
        label, proposal, baseline = label_of(self.report, self.measure), made.proposal, made.baseline
        if proposal is None:
            return f"{self.name(made.best)} is best, {label} {self.figure(made.best)}; no proposed system has a figure"
        mine = f"{self.name(proposal)}, {label} {self.figure(proposal)}"
        if baseline is None:
            return f"{mine}, is the best proposed system; no baseline has a figure to compare with"
        theirs = f"{self.name(baseline)}, {self.figure(baseline)}"
        moved = self.against(proposal, baseline)
        ahead = [name for name in self.report.compared if name in self.values and name not in made.uncertain]
        also = f"; ahead beyond chance of {_listed([self.name(name) for name in ahead])}" if ahead else ""
        if made.kind in ("lost", "behind"):
            how = "worse beyond chance" if made.kind == "lost" else "the difference may be chance"
            text = f"a baseline is best, {self.name(baseline)}, {label} {self.figure(baseline)}; the best proposed "
            text += f"system, {self.name(proposal)}, has {self.figure(proposal)} ({moved}): {how}{also}"
        elif made.kind == "tied":
            text = f"{self.name(proposal)} and the baseline {self.name(baseline)} have the same {label}, "
            text += f"{self.figure(proposal)} ({moved}){also}"
        elif made.kind == "won":
            text = f"{mine}, is ahead of every baseline beyond chance; the nearest is {theirs} ({moved})"
        else:
            near = [(name, self.against(proposal, name)) for name in made.uncertain]
            figures = [f"{self.name(name)}, {self.figure(name)} ({moved})" for name, moved in near]
            text = f"{mine}, {_best(made)}, but its lead over {_listed(figures)} may be chance{also}"
        missing = [self.name(name) for name in self.report.compared if name not in self.values]
        if missing:
            text += f"; not scored there: {_listed(missing)}"
        if _third(made):
            text += f"; the best figure is that of {self.name(made.best)}, {self.figure(made.best)}, which is neither"
        return text


_KINDS: Sequence[Kind] = ("lost", "behind", "tied", "unproven", "won", "alone", "unscored")  # in the order of a verdict


def _paragraph(report: Report, measure: Measure, sets: Sequence[SetVerdict]) -> str:
    """Return what holds for the test sets together: those on which a baseline is best come first."""
    groups: dict[tuple[Any, ...], list[SetVerdict]] = {}
    for one in sorted(sets, key=lambda one: _KINDS.index(one.kind)):
        uncertain = tuple(one.uncertain) if one.kind == "unproven" else ()
        groups.setdefault((one.kind, one.proposal, one.baseline, uncertain, _third(one)), []).append(one)
    text = " ".join(_clause(report, measure, some) for some in groups.values())
    seeds = {row.seed for row in report.metrics if row.metric == measure.name and row.seed is not None}
    if len(seeds) == 1:
        text += " One seed: another training may order them otherwise."
    if any(report.test_sets[one.test_set].resampled == _FEW for one in sets if one.test_set in report.test_sets):
        text += " Few test speakers: it holds for these."
    return text


def _clause(report: Report, measure: Measure, some: Sequence[SetVerdict]) -> str:
    """Return the sentence on test sets with the same verdict; figures are of the first."""
    first, label = some[0], label_of(report, measure)
    where = _listed([shown(report, one.test_set) for one in some]) + (f" {report.tested}" if report.tested else "")
    at = f" on {shown(report, first.test_set)}" if len(some) > 1 else ""
    (mine, my), (theirs, their) = (
        (shown(report, name), measure.show(_value(report, measure, name, first.test_set))) if name else ("", "")
        for name in (first.proposal, first.baseline)
    )
    against = f"{label} {my}{at} against {their} for {theirs}"
    third = _third(first)
    also = f" The best figure is that of {shown(report, third)}, which is neither." if third else ""
    match first.kind:
        case "lost" | "behind":
            begun, end = ("wins", "beyond chance") if first.kind == "lost" else ("is best", "which may be chance")
            better = f"{theirs} has a {measure.better} {label} than {mine}, {their} against {my}{at}"
            return f"A baseline {begun} on {where}: {better}, {end}.{also}"
        case "tied":
            return f"On {where}, {mine} and the baseline {theirs} are equal, {label} {my}{at}."
        case "unproven":
            over = _listed([shown(report, name) for name in first.uncertain])
            return f"On {where}, {mine} {_best(first)}, {against}, but its lead over {over} may be chance.{also}"
        case "won":
            return f"On {where}, {mine} is ahead of every baseline beyond chance, {against}, the nearest.{also}"
        case "alone":
            return f"On {where}, {mine} has {label} {my}{at}; no baseline was scored to compare it with."
        case "unscored":
            best = f"{shown(report, first.best)} has {label} "
            best += measure.show(_value(report, measure, first.best, first.test_set))
            return f"On {where}, no proposed system was scored; {best}{at}."


def _third(one: SetVerdict) -> str:
    """Return the best system, if it is neither the proposal nor the baseline of a verdict on both."""
    told = one.proposal is None or one.baseline is None or one.kind == "tied"
    return "" if told or one.best in (one.proposal, one.baseline) else one.best


def _best(one: SetVerdict) -> str:
    return "is the best of those compared" if _third(one) else "is best"


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1] if names else ""]))


def _begun(text: str) -> str:
    return text[:1].upper() + text[1:]
