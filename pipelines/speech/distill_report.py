"""The report of the distillation recipe: its proposal, its baselines, and what can be seen and heard."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gristmill.models.measures.wer import WerResult
from gristmill.pipelines.evaluation import describe_test_set, evaluate
from gristmill.pipelines.report.measures import Measure
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech import scoring
from gristmill.pipelines.speech.examples import examples
from gristmill.pipelines.speech.measured import measured
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet

SOFT_OR_HARD = (
    "The student and hard labels learn from the same speech; hard labels have SpecAugment unless "
    "systems.hard_labels.specaugment is false. In what was measured, augmentation and the number of passes decided "
    "between them, and not the softness of the labels: benchmarks/RESULTS.md, "
    '"What decides between soft and hard labels".'
)
PROPOSALS, BASELINES = ("student", "student_seq"), ("teacher", "multicondition", "hard_labels")


def make_report(
    run: Run,
    settings: Mapping[str, Any],
    measure: Measure,
    tests: Mapping[str, SealedSet],
    features: Mapping[str, SealedSet],
    models: Mapping[scoring.Key, Artifact],
    written: scoring.Transcripts,
    scored: Mapping[str, Mapping[str, Mapping[int, WerResult]]],
) -> Report:
    """Return the report of all systems."""
    return Report(
        title="Distillation for noise-robust speech recognition",
        recipe={"name": "distill", **settings},
        measures=scoring.measures(measure),
        baseline=BASELINES[0],
        baselines=BASELINES,
        headline=(PROPOSALS[0], "noisy"),
        proposals=PROPOSALS,
        labels=scoring.LABELS,
        tested="speech",
        metrics=evaluate(scored, measure=measure, baseline=BASELINES[0], also_against=BASELINES[1:]),
        test_sets={name: describe_test_set(next(iter(runs.values()))) for name, runs in scored[PROPOSALS[0]].items()},
        examples=examples(written, tests, settings["examples"]),
        spectrograms=scoring.spectrograms(features),
        measured=measured(run),
        explained=scoring.EXPLAINED,
        notes=[SOFT_OR_HARD],
        curves=[point for key, model in models.items() for point in scoring.curve(key, model)],
    )
