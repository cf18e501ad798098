"""What a finished recipe leaves behind: ``report.json`` for tools and ``report.html`` for readers.

Every section is optional, so that all recipes share one report. Nothing here measures models; :func:`evaluate`
turns scored test sets into the long ``metrics`` table, and :func:`write_report` writes both files.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from gristmill.models.measures import significance
from gristmill.models.measures.wer import WerResult
from gristmill.shards.errors import UserError
from gristmill.shards.store import join, read_if_present, write_bytes

Row = dict[str, Any]
Results = Mapping[str, Mapping[str, Mapping[int, WerResult]]]  # system, test set, training seed

ROW_KEYS = ("system", "test_set", "metric", "value", "low", "high", "n", "seed")
_COUNTS = ("records_in", "records_out", "rejected", "quarantined")
_PARTS = ("substitutions", "deletions", "insertions")
# What another run of the same work measures anew; the rest decides whether a report has to be written.
_VOLATILE = ("plan", "versions", "identity")


class Spectrogram(NamedTuple):
    """A picture for the report; it goes into the page, not into the JSON."""

    title: str
    values: np.ndarray  # (frames, bins), low bins first; any log scale
    hop: float  # seconds a frame
    caption: str = ""


@dataclass
class Report:
    """What the two files hold; whatever is left empty is left out of the page.

    ``metrics`` rows have the keys ``ROW_KEYS``; rates are fractions; ``seed`` null is over all seeds. A row's
    ``n`` is the reference words behind a rate (so rate x n is the count), the segments behind a p.
    """

    title: str
    recipe: dict[str, Any]  # name and settings
    summary: str = ""  # one sentence; written from the metrics where empty
    metrics: list[Row] = field(default_factory=list)
    metric: str = "wer"  # the row metric that the figures show
    baseline: str = "teacher"  # the system that the others are compared with
    percent: bool = True  # whether the metric is a fraction, shown as percent
    lower_is_better: bool = True
    headline: tuple[str, str] | None = None  # (system, test set) of the summary sentence
    labels: dict[str, str] = field(default_factory=dict)  # names to show for systems and test sets
    tested: str = "speech"  # what test sets hold
    test_sets: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> {"utterances": 9, ...}
    # Training curves: {"system", "seed", "step", "loss", any other measure}, one row a point.
    curves: list[dict[str, Any]] = field(default_factory=list)
    spectrograms: list[Spectrogram] = field(default_factory=list)
    # One cell a row: {"k", "temperature", "value", optional "low", "high"}, value a fraction.
    sweep: list[dict[str, Any]] = field(default_factory=list)
    sweep_title: str = "k x temperature"
    sweep_chosen: tuple[Any, Any] | None = None  # (k, temperature) of the recipe itself
    # One diagram a row: {"system", "domain" (null: all), "bins": [calibration.Bin as a dict]}.
    reliability: list[dict[str, Any]] = field(default_factory=list)
    # What each filter kept and dropped: {"name", "kept", "dropped", "examples": {"kept": [row], "dropped": [row]}}.
    filters: list[dict[str, Any]] = field(default_factory=list)
    # As `audit` prints it, one row a sealed set: {"name", "digest", "records_in", "records_out", "rejected",
    # "quarantined", "shards", optional "reasons": {reason: count}}.
    records: list[dict[str, Any]] = field(default_factory=list)
    # One row a step or artifact, inputs first: {"name", "digest", "inputs": [names], optional "kind"}.
    lineage: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    # {"estimate": {...}, "actual": {...}}: numbers by name, or by step and then name.
    plan: dict[str, dict[str, Any]] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    # {"id", "test_set", "reference", "hypotheses": {system: text}}
    examples: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def evaluate(
    results: Results,
    *,
    metric: str = "wer",
    baseline: str = "teacher",
    also_against: Sequence[str] = (),
    replicates: int = 2000,
    seed: int = 0,
) -> list[Row]:
    """Return the long table of scored systems: for each seed, and over all of them (``seed`` null).

    Metrics: ``metric`` itself; ``substitutions``, ``deletions``, ``insertions`` as rates over the reference
    words; ``{metric}_relative`` and ``mapsswe_p``, ``mapsswe_z`` against the baseline (the same with
    ``:{system}`` appended against each system of ``also_against``). A system trained with seed s meets the
    baseline's seed s, or its first where it has none. Over all seeds ``mapsswe_p`` is the largest of the
    seeds' (all of them must be significant), with its z. Systems must have been scored on the same utterances.
    """
    missing = [name for name in (baseline, *also_against) if name not in results]
    if missing:
        raise UserError(f"evaluation: no results for {missing[0]!r}; there are {sorted(results)}")
    rows: list[Row] = []
    for system, by_set in results.items():
        for test_set, runs in by_set.items():
            settings: dict[str, Any] = {"replicates": replicates, "seed": seed}
            rows += _rates(system, test_set, runs, metric, settings)
            for other in (baseline, *also_against):
                theirs = results[other].get(test_set)
                if other == system or theirs is None:
                    continue
                suffix = "" if other == baseline else f":{other}"
                rows += _against(system, test_set, runs, theirs, metric, suffix, settings)
    return rows


def _row(
    system: str,
    test_set: str,
    metric: str,
    value: float,
    bounds: tuple[float | None, float | None],
    n: int,
    seed: int | None,
) -> Row:
    return dict(zip(ROW_KEYS, (system, test_set, metric, value, *bounds, n, seed), strict=True))


def _rates(system: str, test_set: str, runs: significance.Runs, metric: str, settings: dict[str, Any]) -> list[Row]:
    words = int(next(iter(runs.values())).words.sum())
    rows = []
    keyed: list[tuple[int | None, significance.Runs]] = [(None, runs)]
    keyed += [(key, {key: run}) for key, run in runs.items()]
    for key, some in keyed:
        for name in (metric, *_PARTS):
            measure = None if name == metric else lambda run, name=name: getattr(run, name)
            got = significance.wer_interval(some, measure, **settings)
            rows.append(_row(system, test_set, name, got.value, (got.low, got.high), words, key))
    return rows


def _against(
    system: str,
    test_set: str,
    runs: significance.Runs,
    theirs: significance.Runs,
    metric: str,
    suffix: str,
    settings: dict[str, Any],
) -> list[Row]:
    words = int(next(iter(runs.values())).words.sum())
    first = next(iter(theirs))
    rows, tests = [], {}
    for key, run in runs.items():
        partner = theirs[key if key in theirs else first]
        tests[key] = significance.mapsswe(run, partner)
        if partner.errors.sum():
            got = significance.relative_interval({0: run}, {0: partner}, **settings)
            bounds = (got.low, got.high)
            rows.append(_row(system, test_set, f"{metric}_relative{suffix}", got.value, bounds, words, key))
    if sum(int(run.errors.sum()) for run in theirs.values()):
        got = significance.relative_interval(runs, theirs, **settings)
        bounds = (got.low, got.high)
        rows.insert(0, _row(system, test_set, f"{metric}_relative{suffix}", got.value, bounds, words, None))
    weakest = max(tests.values(), key=lambda test: test.p)
    named: list[tuple[int | None, significance.Mapsswe]] = [(None, weakest), *tests.items()]
    for of, test in named:
        for name, value in (("mapsswe_p", test.p), ("mapsswe_z", test.z)):
            rows.append(_row(system, test_set, name + suffix, value, (None, None), test.segments, of))
    return rows


def record_row(seal: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row of ``Report.records`` from a seal, or from a line of ``audit``."""
    row: dict[str, Any] = {key: seal[key] for key in ("name", "digest", *_COUNTS)}
    row["shards"] = seal["shards"] if isinstance(seal["shards"], int) else len(seal["shards"])
    return {**row, "reasons": dict(seal.get("reasons", {}))}


def describe_test_set(result: WerResult) -> dict[str, Any]:
    """Return a test set's size for ``Report.test_sets``, and what its intervals resample."""
    speakers = len(set(result.speakers))
    few = speakers < significance.MIN_SPEAKERS
    return {
        "utterances": len(result),
        "words": int(result.words.sum()),
        "speakers": speakers,
        "resampled": "utterances within speakers" if few else "speakers",
    }


def find(report: Report, system: str, test_set: str, metric: str | None = None, seed: int | None = None) -> Row | None:
    """Return one row of the metrics, the report's own metric by default."""
    wanted = (system, test_set, metric or report.metric, seed)
    for row in report.metrics:
        if (row["system"], row["test_set"], row["metric"], row["seed"]) == wanted:
            return row
    return None


def to_json(report: Report) -> bytes:
    """Return ``report.json``: keys in a fixed order, no times of day, numbers that JSON can hold."""
    from gristmill.pipelines.report.html import summary

    document: dict[str, Any] = {
        "title": report.title,
        "summary": summary(report),
        "recipe": report.recipe,
        "metric": report.metric,
        "baseline": report.baseline,
        "metrics": [{key: row.get(key) for key in ROW_KEYS} for row in report.metrics],
        "test_sets": report.test_sets,
        "digests": report.digests,
        "records": report.records,
        "plan": report.plan,
        "versions": report.versions,
        "lineage": report.lineage,
        "sweep": report.sweep,
        "reliability": report.reliability,
        "filters": report.filters,
        "curves": report.curves,
        "examples": report.examples,
        "spectrograms": [
            {"title": s.title, "frames": len(s.values), "hop": s.hop, "caption": s.caption} for s in report.spectrograms
        ],
        "notes": report.notes,
    }
    document = _plain(document)
    told = {key: value for key, value in document.items() if key not in _VOLATILE}
    document["identity"] = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _plain(value: Any) -> Any:
    """Turn numpy numbers and tuples into JSON's own kinds; what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_report(out: str, report: Report) -> bool:
    """Write ``report.json`` and ``report.html`` below a URL; tell whether anything was written.

    A report that says the same as the one there is left alone, whatever time or library versions a run that
    found all its work done would now put in: those of the run that did the work stay.
    """
    from gristmill.pipelines.report.html import to_html

    data = to_json(report)
    old = read_if_present(join(out, "report.json"))
    page = join(out, "report.html")
    if old is not None and _identity(old) == _identity(data) and read_if_present(page) is not None:
        return False
    # The page first: a run killed between the two writes both again.
    write_bytes(page, to_html(report).encode())
    write_bytes(join(out, "report.json"), data)
    return True


def _identity(data: bytes) -> str | None:
    try:
        return json.loads(data).get("identity")
    except (ValueError, AttributeError):
        return None  # not a report of ours: written again
