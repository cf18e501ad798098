"""The share of a whole run that is done, from made-up states of its results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from gristmill.pipelines.forecast import Effort, Forecast, PlannedResult, forecast, priced

TEXTS = Effort("texts", "source", "done", rows=1000, seconds=5.0, like=["source texts"])
KEPT = Effort("kept", "step", "done", [0], of=[[0]], like=["step kept"], stages=["filter"], rows=900, seconds=10.0)
MODEL = Effort("model", "training", inputs=[1], of=[[1]], passes=4.0, like=["training model", "training by train"])


def planned(
    name: str, seconds: float, kind: str = "step", workers: int = 1, inputs: Sequence[int] = ()
) -> PlannedResult:
    return {"name": name, "kind": kind, "seconds": seconds, "workers": workers, "inputs": list(inputs)}


def test_a_result_takes_what_its_like_took_by_size() -> None:
    first = replace(MODEL, state="done", seconds=90.0)
    found = forecast([TEXTS, KEPT, first, MODEL, replace(MODEL, passes=8.0)])
    assert found.left == pytest.approx(90.0 + 180.0)
    assert found.share == pytest.approx(105 / 375)
    other = replace(MODEL, name="other", like=["training other", "training by train"], passes=2.0)
    assert forecast([TEXTS, KEPT, first, other]).left == pytest.approx(45.0), "of the same loop"
    other = replace(other, like=["training other", "training by another"])
    guess = forecast([TEXTS, KEPT, first, other])
    assert guess.left == pytest.approx(45.0), "or at least another training, which is a guess"
    assert guess.unlike == ("other",)
    fit = replace(other, name="fit", kind="fit", like=["training fit", "fit by one"])
    assert forecast([TEXTS, KEPT, first, fit]) == Forecast(unlike=("fit",)), "a fit is no training"


def test_a_step_takes_what_its_stages_took_in_others() -> None:
    more = Effort("more", of=[[1]], like=["step more"], stages=["filter", "label"])
    both = replace(KEPT, name="both", like=["step both"], stages=["filter", "label"], of=[[0]], seconds=30.0)
    found = forecast([TEXTS, KEPT, both, more], a_record={"filter": 0.02, "label": 0.04})
    # 1,000 records of the filter and of both took 40 s of the clock and 80 s of work; now there are 900 of both.
    assert found.left == pytest.approx(900 * 0.06 * 40 / 80)
    unseen = replace(more, stages=["elsewhere"])
    assert forecast([TEXTS, KEPT, unseen]).left == pytest.approx(900 * 10 / 1000), "as any step"
    chain = replace(unseen, name="last", of=[[2]])
    assert forecast([TEXTS, KEPT, unseen, chain]).left == pytest.approx(2 * 9.0), "rows of what is to come count too"


def test_what_is_like_nothing_is_said_to_be_unknown() -> None:
    assert forecast([TEXTS, KEPT, MODEL, MODEL]) == Forecast(unlike=("model",))
    begun = replace(MODEL, state="under way", seconds=20.0, share=0.25, left=60.0)
    assert forecast([TEXTS, KEPT, begun, MODEL]).left == pytest.approx(60.0 + 80.0), "its own pace tells of the other"
    assert forecast([TEXTS, KEPT, replace(begun, left=None)]).unlike == ("model",), "an earlier call may have made it"
    known = replace(MODEL, state="done", seconds=80.0)
    assert forecast([TEXTS, KEPT, known, replace(begun, left=None)]).left == pytest.approx(60.0), "the rest of it"


def test_what_is_far_larger_than_all_that_was_made_is_a_guess() -> None:
    """A training of a few steps takes as long as loading its libraries does."""
    small = replace(MODEL, name="small", passes=0.01, state="done", seconds=3.0)
    found = forecast([TEXTS, KEPT, small, MODEL])
    assert found.left == pytest.approx(1200.0)
    assert found.unlike == ("model",)
    assert forecast([TEXTS, KEPT, replace(small, passes=1.0), MODEL]).unlike == ()


def test_a_part_of_several_columns_is_counted_once() -> None:
    labels = replace(KEPT, name="labels", rows=800)
    two = replace(MODEL, of=[[1, 2]], state="done", seconds=90.0)
    one = replace(MODEL, of=[[1]])
    assert forecast([TEXTS, KEPT, labels, two, one]).left == pytest.approx(90.0)
    assert forecast([TEXTS, KEPT, labels, two, replace(one, of=[[1], [2]])]).left == pytest.approx(90 * 1700 / 900)


def test_prices_are_corrected_by_the_pace_of_the_run() -> None:
    estimates = [
        planned("texts", 5.0, "source", 0),
        planned("kept", 25.0),
        planned("model", 100.0, "training"),
    ]
    work = priced([TEXTS, KEPT, MODEL], [*estimates, planned("unseen", 10.0)])
    assert [one.price for one in work] == [5.0, 25.0, 100.0, 10.0]
    assert forecast(work).left == pytest.approx(110.0), "without a clock as estimated"
    # What the clock shows counts beside a tenth of the whole: a start that takes long says little.
    assert forecast(work, elapsed=60.0).left == pytest.approx(110.0 * (60 + 14) / (30 + 14))
    assert forecast(work, elapsed=15.0, rest=7.0).left == pytest.approx(117.0 * (15 + 14.7) / (30 + 14.7))
    undeclared = priced([TEXTS, replace(MODEL, name="unlisted")], [planned("texts", 5.0)])
    assert forecast(undeclared).share == 1.0, "what the sample did not show is small"


def test_what_is_not_declared_yet_waits_for_what_it_is_made_of() -> None:
    estimates = [
        planned("first", 5.0),
        planned("second", 5.0),
        planned("last", 7.0, "training", inputs=[0, 1]),
    ]
    work = priced([Effort("texts", "source"), Effort("second")], estimates)
    assert [(one.name, list(one.inputs)) for one in work[2:]] == [("first", []), ("last", [2, 1])]
    assert forecast(work, workers=2).left == pytest.approx(5.0 + 7.0)


def test_results_to_come_are_made_side_by_side() -> None:
    first = replace(MODEL, state="done", seconds=90.0)
    two = [TEXTS, KEPT, first, MODEL, MODEL]
    assert forecast(two).left == pytest.approx(180.0), "one after the other"
    assert forecast(two, workers=2).left == pytest.approx(90.0)
    assert forecast([*two, replace(MODEL, inputs=[3])], workers=2).left == pytest.approx(180.0), "the longest path"
    assert forecast([*two, replace(MODEL, workers=2)], workers=2).left == pytest.approx(180.0), "it needs both"


def test_the_timetable_is_corrected_by_the_clock() -> None:
    work = [TEXTS, KEPT, replace(MODEL, state="done", seconds=85.0), MODEL]
    assert forecast(work, workers=2, elapsed=100.0).left == pytest.approx(85.0)
    late = forecast(work, workers=2, elapsed=200.0)
    assert late.left == pytest.approx(85.0 * (200 + 18.5) / (100 + 18.5))
    assert late.share == pytest.approx(200 / (200 + late.left))
    own = replace(MODEL, state="under way", seconds=85.0, share=0.5, left=120.0)
    assert forecast([TEXTS, KEPT, own], workers=2, elapsed=200.0).left == pytest.approx(120.0), "by its own pace"


def test_what_earlier_calls_made_counts() -> None:
    kept = replace(MODEL, state="done", seconds=300.0, kept=True)
    found = forecast([replace(TEXTS, kept=True), KEPT, kept, MODEL], elapsed=10.0)
    assert found.left == pytest.approx(300.0)
    assert found.share == pytest.approx(315 / 615)
    assert forecast([TEXTS, replace(KEPT, seconds=None)], elapsed=3.0) == Forecast(1.0, 0.0)
