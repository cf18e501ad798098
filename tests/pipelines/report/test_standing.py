"""The kind of a verdict, for each way that the best proposal may stand to two or three baselines."""

import itertools
import json
from dataclasses import replace

import pytest

from gristmill.pipelines.report.document import to_json
from gristmill.pipelines.report.report import MetricRow
from gristmill.pipelines.report.verdict import conclude
from tests.pipelines.report.made import NAMES, STANDINGS, against

COMBINATIONS = [some for size in (1, 2, 3) for some in itertools.product(STANDINGS, repeat=size)]
# The first that holds of any baseline.
KINDS = {"behind": "lost", "above": "behind", "equal": "tied", "below": "unproven", "ahead": "won"}


@pytest.mark.parametrize("standings", COMBINATIONS, ids="-".join)
def test_the_kind_and_the_groups_of_the_baselines(standings):
    (one,) = conclude(against(*standings)).sets
    assert one.kind == next(kind for standing, kind in KINDS.items() if standing in standings)

    def those(*which):
        return {name for name, standing in zip(NAMES, standings, strict=False) if standing in which}

    assert set(one.lost_to) == those("behind")
    assert set(one.uncertain) == those("above", "equal", "below")
    assert set(one.ahead_of) == those("ahead")


def test_a_baseline_that_is_ahead_beyond_chance_decides_though_another_is_best():
    (one,) = conclude(against("behind", "above")).sets
    assert (one.kind, one.baseline, one.lost_to) == ("lost", "alpha", ["alpha"])
    worse = replace(
        against("above", "behind"),
        metrics=[
            replace(row, value=0.19) if (row.system, row.metric) == ("alpha", "wer") else row
            for row in against("above", "behind").metrics
        ],
    )
    (one,) = conclude(worse).sets
    assert (one.kind, one.baseline, one.lost_to, one.uncertain) == ("lost", "alpha", ["beta"], ["alpha"])


def test_the_systems_with_the_best_figure_are_in_the_json():
    report = against("equal", "below")
    (one,) = json.loads(to_json(report))["verdict"]["sets"]
    assert (one["kind"], one["equal"]) == ("tied", ["ours", "alpha"])
    twin = MetricRow("twin", "noisy", "wer", 0.3001, None, None, 1000, None)
    (one,) = conclude(replace(against("below"), metrics=[*against("below").metrics, twin])).sets
    assert one.equal == ["ours", "twin"]
