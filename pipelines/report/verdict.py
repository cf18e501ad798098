"""The verdict of a report: which system is best on each test set, and whether it is ahead of each baseline.

A recipe declares its ``proposals`` and its ``baselines``. Each proposal is compared with each baseline on each test set
on the same utterances; all these comparisons are one family, whose p-values are corrected by Holm's procedure. A claim
needs a corrected p below :data:`LEVEL`. Test sets on which a baseline is ahead come first.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from gristmill.models.measures.significance import holm, interval_p
from gristmill.pipelines.report.measures import MAPSSWE, Measure
from gristmill.pipelines.report.report import MetricRow, Report
from gristmill.pipelines.report.standing import Comparison, Kind, SetVerdict, Standing
from gristmill.pipelines.report.tables import test_sets
from gristmill.pipelines.report.wording import Wording, paragraph

LEVEL = 0.05
_KINDS: Sequence[Kind] = get_args(Kind)  # in the order of a verdict


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
    standings = [_standing(report, measure, comparisons, name) for name in _ordered(report)]
    groups: dict[Hashable, list[Wording]] = {}
    for one in sorted((one for one in standings if one.values), key=lambda one: _KINDS.index(one.kind)):
        wording = Wording(one)
        groups.setdefault(wording.group(), []).append(wording)
    if not groups:
        return None
    sets = [one.of.verdict(one.sentence()) for some in groups.values() for one in some]
    order = [one.test_set for one in sets]
    comparisons.sort(key=lambda one: order.index(one.test_set))
    return Verdict(paragraph(report, list(groups.values())), sets, comparisons)


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


def _standing(report: Report, measure: Measure, comparisons: Sequence[Comparison], test_set: str) -> Standing:
    wanted = (test_set, measure.name, None)
    found = {
        row.system: row.value
        for row in report.metrics
        if (row.test_set, row.metric, row.seed) == wanted and row.value is not None
    }
    sign = 1 if measure.better == "lower" else -1
    values = dict(sorted(found.items(), key=lambda one: sign * one[1]))
    return Standing(report, measure, test_set, values, [one for one in comparisons if one.test_set == test_set])
