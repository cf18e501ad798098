"""The report of the personalisation recipe: each technique with lists of each length, and what other words suffer."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from gristmill.actors.speech.personal_fits import TRIALS
from gristmill.actors.speech.personal_model import PersonalModel
from gristmill.actors.speech.personalise import WORDS_FILE
from gristmill.actors.speech.word_lists import WordLists, WordListSettings
from gristmill.models.measures.biasing import MEASURES, BiasingResult, score_biasing
from gristmill.models.measures.significance import Ratio, paired_change, wer_interval
from gristmill.models.speech.personal import Technique
from gristmill.pipelines.record_scores import RecordScores, keep_scores
from gristmill.pipelines.report.measures import (
    B_WER,
    FALSE_WORDS,
    FALSE_WORDS_HOUR,
    RARE_F1,
    RARE_PRECISION,
    RARE_RECALL,
    U_WER,
    WER,
)
from gristmill.pipelines.report.report import MetricRow, NumberTable, Report, TestSet
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.personal_parts import CURVES, Material
from gristmill.pipelines.speech.personal_shown import attention, speed
from gristmill.pipelines.speech.scoring import curve
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet

BASE, PROPOSAL = "base", "joint"
LABELS = {
    BASE: "Base",
    "adapter": "Contextual adapter",
    "boost": "Subword boosting",
    "unigram": "Unigram boosting",
    "phones": "Phone distance",
    "lexicon": "Pronunciation look-up",
    "g2g": "Other spellings (G2G)",
    "decoder": "Decoder (all five)",
    PROPOSAL: "Joint",
    "ctc": "CTC loss",
    "inner": "CTC loss of inner heads",
    "attention": "attention loss",
}
SHOWN = [RARE_F1, RARE_PRECISION, RARE_RECALL, WER, U_WER, B_WER, FALSE_WORDS, FALSE_WORDS_HOUR]
COMPARED = (RARE_F1, WER, U_WER, B_WER)
Scored = Mapping[str, Mapping[str, Mapping[int, BiasingResult]]]  # system, test set, training seed


def scored(
    tests: Mapping[int, Mapping[str, SealedSet]],
    systems: Mapping[str, Any],
    lists: Mapping[str, WordListSettings],
    words: list[str],
) -> tuple[dict[str, dict[str, dict[int, BiasingResult]]], tuple[str, ...]]:
    """Return the counts of each system with the lists of each test set, and the ids of the records."""
    found: dict[str, dict[str, dict[int, BiasingResult]]] = {}
    ids: tuple[str, ...] = ()
    for seed, by_name in tests.items():
        for name, made in by_name.items():
            table = pa.concat_tables(made.tables())
            ids = tuple(table["id"].to_pylist())
            columns = (
                table["text"].to_pylist(),
                table["names"].to_pylist(),
                WordLists(words, lists[name]).of_batch(table),
            )
            said, rare, listed = (
                [text.split() for text in columns[0]],
                list(map(set, columns[1])),
                list(map(set, columns[2])),
            )
            for system in systems:
                texts = [text.split() for text in table[f"hypothesis_{system}"].to_pylist()]
                counts = score_biasing(
                    said, texts, rare, listed, table["speaker"].to_pylist(), table["duration"].to_pylist()
                )
                found.setdefault(system, {}).setdefault(name, {})[seed] = counts
    return found, ids


def metrics(results: Scored) -> list[MetricRow]:
    """Return all measures of all systems, for each seed and over all of them, and their changes against the base."""
    return [row for system, by_set in results.items() for name in by_set for row in _rows(results, system, name)]


def _rows(results: Scored, system: str, name: str) -> Iterator[MetricRow]:
    runs, base = results[system][name], results[BASE][name]
    keyed: list[tuple[int | None, list[int]]] = [(None, list(runs)), *((seed, [seed]) for seed in runs)]
    for of, seeds in keyed:
        for measure in MEASURES:
            mine = _ratios(runs, measure, seeds)
            n = int(next(iter(mine.values())).words.sum())
            got = wer_interval(mine)
            if not math.isfinite(got.value):
                continue  # nothing was heard of which it would be a share
            yield MetricRow(system, name, measure, got.value, got.low, got.high, n, of)
            if system == BASE or measure not in {one.name for one in COMPARED}:
                continue
            change = paired_change(mine, _ratios(base, measure, seeds))
            for kind, value in (("difference", change.difference), ("relative", change.relative)):
                if value is not None:
                    yield MetricRow(system, name, f"{measure}_{kind}", value.value, value.low, value.high, n, of)
            yield MetricRow(system, name, f"{measure}_p", change.p, None, None, n, of)


def _ratios(runs: Mapping[int, BiasingResult], measure: str, seeds: list[int]) -> dict[int, Ratio]:
    return {place: runs[seed].ratio(measure) for place, seed in enumerate(seeds)}


def make_report(
    run: Run,
    settings: Mapping[str, Any],
    systems: Mapping[str, tuple[Technique, ...]],
    lists: Mapping[str, WordListSettings],
    tests: Mapping[int, Mapping[str, SealedSet]],
    given: Material,
    models: Mapping[tuple[str, int], Artifact],
) -> Report:
    """Return the report of all systems."""
    words = given.words["test"].read(WORDS_FILE).decode().split()
    results, ids = scored(tests, systems, lists, words)
    joint = next(model for (system, _), model in models.items() if system == PROPOSAL)
    known = PersonalModel(joint.url, pronounced=given.listed.url)
    timed = {name: systems[name] for name in (BASE, PROPOSAL)}
    kept = {
        system: {name: {seed: _record_scores(one, ids) for seed, one in runs.items()} for name, runs in by_set.items()}
        for system, by_set in results.items()
    }
    keep_scores(run, WER.name, kept, {"tests": {seed: dict(by_name) for seed, by_name in tests.items()}})
    first = next(iter(results[BASE].values()))
    rare = next(iter(first.values()))
    size = {"utterances": len(rare), "words": int(rare.words.sum()), "rare words": int(rare.rare_words.sum())}
    headline = "n100" if "n100" in lists else next(iter(lists))
    # A base from outside has no course of a training, and the joint model is fitted.
    trained = {key: one for key, one in models.items() if key[0] != PROPOSAL and CURVES in one.files}
    return Report(
        title="Recognising a user's words without retraining",
        recipe={"name": "personalise", **settings},
        measures=[*SHOWN, *(one.relative() for one in (RARE_F1, U_WER))],
        baseline=BASE,
        baselines=[BASE],
        headline=(PROPOSAL, headline),
        proposals=[PROPOSAL],
        labels=LABELS | {name: _label(one) for name, one in lists.items()},
        tested="speech with names",
        metrics=metrics(results),
        test_sets={name: TestSet(size, "speakers") for name in lists},
        spectrograms=attention(known, given.test, words),
        measured=[_tried(joint)],
        times=lambda: [speed(known, given.test, words, lists, timed)],
        curves=[point for key, model in trained.items() for point in curve(key, model)],
    )


def _record_scores(one: BiasingResult, ids: tuple[str, ...]) -> RecordScores:
    return RecordScores(one.errors, one.words, one.speakers, ids)


def _label(lists: WordListSettings) -> str:
    size = f"{lists.size:,} words" if lists.size is not None else "own lists"
    return size if lists.present else f"{size}, without the true ones"


def _tried(joint: Artifact) -> NumberTable:
    """Return the table of the settings that were tried on development speech."""
    rows = [
        {"setting": one["setting"], "value": one["value"], "word errors, %": 100 * one["word_errors"] / one["words"]}
        for one in json.loads(joint.read(TRIALS))
    ]
    note = (
        "With lists that hold the true words and lists that do not, together; the first value of each is where it was."
    )
    return NumberTable("Settings tried on development speech", rows, note)
