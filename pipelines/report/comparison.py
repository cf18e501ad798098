"""What differs between runs of a recipe: settings, versions, data, and the figures of systems on test sets.

Each output is compared with the first. Where both have scores of the same records of a test set (by id), a figure's
change is paired, by the bootstrap of :mod:`gristmill.models.measures.significance`; elsewhere it is that of two
independent estimates, by their intervals. All changes of a comparison are one family, corrected by Holm's procedure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from gristmill.models.measures.significance import holm, interval_p, paired_change
from gristmill.pipelines.record_scores import SCORES, RecordCounts, RecordScores, Stored
from gristmill.pipelines.report.verdict import LEVEL
from gristmill.shards.processor import NOT_RECORDED

LEVEL_OF = "processor"  # the version that is the level of the instruction set
Measured = tuple[float | None, float | None, float | None]  # value, low, high


@dataclass(frozen=True)
class Output:
    """One run's output: its report, as :func:`gristmill.pipelines.report.read.read_report` returns it, and scores."""

    out: str
    report: Mapping[str, Any]
    scores: Stored | None


@dataclass(frozen=True)
class Difference:
    """A setting, a version or a set: its values in the outputs, ``None`` where one has none.

    ``unknown``: not all of the reports name the setting. One of an earlier version has no value of a later setting.
    """

    name: str
    values: Sequence[Any]
    unknown: bool = False
    caused: bool = False  # a set that differs because a set or model that it was made of does


@dataclass(frozen=True)
class Change:
    """A figure's relative change from the first output, with its 95 % interval where there is one."""

    change: float | None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_holm: float | None = None
    paired: bool = False

    @property
    def beyond_chance(self) -> bool:
        """Whether it is, after correction."""
        return self.p_holm is not None and self.p_holm < LEVEL


@dataclass(frozen=True)
class Figure:
    """The main measure of a system on a test set: (value, low, high) in each output, and the changes from the first."""

    system: str
    test_set: str
    values: Sequence[Measured | None]
    changes: Sequence[Change | None]  # of all outputs but the first


@dataclass(frozen=True)
class Compared:
    """The differences between outputs; ``pairing`` says by test set, and for all outputs but the first, why or why
    not figures are paired."""

    outs: Sequence[str]
    metric: str
    settings: Sequence[Difference]
    versions: Sequence[Difference]
    sets: Sequence[Difference]  # (digest, records out) of sealed sets
    same_sets: int
    figures: Sequence[Figure]
    pairing: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self)


def compare(outputs: Sequence[Output]) -> Compared:
    """Return what differs between the first of the outputs and each of the others."""
    reports = [one.report for one in outputs]
    # The settings of the run are those that all recipes have: their names have no section.
    settings = _settings([_flat(one.get("run") or {}) | _flat(one["recipe"]) for one in reports])
    # Reports from before levels were recorded name none.
    versions = _differences([{LEVEL_OF: NOT_RECORDED} | one.get("versions", {}) for one in reports])
    sets, same = _sets(reports)
    figures, pairing = _figures(outputs)
    metric = str(reports[0]["metric"])
    return Compared([one.out for one in outputs], metric, settings, versions, sets, same, figures, pairing)


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    """Return settings by their dotted paths; lists are values."""
    if not isinstance(value, Mapping):
        return {path: value}
    found: dict[str, Any] = {}
    for name, inner in value.items():
        found |= _flat(inner, f"{path}.{name}" if path else name)
    return found


def _differences(tables: Sequence[Mapping[str, Any]]) -> list[Difference]:
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [Difference(name, [table.get(name) for table in tables]) for name in names]
    return [row for row in rows if any(value != row.values[0] for value in row.values)]


def _settings(tables: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """Return the settings that differ, and those that a table does not know: neither as a value, nor as a section, nor
    as a part of what is a value there."""

    def knows(table: Mapping[str, Any], name: str) -> bool:
        parts = name.split(".")
        above = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        return any(one in table for one in above) or any(one.startswith(f"{name}.") for one in table)

    names = dict.fromkeys(name for table in tables for name in table)
    unknown = {name for name in names if not all(knows(table, name) for table in tables)}
    found = [replace(row, unknown=row.name in unknown) for row in _differences(tables)]
    return sorted(found, key=lambda row: row.unknown)


def _sets(reports: Sequence[Mapping[str, Any]]) -> tuple[list[Difference], int]:
    """Return the sets that differ, and how many are the same in all outputs."""
    digests = [one["digests"] for one in reports]
    records = [{flow["name"]: flow["records_out"] for flow in one["records"]} for one in reports]
    inputs: dict[str, set[str]] = {}
    for node in (node for one in reports for node in one["lineage"]):
        inputs.setdefault(node["name"], set()).update(node["inputs"])
    names = [name for name in dict.fromkeys(name for one in records for name in one) if name != SCORES]
    changed = {name for one in digests for name in one if len({some.get(name) for some in digests}) > 1}
    rows = []
    for name in names:
        if name in changed:
            values = [
                (found.get(name), counts.get(name)) if name in found else None
                for found, counts in zip(digests, records, strict=True)
            ]
            rows.append(Difference(name, values, caused=any(one in changed for one in inputs.get(name, ()))))
    return rows, len(names) - len(rows)


def _figures(outputs: Sequence[Output]) -> tuple[list[Figure], dict[str, list[str]]]:
    metric = outputs[0].report["metric"]
    tables = [
        {
            (row["system"], row["test_set"]): (row["value"], row["low"], row["high"])
            for row in one.report["metrics"]
            if row["metric"] == metric and row["seed"] is None
        }
        for one in outputs
    ]
    places = list(dict.fromkeys(place for table in tables for place in table))
    pairing = {name: [_pairing(outputs[0], one, name) for one in outputs[1:]] for _, name in places}
    figures = []
    for system, test_set in places:
        values = [table.get((system, test_set)) for table in tables]
        changes = []
        for one, value, why in zip(outputs[1:], values[1:], pairing[test_set], strict=True):
            pair = _pair(outputs[0], one, system, test_set) if why == PAIRED else None
            changes.append(_change(values[0], value, pair))
        figures.append(Figure(system, test_set, values, changes))
    return _corrected(figures), pairing


def _corrected(figures: Sequence[Figure]) -> list[Figure]:
    known = iter(holm([one.p for figure in figures for one in figure.changes if one is not None and one.p is not None]))

    def corrected(one: Change | None) -> Change | None:
        return one if one is None or one.p is None else replace(one, p_holm=next(known))

    return [replace(figure, changes=[corrected(one) for one in figure.changes]) for figure in figures]


PAIRED = "the same records"


def _pairing(first: Output, other: Output, test_set: str) -> str:
    """Return that a test set is the same in two outputs, or why its figures are not paired."""
    if first.scores is None or other.scores is None:
        return "no scores of single records; an output of an earlier version gets them when it is run again"
    mine, theirs = (_records(one, test_set) for one in (first.scores, other.scores))
    if not mine or not theirs:
        return "not a test set of both"
    if mine.keys() != theirs.keys():
        return f"other records: {len(mine)} and {len(theirs)}, {len(mine.keys() & theirs.keys())} in both"
    return PAIRED if mine == theirs else "the same ids, and other references"


def _records(stored: Stored, test_set: str) -> dict[str, float]:
    """Return the sizes of a test set's records, by id: over all splits, if they are random ones."""
    for by_set in stored.results.values():
        if test_set in by_set:
            one = next(iter(_aligned(by_set[test_set]).values()))
            return dict(zip(one.ids, one.words.tolist(), strict=True))
    return {}


def _pooled(runs: Mapping[int, RecordCounts]) -> RecordScores:
    """Return the sums of each record's counts over seeds, each of which may have tested other records."""
    found: dict[str, list[Any]] = {}
    for one in runs.values():
        for name, speaker, words, errors in zip(one.ids, one.speakers, one.words, one.errors, strict=True):
            row = found.setdefault(name, [0.0, 0.0, speaker])
            row[0] += float(errors)
            row[1] += float(words)
    rows = [found[name] for name in sorted(found)]
    errors, words = (np.array([row[place] for row in rows]) for place in (0, 1))
    return RecordScores(errors, words, tuple(row[2] for row in rows), tuple(sorted(found)))


def _pair(first: Output, other: Output, system: str, test_set: str) -> Change | None:
    """Return a system's paired change; ``None`` if only one of the outputs has it."""
    runs = [one.scores.results.get(system, {}).get(test_set, {}) for one in (other, first) if one.scores is not None]
    if first.scores is None or not all(runs):
        return None
    log = first.scores.scale == "log"
    found = paired_change(_aligned(runs[0]), _aligned(runs[1]))
    interval = found.difference if log else found.relative
    if interval is None:
        return Change(None, p=found.p, paired=True)
    ends = (interval.value, interval.low, interval.high)
    value, low, high = map(math.expm1, ends) if log else ends
    return Change(value, low, high, found.p, paired=True)


def _change(before: Measured | None, after: Measured | None, pair: Change | None) -> Change | None:
    if before is None or after is None or before[0] is None or after[0] is None:
        return None
    return pair or _unpaired(before, after)


def _aligned(runs: Mapping[int, RecordCounts]) -> Mapping[int, RecordCounts]:
    """Return the runs of seeds that tested the same records; of random splits, their sums as one."""
    return runs if len({one.ids for one in runs.values()}) == 1 else {0: _pooled(runs)}


def _unpaired(before: Measured, after: Measured) -> Change:
    """Return the change between two independent estimates: normal on a logarithmic scale, from their intervals."""
    numbers = [number for number in (*before, *after) if number is not None and number > 0]
    if len(numbers) < len((*before, *after)):
        return Change(after[0] / before[0] - 1 if before[0] and after[0] is not None else None)
    logs = [math.log(number) for number in numbers]
    moved, width = logs[3] - logs[0], math.hypot(logs[2] - logs[1], logs[5] - logs[4]) / 2
    low, high = moved - width, moved + width
    return Change(math.expm1(moved), math.expm1(low), math.expm1(high), interval_p(moved, low, high))
