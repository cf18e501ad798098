"""``gristmill compare`` of outputs whose figures are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors.nlu.folds import Folds
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.measures.wer import UNKNOWN
from gristmill.pipelines.command.compare import compare_outputs
from gristmill.pipelines.provenance import add_provenance
from gristmill.pipelines.record_scores import RecordScores, Scale, keep_scores, read_scores
from gristmill.pipelines.report.measures import PERPLEXITY, WER, Measure
from gristmill.pipelines.report.report import MetricRow, Report
from gristmill.pipelines.report.write import write_report
from gristmill.pipelines.run import Run
from gristmill.shards.step import Step
from tests.pipelines.commands import call

IDS = tuple(f"u{number:03d}" for number in range(120))
SPEAKERS = tuple(f"s{number % 20}" for number in range(120))


def scores(errors: np.ndarray, ids: tuple[str, ...] = IDS, words: float = 8.0) -> RecordScores:
    known = SPEAKERS if ids == IDS else tuple(UNKNOWN + name for name in ids)
    return RecordScores(errors.astype(float), np.full(len(ids), words), known, ids)


def errors(rate: float, seed: int = 0, n: int = len(IDS)) -> np.ndarray:
    return np.random.default_rng(seed).binomial(8, rate, n)


def output(
    out: Path,
    results: Mapping[str, Mapping[str, Mapping[int, RecordScores]]],
    measure: Measure = WER,
    scale: Scale = "linear",
    texts: str = "on",
    **settings: object,
) -> str:
    """Write what a run leaves: sets, scores, report and ledger."""
    run = Run(str(out), InProcessRunner(), seeds=[0])
    listed = run.table("texts", pa.table({"id": ["a", "b"], "text": ["stop", texts]}))
    run.step(Step("dealt", (Folds.stage(),), listed))
    keep_scores(run, measure.name, results, {"sets": [listed]}, scale)
    run.finish()
    rows = []
    for system, by_set in results.items():
        for test_set, runs in by_set.items():
            rates = [one.errors.sum() / one.words.sum() for one in runs.values()]
            value = float(np.exp(np.mean(rates)) if scale == "log" else np.mean(rates))
            rows.append(MetricRow(system, test_set, measure.name, value, 0.9 * value, 1.1 * value, 960, None))
    report = Report("T", {"name": "made", **settings}, measures=[measure], baseline="base", metrics=rows)
    report.headline = ("ours", "noisy")
    add_provenance(report, run, "inprocess")
    write_report(run.out, report)
    run.write_ledger("made", "")
    return run.out


def figure(made, system, test_set="noisy"):
    (one,) = [one for one in made.figures if (one.system, one.test_set) == (system, test_set)]
    return one


def test_the_same_records_are_paired(tmp_path: Path) -> None:
    base, ours = errors(0.3), errors(0.3)
    better = np.maximum(ours - (np.arange(len(ours)) % 4 == 0), 0)
    first = output(tmp_path / "a", {"base": {"noisy": {0: scores(base)}}, "ours": {"noisy": {0: scores(ours)}}}, k=1)
    second = output(
        tmp_path / "b", {"base": {"noisy": {0: scores(base)}}, "ours": {"noisy": {0: scores(better)}}}, k=2, new=True
    )
    made, _ = compare_outputs([first, second])
    (change,) = figure(made, "ours").changes
    assert change.paired
    assert change.change == pytest.approx(better.sum() / ours.sum() - 1)
    assert change.high < 0
    assert change.beyond_chance
    assert figure(made, "base").changes[0].change == 0.0
    assert {row.name: row.values for row in made.settings} == {"k": [1, 2], "new": [None, True]}
    assert (made.sets, made.same_sets) == ([], 2)
    shown = call("compare", first, second)
    assert shown.exit_code == 0
    assert "WER on noisy (A-B paired, the same records):" in shown.stdout
    assert "A baseline wins" not in shown.stdout.splitlines()[1]
    assert "better beyond chance" in shown.stdout
    assert "worse beyond chance" in call("compare", second, first).stdout
    document = json.loads(call("compare", first, second, "--json").stdout)
    assert document["outs"] == [first, second]
    assert document["figures"][1]["changes"][0]["paired"] is True


def test_settings_that_an_earlier_version_did_not_have_are_told_apart(tmp_path: Path) -> None:
    results = {"ours": {"noisy": {0: scores(errors(0.3))}}}
    first = output(tmp_path / "a", results, corpus={"rows": 4}, gold=None)
    second = output(tmp_path / "b", results, corpus={"rows": 4, "held_out": "recordings"}, gold={"epochs": 1})
    made, _ = compare_outputs([first, second])
    assert [(row.name, row.values, row.unknown) for row in made.settings] == [
        ("gold.epochs", [None, 1], False),
        ("corpus.held_out", [None, "recordings"], True),
    ]
    lines = call("compare", first, second).stdout.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("settings that not all have"))
    assert lines[place + 2].split() == ["corpus.held_out", "–", "recordings"]
    assert "versions: the same" in lines


def test_common_settings_have_their_own_names_and_an_unknown_level_is_not_the_same(tmp_path: Path) -> None:
    results = {"ours": {"noisy": {0: scores(errors(0.3))}}}
    first, second = (output(tmp_path / name, results) for name in "ab")
    path = tmp_path / "b" / "report.json"
    document = json.loads(path.read_text())
    document["run"]["seed"] = 7
    old = {key: document[key] for key in document if key not in ("format", "verdict", "checksum", "identity")}
    del old["versions"]["processor"]
    path.write_text(json.dumps(old))
    made, _ = compare_outputs([first, second])
    assert [(row.name, row.values) for row in made.settings] == [("seed", [0, 7])]
    assert [row.name for row in made.versions] == ["processor"]
    (tmp_path / "a" / "report.json").write_text(json.dumps(old))
    assert "but for the processor's level, which is not recorded" in call("compare", first, second).stdout


def test_other_records_are_not_paired_and_it_is_said(tmp_path: Path) -> None:
    first = output(tmp_path / "a", {"ours": {"noisy": {0: scores(errors(0.3))}}})
    fewer = scores(errors(0.3, n=100), tuple(f"u{number:03d}" for number in range(50, 150)))
    second = output(tmp_path / "b", {"ours": {"noisy": {0: fewer}}}, texts="off")
    longer = output(tmp_path / "c", {"ours": {"noisy": {0: scores(errors(0.3), words=9.0)}}})
    made, _ = compare_outputs([first, second, longer])
    assert made.pairing["noisy"] == [
        "other records: 120 and 100, 70 in both",
        "the same ids, and other references",
    ]
    for change in figure(made, "ours").changes:
        assert not change.paired
        assert change.low < change.change < change.high
    (texts, dealt) = made.sets
    assert (texts.name, texts.caused, dealt.name, dealt.caused) == ("texts", False, "dealt", True)
    text = call("compare", first, second).stdout
    assert "A-B not paired, other records: 120 and 100, 70 in both" in text
    assert "data: 0 sets are the same; 1 differ, and 1 that were made of" in text


def test_an_output_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    first = output(tmp_path / "a", {"ours": {"noisy": {0: scores(errors(0.3))}}})
    second = output(tmp_path / "b", {"ours": {"noisy": {0: scores(errors(0.3))}}})
    path = tmp_path / "b" / "report.json"
    document = json.loads(path.read_text())
    old = {key: document[key] for key in document if key not in ("format", "verdict", "checksum", "identity")}
    path.write_text(json.dumps(old))
    made, _ = compare_outputs([first, second])
    assert made.pairing["noisy"][0].startswith("no scores of single records; an output of an earlier version")
    path.write_text(json.dumps({"title": "T", "metrics": []}))
    refused = call("compare", first, second)
    assert refused.exit_code == 2
    assert "is of an early version of Gristmill; run the recipe again" in refused.stderr
    path.write_text(json.dumps({**document, "format": 99}))
    assert "later version of Gristmill (format 99)" in call("compare", first, second).stderr
    path.write_text(json.dumps({**document, "title": "altered"}))
    assert call("compare", first, second).exit_code == 1


def test_seeds_and_random_splits(tmp_path: Path) -> None:
    """Trainings of three seeds are paired; splits that tested other requests are summed by request."""
    three = {seed: scores(errors(0.3, seed)) for seed in range(3)}
    ids = [tuple(IDS[start : start + 60]) for start in (0, 30, 60)]
    splits = {seed: scores(errors(0.3, seed, 60), some) for seed, some in enumerate(ids)}
    results = {"ours": {"noisy": three, "test": splits}}
    first = output(tmp_path / "a", results)
    fixed = {
        system: {
            name: {seed: replace(one, errors=np.maximum(one.errors - 1, 0)) for seed, one in runs.items()}
            for name, runs in sets.items()
        }
        for system, sets in results.items()
    }
    made, _ = compare_outputs([first, output(tmp_path / "b", fixed)])
    for name, runs in results["ours"].items():
        (change,) = figure(made, "ours", name).changes
        before, after = (sum(one.errors.sum() for one in r.values()) for r in (runs, fixed["ours"][name]))
        assert change.paired
        assert change.change == pytest.approx(after / before - 1)
        assert change.beyond_chance
    stored = read_scores(first)
    assert stored is not None
    assert stored.results["ours"]["test"][2].ids == ids[2]
    assert stored.results["ours"]["noisy"][0].speakers == SPEAKERS
    assert stored.results["ours"]["test"][0].speakers[0].startswith(UNKNOWN)


def test_perplexities_are_compared_by_their_logarithms(tmp_path: Path) -> None:
    nats = np.random.default_rng(0).gamma(4.0, 8.0, len(IDS))
    outs = [
        output(tmp_path / name, {"ours": {"1/4": {0: scores(nats + more)}}}, PERPLEXITY, "log")
        for name, more in (("a", 0.0), ("b", -0.8))
    ]
    made, _ = compare_outputs(outs)
    (change,) = figure(made, "ours", "1/4").changes
    assert change.change == pytest.approx(np.expm1(-0.1))
    assert (change.low, change.high) == (pytest.approx(np.expm1(-0.1)), pytest.approx(np.expm1(-0.1)))


def test_refusals(tmp_path: Path) -> None:
    first = output(tmp_path / "a", {"ours": {"noisy": {0: scores(errors(0.3))}}})
    other = output(tmp_path / "b", {"ours": {"noisy": {0: scores(errors(3.0 / 8))}}}, PERPLEXITY, "log")
    for outs, sentence in (
        ([first], "expected two or more"),
        ([first, other], "expected outputs of one recipe"),
        ([first, str(tmp_path)], "there is no report.json"),
    ):
        refused = call("compare", *outs)
        assert refused.exit_code == 2
        assert sentence in refused.stderr
