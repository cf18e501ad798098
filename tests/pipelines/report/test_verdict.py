"""The verdict of a report: made figures where the proposal wins, where a baseline wins, and in between."""

import json
from dataclasses import replace

import pytest

from gristmill.pipelines.report.document import to_json
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.measures import BLEU, Measure
from gristmill.pipelines.report.report import MetricRow, Report
from gristmill.pipelines.report.verdict import conclude
from tests.pipelines.report.made import LOSES, WINS, report_of
from tests.pipelines.report.pages import parse


def kinds(report):
    return {one.test_set: one.kind for one in conclude(report).sets}


def test_the_proposal_wins():
    verdict = conclude(report_of(WINS))
    assert verdict.sentence == (
        "On Noisy and Clean speech, Student + sequence is ahead of every baseline beyond chance, WER 23.0% on Noisy "
        "against 30.0% for Hard labels, the nearest."
    )
    assert kinds(report_of(WINS)) == {"noisy": "won", "clean": "won"}
    assert verdict.sets[0].sentence == (
        "Noisy: Student + sequence, WER 23.0%, is ahead of every baseline beyond chance; the nearest is Hard labels, "
        "30.0% (−23.3%, 95% interval −28.3% to −18.3%)."
    )


def test_a_baseline_wins_and_the_verdict_says_so_first():
    report = report_of(LOSES)
    verdict = conclude(report)
    assert verdict.sentence == (
        "A baseline wins on Noisy speech: Hard labels has a lower WER than Student + sequence, 20.0% against 23.0%, "
        "beyond chance. A baseline is best on Clean speech: Hard labels has a lower WER than Student + sequence, 5.0% "
        "against 5.1%, which may be chance."
    )
    assert kinds(report) == {"noisy": "lost", "clean": "behind"}
    assert "worse beyond chance; ahead beyond chance of Clean teacher" in verdict.sets[0].sentence
    page = parse(to_html(report))
    assert verdict.sentence in page.text
    assert ("class", "worse") in page.attributes


def test_the_baselines_that_win_come_first_whatever_the_headline():
    mixed = {"noisy": WINS["noisy"], "clean": LOSES["noisy"]}
    sentence = conclude(report_of(mixed)).sentence
    assert sentence.startswith("A baseline wins on Clean speech")
    assert "On Noisy speech, Student + sequence is ahead" in sentence


def test_all_parts_have_the_order_of_the_lead():
    """It tells of test sets with one verdict together, so that the headline's is not always the first of its kind."""
    rates = {"clean": WINS["noisy"], "noisy": LOSES["clean"], "rerecorded": LOSES["noisy"]}
    verdict = conclude(report_of(rates))
    order = ["rerecorded", "noisy", "clean"]
    assert [one.kind for one in verdict.sets] == ["lost", "behind", "won"]
    assert [one.test_set for one in verdict.sets] == order
    assert list(dict.fromkeys(one.test_set for one in verdict.comparisons)) == order
    names = ("Re-recorded", "Noisy", "Clean")
    places = [verdict.sentence.index(f"on {name} speech") for name in names[:2]]
    assert places == sorted(places)
    page = to_html(report_of(rates))
    cards = [page.index(f"<dt>{name}, best WER") for name in names]
    lines = [page.index(f"<li>{name}: ") for name in names]
    groups = [page.index(f'scope="rowgroup" colspan="7">{name}', page.index('id="comparisons"')) for name in names]
    assert all(some == sorted(some) for some in (cards, lines, groups))


def test_best_but_not_beyond_chance():
    report = report_of({"noisy": {**WINS["noisy"], "hard_labels": 0.232}})
    verdict = conclude(report)
    assert kinds(report) == {"noisy": "unproven"}
    assert verdict.sentence == (
        "On Noisy speech, Student + sequence is best, WER 23.0% against 23.2% for Hard labels, but its lead over Hard "
        "labels may be chance; it is ahead beyond chance of Clean teacher."
    )
    assert "its lead over Hard labels, 23.2% (−0.9%, 95% interval −5.9% to +4.1%) may be" in verdict.sets[0].sentence
    assert "ahead beyond chance of Clean teacher" in verdict.sets[0].sentence


def test_comparisons_are_corrected_for_their_number():
    """Alone, the interval excludes zero; as one of four comparisons, it is no claim."""
    rates = {"noisy": {"teacher": 0.25, "hard_labels": 0.25, "student": 0.236, "student_seq": 0.236}}
    report = report_of(rates)
    verdict = conclude(report)
    assert all(one.high < 0 and one.p < 0.05 <= one.p_holm for one in verdict.comparisons)
    assert verdict.to_json()["family"] == 4
    assert kinds(report) == {"noisy": "unproven"}
    alone = report_of(rates, proposals=["student"], baselines=["teacher"])
    assert kinds(alone) == {"noisy": "won"}


def test_systems_that_hear_nothing_are_said_to_and_not_compared():
    report = report_of({name: dict.fromkeys(WINS["noisy"], 1.0) for name in ("noisy", "clean")})
    assert conclude(report).sentence == (
        "No system hears anything yet: all have a WER of 95% and more; more data or epochs are needed."
    )
    page = parse(to_html(report))
    assert ("equal" in page.cells, "may be chance" in page.cells) == (True, False)
    some = dict(zip(WINS["noisy"], (0.99, 0.98, 0.97, 0.96), strict=True))
    sentence = conclude(report_of({"noisy": some})).sentence
    assert sentence.startswith("No system hears anything yet: ")
    assert " speech, " in sentence, "what is worse all the same is told"
    heard = conclude(report_of({"noisy": dict.fromkeys(WINS["noisy"], 1.0), "clean": WINS["clean"]})).sentence
    assert "hears" not in heard


def test_equal_figures_are_a_tie():
    report = report_of({"noisy": {"teacher": 0.5, "hard_labels": 0.23, "student": 0.24, "student_seq": 0.23}})
    assert kinds(report) == {"noisy": "tied"}
    assert conclude(report).sentence == (
        "On Noisy speech, Student + sequence and the baseline Hard labels are equal, WER 23.0%; Student + sequence is "
        "ahead beyond chance of Clean teacher."
    )
    assert "<small>Hard labels (baseline) and Student + sequence, equal</small>" in to_html(report)
    all_equal = report_of({"noisy": dict.fromkeys(WINS["noisy"], 1.0)})
    assert "<small>4 systems, equal</small>" in to_html(all_equal)


def test_a_missing_baseline_is_named():
    without = {"noisy": {name: rate for name, rate in WINS["noisy"].items() if name != "teacher"}}
    assert "not scored there: Clean teacher" in conclude(report_of(without)).sets[0].sentence
    alone = {"noisy": {"student": 0.2}}
    assert "no baseline was scored" in conclude(report_of(alone)).sentence
    assert "no proposed system was scored" in conclude(report_of({"noisy": {"teacher": 0.2}})).sentence


def test_a_baseline_without_errors():
    report = report_of({"clean": {"teacher": 0.1, "hard_labels": 0.0, "student": 0.04}})
    assert kinds(report) == {"clean": "lost"}
    assert "has 4.0% (no relative change): worse beyond chance" in conclude(report).sets[0].sentence


def test_few_speakers_are_said():
    sentence = conclude(report_of(WINS, seeds=(0,), resampled="utterances within speakers")).sentence
    assert sentence.endswith(
        "One seed: another training may order them otherwise. Few test speakers: it holds for these."
    )


def test_neither_proposal_nor_baseline_may_be_best():
    rates = {"noisy": {**WINS["noisy"], "oracle": 0.1}}
    report = report_of(rates)
    assert kinds(report) == {"noisy": "won"}
    assert conclude(report).sets[0].sentence.endswith("the best figure is that of oracle, 10.0%, which is neither.")
    assert conclude(report).sentence.endswith("The best figure is that of oracle, which is neither.")
    near = report_of({"noisy": {**rates["noisy"], "hard_labels": 0.232}})
    assert "Student + sequence is the best of those compared, WER 23.0% against" in conclude(near).sentence


@pytest.mark.parametrize("change", [{"metrics": []}, {"measures": []}, {"proposals": (), "headline": None}])
def test_without_test_sets_or_proposals_there_is_no_verdict(change):
    report = report_of(WINS, **change)
    assert conclude(report) is None
    assert json.loads(to_json(report))["verdict"] is None
    parse(to_html(report))


def test_higher_is_better_and_p_comes_from_the_interval():
    bleu = replace(BLEU, interval=True)

    def row(system, name, *values):
        return MetricRow(system, "news", name, *values, 100, None)

    report = Report(
        title="A translator",
        recipe={},
        measures=[bleu, bleu.relative()],
        baseline="base",
        headline=("big", "news"),
        metrics=[
            row("base", "bleu", 31.25, 30, 32.5),
            row("big", "bleu", 35.5, 34.25, 36.75),
            row("big", "bleu_relative", 0.136, 0.11, 0.16),
            row("big", "mapsswe_p", 0.9, None, None),
        ],
    )
    (one,) = conclude(report).comparisons
    assert one.outcome == "ahead"
    assert one.p < 1e-6
    assert one.mapsswe_p is None, "a test of errors is no test of BLEU"
    assert conclude(report).sentence == (
        "On news, big is ahead of every baseline beyond chance, BLEU 35.5 against 31.2 for base, the nearest."
    )
    assert conclude(replace(report, measures=[Measure("bleu", "BLEU", better=None)])) is None


def test_the_verdict_is_in_the_json():
    document = json.loads(to_json(report_of(LOSES)))
    assert document["format"] == 2
    assert document["summary"] == document["verdict"]["sentence"]
    assert (document["baselines"], document["proposals"]) == (["teacher", "hard_labels"], ["student", "student_seq"])
    found = document["verdict"]["comparisons"]
    assert len(found) == document["verdict"]["family"] == 8
    assert {one["baseline"] for one in found} == {"teacher", "hard_labels"}
    assert set(found[0]) == {
        "system", "baseline", "test_set", "change", "low", "high", "p", "p_holm", "mapsswe_p", "mapsswe_p_holm",
        "outcome",
    }  # fmt: skip
    assert parse(to_html(report_of(LOSES))).cells.count("Hard labels") >= 4
