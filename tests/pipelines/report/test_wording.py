"""What a verdict says of each baseline, for each way that the best proposal may stand to two or three of them."""

from dataclasses import replace

import pytest

from gristmill.pipelines.report.report import MetricRow, TestSet
from gristmill.pipelines.report.verdict import conclude
from tests.pipelines.report.made import LOSES, NAMES, WINS, against, report_of, together
from tests.pipelines.report.test_standing import COMBINATIONS

# What the part of a sentence that names a baseline says of it, and what it does not.
SAID = {
    "behind": ("worse beyond chance than", "may be chance"),
    "above": ("that it is worse than", "beyond chance"),
    "equal": ("the same", "beyond chance"),
    "below": ("its lead over", "beyond chance"),
    "ahead": ("ahead beyond chance of", "may be chance"),
}


def those(standings, *which):
    return [name for name, standing in zip(NAMES, standings, strict=False) if standing in which]


def named(text):
    return [name for name in NAMES if name in text]


@pytest.mark.parametrize("standings", COMBINATIONS, ids="-".join)
def test_the_sentence_is_true_of_every_baseline(standings):
    (one,) = conclude(against(*standings)).sets
    parts = one.sentence.removeprefix("Noisy: ").rstrip(".").split("; ")
    if one.kind == "won":
        assert parts[0] == "ours, WER 30.0%, is ahead of every baseline beyond chance"
        assert parts[1].startswith(f"the nearest is {one.baseline}, 45.")
        return
    told = dict(zip(NAMES, standings, strict=False))
    if one.kind in ("lost", "behind"):
        assert parts[0].startswith(f"a baseline is best, {one.baseline}, WER 2")
        how = "worse beyond chance" if told.pop(one.baseline) == "behind" else "the difference may be chance"
        assert parts[1].endswith(f"): {how}")
        parts = parts[2:]
    for name, standing in told.items():
        (part,) = [part for part in parts if name in part]
        said, unsaid = SAID[standing]
        assert said in part
        assert unsaid not in part


@pytest.mark.parametrize("standings", COMBINATIONS, ids="-".join)
def test_the_lead_is_true_of_every_baseline(standings):
    verdict = conclude(against(*standings))
    lead, kind = verdict.sentence, verdict.sets[0].kind
    if kind == "lost":
        first, _, rest = lead.partition(", beyond chance")
        several = standings.count("behind") > 1
        assert lead.startswith("Baselines win on noisy" if several else "A baseline wins on noisy")
        assert named(first) == those(standings, "behind")
        assert named(rest) == those(standings, "above")
        assert rest == "." or (rest.startswith("; the lead of ") and rest.endswith(", may be chance."))
    elif kind == "behind":
        several = standings.count("above") > 1
        assert lead.startswith("Baselines are ahead on noisy: " if several else "A baseline is best on noisy: ")
        assert lead.endswith(", which may be chance.")
        assert named(lead) == those(standings, "above")
    elif kind == "won":
        assert lead.startswith("On noisy, ours is ahead of every baseline beyond chance, WER 30.0% against 45.")
    else:
        lead, _, ahead = lead.rstrip(".").partition(" is ahead beyond chance of ")
        assert named(ahead) == those(standings, "ahead")
        assert named(lead.partition("lead ")[2]) == those(standings, "below")
        assert ("may be chance" in lead) == ("below" in standings)
        assert "beyond" not in lead
        if kind == "tied":
            assert named(lead.partition(" equal")[0]) == those(standings, "equal")
        else:
            assert lead.startswith("On noisy, ours is best, WER 30.0% against 35.")


def test_a_loss_beyond_chance_is_not_hidden_by_a_better_baseline():
    """The best baseline may be ahead by chance, and another one is not."""
    report = report_of({"noisy": {"teacher": 0.20, "hard_labels": 0.19, "student": 0.30, "student_seq": 0.23}})
    open_to_hard = [replace(row, value=0.5) if row.metric.endswith("_p:hard_labels") else row for row in report.metrics]
    verdict = conclude(replace(report, metrics=open_to_hard))
    assert verdict.sentence == (
        "A baseline wins on Noisy speech: Clean teacher has a lower WER than Student + sequence, 20.0% against 23.0%, "
        "beyond chance; the lead of Hard labels, 19.0%, may be chance."
    )
    assert "the difference may be chance; worse beyond chance than Clean teacher, 20.0% (" in verdict.sets[0].sentence


def test_test_sets_of_one_group_are_told_of_together_and_others_by_themselves():
    same = together(*(against("below", "ahead", test_set=name) for name in ("a", "b")))
    assert conclude(same).sentence.startswith("On a and b, ours is best, WER 30.0% on a against 35.0% for alpha")
    other = together(against("below", "ahead", test_set="a"), against("below", "below", test_set="b"))
    assert conclude(other).sentence == (
        "On a, ours is best, WER 30.0% against 35.0% for alpha, but its lead over alpha may be chance; it is ahead "
        "beyond chance of beta. On b, ours is best, WER 30.0% against 35.0% for alpha, but its lead over alpha and "
        "beta may be chance."
    )


def test_another_system_with_the_best_figure_is_named():
    twin = MetricRow("twin", "noisy", "wer", 0.3, None, None, 1000, None)
    report = against("below")
    sentence = conclude(replace(report, metrics=[*report.metrics, twin])).sentence
    assert sentence.startswith("On noisy, ours is best, with the same figure as twin, WER 30.0% against")


UNKNOWN = "Test speakers are unknown: several utterances of one count as if they were independent"


def test_unknown_speakers_are_said():
    assert UNKNOWN in conclude(report_of(WINS, resampled="utterances (their speakers are unknown)")).sentence
    some = {"noisy": TestSet({"speakers": 20, "utterances of unknown speakers": 3}, "speakers")}
    assert UNKNOWN in conclude(report_of(WINS, test_sets=some)).sentence
    assert "speakers" not in conclude(report_of(WINS)).sentence


def test_what_few_seeds_can_tell_is_said():
    assert "One seed: another training may" in conclude(report_of(LOSES, seeds=(0,))).sentence
    assert "Two seeds: they show whether two trainings agree, but not how far others may be from them." in (
        conclude(report_of(LOSES, seeds=(0, 1))).sentence
    )
    for seeds in ((), (0, 1, 2)):
        assert "seed" not in conclude(report_of(LOSES, seeds=seeds)).sentence
