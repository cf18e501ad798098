"""Domain models that are trained on what sessions taught, and their errors on later sessions.

Falke et al., "Leveraging User Paraphrasing Behavior In Dialog Systems To Automatically Collect Annotations For
Long-Tail Utterances" (COLING 2020, industry track). The tail are the later turns that the recogniser of the logs reads
wrongly, ``kept`` those that it reads rightly. As both are chosen by its errors, it can only win there or lose; so the
head is a test of its own: annotated requests that no model is trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gristmill.actors.nlu.folds import TEST
from gristmill.actors.nlu.hypotheses import Hypotheses, ListSettings, readers
from gristmill.actors.sessions.as_requests import Period, PeriodSettings, Successes, TestRequests, TrueRequests
from gristmill.models.measures.significance import paired_change, wer_interval
from gristmill.pipelines.nlu.systems import DOMAIN_MODELS, DomainSettings, train_domains
from gristmill.pipelines.record_scores import RecordScores
from gristmill.pipelines.report.measures import SEMER
from gristmill.pipelines.report.report import MetricRow
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.step import Step

TESTS = ("tail", "unheard", "kept", "head")
BASE = "base"
FEWEST = 2  # meanings that are resampled as blocks: turns of one alone say nothing of others
Models = Mapping[str, Artifact]  # of the domains, by name
Scored = Mapping[str, Mapping[str, Mapping[int, RecordScores]]]  # by system, test set and seed


@dataclass(frozen=True)
class Periods:
    """Turns of simulated sessions: those that are learnt from, later ones, and these as the requests that they are."""

    learnt: SealedSet
    after: SealedSet
    later: SealedSet  # requests: true, of the turns ``after``


@dataclass(frozen=True)
class TestReadings:
    """What the models of a system read in the tests."""

    __test__ = False  # not a pytest class

    later: SealedSet | None  # None: of a user's own sessions, of which nothing is known to be true
    head: SealedSet


def divide(run: Run, turns: SealedSet, suffix: str = "") -> Periods:
    """Divide simulated turns by their time."""
    learnt, after = (
        run.step(Step(f"{name}{suffix}", (Period.stage(PeriodSettings(later=later)),), turns))
        for name, later in (("learnt", False), ("after", True))
    )
    return Periods(learnt, after, run.step(Step(f"later{suffix}", (TrueRequests.stage(),), after)))


def successes(run: Run, turns: SealedSet, suffix: str = "") -> SealedSet:
    """Return the requests that are known to have been read rightly: self-training, which the others are compared to."""
    return run.step(Step(f"successes{suffix}", (Successes.stage(),), turns))


def retrain(
    run: Run,
    system: str,
    given: DomainSettings,
    annotated: SealedSet,
    added: SealedSet,
    domains: Sequence[str],
    seed: int,
) -> Models:
    """Return the domains' models of annotated requests and of those that are ``added``, trained on alike."""
    name = f"{DOMAIN_MODELS}_{system}"
    return train_domains(run, given, {seed: (annotated, added)}, domains, 0, name)[seed][TEST]


def head_of(run: Run, annotated: SealedSet, suffix: str = "") -> SealedSet:
    """Return the test part of annotated requests."""
    return run.step(Step(f"head{suffix}", (TestRequests.stage(),), annotated))


def read_tests(
    run: Run, system: str, models: Models, later: SealedSet | None, head: SealedSet, suffix: str = ""
) -> TestReadings:
    """Return how the models of a system read later turns and the head: the best reading, and its errors."""
    refs: Any = readers({TEST: models})
    stage = Hypotheses.stage(ListSettings(n=1, intents=1), **refs)

    def read(name: str, data: SealedSet) -> SealedSet:
        return run.step(Step(f"{name}_{system}{suffix}", (stage,), data))

    return TestReadings(None if later is None else read("later", later), read("head", head))


def score_tests(read: Mapping[str, TestReadings], learnt: SealedSet) -> dict[str, dict[str, RecordScores]]:
    """Return the errors of each system by test set (``TESTS``).

    ``learnt`` are the turns that were learnt from: ``unheard`` are those of the tail in words that no one said there.
    Turns of one meaning are a block of the bootstrap, as they are no independent evidence.
    """
    said = {text for table in learnt.tables(["asr_text"]) for text in table["asr_text"].to_pylist()}
    found: dict[str, dict[str, RecordScores]] = {}
    for system, made in read.items():
        parts = {}
        if made.later is not None:
            later = _rows(made.later, "failed", "meaning")
            failed = [row for row in later if row["failed"]]
            parts = {
                "tail": failed,
                "unheard": [row for row in failed if row["text"] not in said],
                "kept": [row for row in later if not row["failed"]],
            }
        parts["head"] = [row | {"meaning": row["id"]} for row in _rows(made.head)]
        found[system] = {name: _scores(rows) for name, rows in parts.items()}
    return found


def _rows(made: SealedSet, *more: str) -> list[dict[str, Any]]:
    columns = ["id", "text", "reference_length", "hypotheses", *more]
    return [row for table in made.tables(columns) for row in table.to_pylist()]


def _scores(rows: Sequence[Mapping[str, Any]]) -> RecordScores:
    return RecordScores(
        np.array([_errors(row) for row in rows], np.int64),
        np.array([row["reference_length"] for row in rows], np.int64),
        tuple(row["meaning"] for row in rows),
        tuple(row["id"] for row in rows),
    )


def _errors(row: Mapping[str, Any]) -> int:
    """Return the errors of the best reading; without any, all of the reference's labels."""
    return row["hypotheses"][0]["errors"] if row["hypotheses"] else row["reference_length"]


def pooled(runs: Mapping[int, RecordScores]) -> dict[int, RecordScores]:
    """Return the records of all seeds as one run: each seed has its own sessions, and its meanings are its blocks."""
    parts = [(seed, one) for seed, one in sorted(runs.items())]
    whole = RecordScores(
        np.concatenate([one.errors for _, one in parts]),
        np.concatenate([one.words for _, one in parts]),
        tuple(f"{seed}/{name}" for seed, one in parts for name in one.speakers),
        tuple(f"{seed}/{name}" for seed, one in parts for name in one.ids),
    )
    return {0: whole}


def semer_rows(scored: Scored, baselines: Sequence[str]) -> list[MetricRow]:
    """Return SemER by system and test set with its interval over meanings and seeds, and the changes against each of
    the ``baselines``, of which the first is the report's."""
    rows = []
    for system, sets in scored.items():
        for name, runs in sets.items():
            size = int(sum(len(one.words) for one in runs.values()))
            if not size:
                continue
            around = wer_interval(pooled(runs), min_speakers=FEWEST)
            rows.append(MetricRow(system, name, SEMER.name, around.value, around.low, around.high, size, None))
            for seed, one in runs.items():
                value = float(one.errors.sum() / max(1, one.words.sum()))
                rows.append(MetricRow(system, name, SEMER.name, value, None, None, len(one.words), seed))
            for place, other in enumerate(baselines):
                if other == system or other not in scored:
                    continue
                change = paired_change(pooled(runs), pooled(scored[other][name]), min_speakers=FEWEST)
                rest = "" if place == 0 else f":{other}"
                rows.append(MetricRow(system, name, f"{SEMER.name}_p{rest}", change.p, None, None, size, None))
                if (moved := change.relative) is not None:
                    metric = f"{SEMER.name}_relative{rest}"
                    rows.append(MetricRow(system, name, metric, moved.value, moved.low, moved.high, size, None))
    return rows
