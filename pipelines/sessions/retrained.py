"""Domain models that are trained on what sessions taught, and their errors on later sessions.

Falke et al., "Leveraging User Paraphrasing Behavior In Dialog Systems To Automatically Collect Annotations For
Long-Tail Utterances" (COLING 2020, industry track). The tail are the later turns that the recogniser of the logs reads
wrongly; the head are those that it reads rightly, of which nothing is to be lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.nlu.folds import TEST
from gristmill.actors.nlu.hypotheses import Hypotheses, ListSettings, readers
from gristmill.actors.sessions.as_requests import Period, PeriodSettings, Successes, TrueRequests
from gristmill.models.measures.significance import paired_change, wer_interval
from gristmill.pipelines.nlu.systems import DomainSettings, train_domains
from gristmill.pipelines.record_scores import RecordScores
from gristmill.pipelines.report.measures import SEMER
from gristmill.pipelines.report.report import MetricRow
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.step import Step

TESTS = ("tail", "unheard", "head")
BASE = "base"
Models = Mapping[str, Artifact]  # of the domains, by name
Scored = Mapping[str, Mapping[str, Mapping[int, RecordScores]]]  # by system, test set and seed


@dataclass(frozen=True)
class Periods:
    """Turns of simulated sessions: those that are learnt from, and later ones as the requests that they truly are."""

    learnt: SealedSet
    later: SealedSet


def divide(run: Run, turns: SealedSet, suffix: str = "") -> Periods:
    """Divide simulated turns by their time."""
    learnt = Step(f"learnt{suffix}", (Period.stage(PeriodSettings(later=False)),), turns)
    later = Step(f"later{suffix}", (Period.stage(PeriodSettings(later=True)), TrueRequests.stage()), turns)
    return Periods(run.step(learnt), run.step(later))


def successes(run: Run, turns: SealedSet, suffix: str = "") -> SealedSet:
    """Return the requests that are known to have been read rightly: self-training, which the others are compared to."""
    return run.step(Step(f"successes{suffix}", (Successes.stage(),), turns))


def retrain(
    run: Run, given: DomainSettings, annotated: SealedSet, added: SealedSet, domains: Sequence[str], seed: int
) -> Models:
    """Return the domains' models of annotated requests and of those that are ``added``, trained on alike."""
    return train_domains(run, given, {seed: (annotated, added)}, domains, 0)[seed][TEST]


def read_later(run: Run, system: str, models: Models, later: SealedSet, suffix: str = "") -> SealedSet:
    """Return how the models of a system read later turns: the best reading, and its errors."""
    refs: Any = readers({TEST: models})
    stage = Hypotheses.stage(ListSettings(n=1, intents=1), **refs)
    return run.step(Step(f"read_{system}{suffix}", (stage,), later))


def score_later(read: Mapping[str, SealedSet], heard: SealedSet) -> dict[str, dict[str, RecordScores]]:
    """Return the errors of each system on the later turns, by test set (``TESTS``).

    ``heard`` are the turns that were learnt from: what is ``unheard`` are words of the tail that no one said there.
    Turns of one meaning are a block of the bootstrap: they are no independent evidence.
    """
    said = {text for table in heard.tables(["asr_text"]) for text in table["asr_text"].to_pylist()}
    found: dict[str, dict[str, RecordScores]] = {}
    for system, made in read.items():
        columns = ["id", "text", "failed", "meaning", "reference_length", "hypotheses"]
        table = pa.concat_tables(made.tables(columns))
        rows = table.to_pylist()
        wrong = np.array(
            [row["hypotheses"][0]["errors"] if row["hypotheses"] else row["reference_length"] for row in rows]
        )
        lengths = np.array([row["reference_length"] for row in rows])
        failed = np.array([row["failed"] for row in rows], bool)
        new = np.array([row["text"] not in said for row in rows], bool)
        parts = {"tail": failed, "unheard": failed & new, "head": ~failed}
        found[system] = {
            name: RecordScores(
                wrong[own],
                lengths[own],
                tuple(rows[place]["meaning"] for place in np.flatnonzero(own)),
                tuple(rows[place]["id"] for place in np.flatnonzero(own)),
            )
            for name, own in parts.items()
        }
    return found


def _errors(row: Mapping[str, Any]) -> int:
    """Return the errors of the best reading; without any, all of the reference's labels."""
    return row["hypotheses"][0]["errors"] if row["hypotheses"] else row["reference_length"]


def pooled(runs: Mapping[int, RecordScores]) -> dict[int, RecordScores]:
    """Return the records of all seeds as one run: each seed has sessions of its own, and its meanings are its blocks."""
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
            around = wer_interval(pooled(runs))
            rows.append(MetricRow(system, name, SEMER.name, around.value, around.low, around.high, size, None))
            for seed, one in runs.items():
                value = float(one.errors.sum() / max(1, one.words.sum()))
                rows.append(MetricRow(system, name, SEMER.name, value, None, None, len(one.words), seed))
            for place, other in enumerate(baselines):
                if other == system or other not in scored:
                    continue
                change = paired_change(pooled(runs), pooled(scored[other][name]))
                rest = "" if place == 0 else f":{other}"
                rows.append(MetricRow(system, name, f"{SEMER.name}_p{rest}", change.p, None, None, size, None))
                if (moved := change.relative) is not None:
                    metric = f"{SEMER.name}_relative{rest}"
                    rows.append(MetricRow(system, name, metric, moved.value, moved.low, moved.high, size, None))
    return rows
