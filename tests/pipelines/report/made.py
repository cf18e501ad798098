"""Reports of made figures: what a proposal and its baselines are said to have."""

from __future__ import annotations

from dataclasses import replace

from gristmill.models.measures.significance import interval_p
from gristmill.pipelines.report.measures import MAPSSWE, WER
from gristmill.pipelines.report.report import MetricRow, Report, TestSet

LABELS = {
    "teacher": "Clean teacher",
    "hard_labels": "Hard labels",
    "student": "Student",
    "student_seq": "Student + sequence",
    "clean": "Clean",
    "noisy": "Noisy",
    "rerecorded": "Re-recorded",
}
PROPOSALS, BASELINES = ("student", "student_seq"), ("teacher", "hard_labels")

# Error rates by test set and system.
WINS = {
    "clean": {"teacher": 0.10, "hard_labels": 0.09, "student": 0.07, "student_seq": 0.068},
    "noisy": {"teacher": 0.60, "hard_labels": 0.30, "student": 0.24, "student_seq": 0.23},
}
LOSES = {
    "clean": {"teacher": 0.10, "hard_labels": 0.05, "student": 0.0512, "student_seq": 0.0508},
    "noisy": {"teacher": 0.60, "hard_labels": 0.20, "student": 0.24, "student_seq": 0.23},
}


def report_of(rates, *, spread=0.05, seeds=(0, 1, 2), resampled="speakers", **more):
    """Return a report whose relative changes have intervals of ``spread`` to both sides."""
    metrics = []
    for test_set, by_system in rates.items():
        for system, value in by_system.items():
            for seed in (None, *seeds):
                metrics.append(MetricRow(system, test_set, "wer", value, 0.9 * value, 1.1 * value, 1000, seed))
            for other in BASELINES:
                if other == system or other not in by_system:
                    continue
                suffix, base = "" if other == BASELINES[0] else f":{other}", by_system[other]
                change = value / base - 1 if base else None
                p = interval_p(change, change - spread, change + spread) if base else 0.0002
                ends = (change - spread, change + spread) if base else (None, None)
                if base:
                    metrics.append(MetricRow(system, test_set, f"wer_relative{suffix}", change, *ends, 1000, None))
                metrics.append(MetricRow(system, test_set, f"wer_p{suffix}", p, None, None, 1000, None))
                metrics.append(MetricRow(system, test_set, MAPSSWE.name + suffix, p, None, None, 90, None))
    given = {
        "title": "Distillation for noise-robust recognition",
        "recipe": {"name": "distill"},
        "measures": [WER, WER.relative()],
        "baseline": BASELINES[0],
        "baselines": BASELINES,
        "headline": ("student", "noisy"),
        "proposals": PROPOSALS,
        "labels": LABELS,
        "tested": "speech",
        "test_sets": {name: TestSet({"utterances": 240, "words": 1000}, resampled) for name in rates},
    }
    return Report(**{**given, "metrics": metrics, **more})


# What a baseline is to a proposal with an error rate of 30 %: its own rate, and the p of their difference.
STANDINGS = {
    "behind": (0.20, 1e-9),  # the proposal is, beyond chance
    "above": (0.25, 0.5),
    "equal": (0.30, 0.9),
    "below": (0.35, 0.5),
    "ahead": (0.45, 1e-9),
}
NAMES = ("alpha", "beta", "gamma")


def against(*standings, test_set="noisy", **more):
    """Return a report of a proposal that stands to each of some baselines as is said."""
    names = NAMES[: len(standings)]
    metrics = [MetricRow("ours", test_set, "wer", 0.3, None, None, 1000, None)]
    for place, (name, standing) in enumerate(zip(names, standings, strict=True)):
        rate, p = STANDINGS[standing]
        rate += 0.0 if standing == "equal" else 0.002 * place
        suffix = "" if name == names[0] else f":{name}"
        metrics.append(MetricRow(name, test_set, "wer", rate, None, None, 1000, None))
        moved = 0.3 / rate - 1
        for metric, value in (("wer_relative", moved), ("wer_p", p)):
            metrics.append(MetricRow("ours", test_set, metric + suffix, value, None, None, 1000, None))
    given = {"title": "T", "recipe": {}, "measures": [WER, WER.relative()], "baseline": names[0], "baselines": names,
             "proposals": ["ours"], "metrics": metrics}  # fmt: skip
    return Report(**{**given, **more})


def together(*reports):
    """Return a report of the test sets of several."""
    return replace(reports[0], metrics=[row for one in reports for row in one.metrics])
