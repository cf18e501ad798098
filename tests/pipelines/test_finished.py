"""What a finished run says of its best system: by what it is the best, and when none is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gristmill.pipelines.finished import Best, Finished, best_system, chosen, conclude
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.report import Report, ToDo, Use
from gristmill.shards.errors import UserError

SYSTEMS = ("teacher", "student", "student_seq")


def finished(rates: dict[str, tuple[float, ...]], metric: str = "wer") -> Finished:
    rows = [
        {"system": system, "test_set": f"t{number}", "metric": metric, "value": value, "seed": None}
        for system, values in rates.items()
        for number, value in enumerate(values)
    ]
    measure = {"name": metric, "label": metric.upper(), "unit": "fraction", "better": "lower"}
    report = {"metric": metric, "measures": [measure], "metrics": rows}
    return Finished("out", "distill", report, {name: (f"out/{name}/0",) for name in rates}, {})


SAID: dict[str, tuple[dict[str, tuple[float, ...]], list[str], str]] = {
    "several sets": (
        {"teacher": (0.1, 0.7), "student": (0.2, 0.3)},
        ["best on average over the test sets: student of 2 (WER 20.0% t0, 30.0% t1): out/student/0"],
        "the best of 2 systems on average over the test sets",
    ),
    "one set": (
        {"teacher": (0.3,), "student": (0.2,)},
        ["best: student of 2 (WER 20.0% t0): out/student/0"],
        "the best of 2 systems",
    ),
    "one system": ({"teacher": (0.3, 0.4)}, ["model: teacher (WER 30.0% t0, 40.0% t1): out/teacher/0"], ""),
    "two equal": (
        {"teacher": (0.5,), "student": (0.2,), "student_seq": (0.2,)},
        ["best: student of 3, equal with student_seq (WER 20.0% t0): out/student/0"],
        "one of 2 equal ones, the best of 3 systems",
    ),
    "all equal": (
        {"teacher": (0.2, 0.4), "student": (0.2, 0.4)},
        ["equal on average over the test sets: all 2 systems; the first is teacher (WER 20.0% t0, 40.0% t1): "
         "out/teacher/0"],
        "one of 2 systems that are equal on average over the test sets",
    ),
    "all at 100 %": (
        {"teacher": (1.0, 1.0), "student": (1.0, 1.0)},
        ["no model hears anything yet: all have errors of 95% and more; expected more data or more epochs",
         "equal on average over the test sets: all 2 systems; the first is teacher (WER 100.0% t0, 100.0% t1): "
         "out/teacher/0"],
        "one of 2 systems that hear nothing yet (more data or epochs are needed)",
    ),
    "all deaf": (
        {"teacher": (0.99, 1.1), "student": (0.95, 0.97)},
        ["no model hears anything yet: all have errors of 95% and more; expected more data or more epochs",
         "model: student of 2 (WER 95.0% t0, 97.0% t1): out/student/0"],
        "one of 2 systems that hear nothing yet (more data or epochs are needed)",
    ),
    "one hears": (
        {"teacher": (1.0, 1.0), "student": (0.9, 1.0)},
        ["best on average over the test sets: student of 2 (WER 90.0% t0, 100.0% t1): out/student/0"],
        "the best of 2 systems on average over the test sets",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("rates", "lines", "standing"), SAID.values(), ids=SAID)
def test_the_last_lines_say_by_what_a_system_is_the_best(
    rates: dict[str, tuple[float, ...]], lines: list[str], standing: str
) -> None:
    found = finished(rates)
    assert conclude(found) == [*lines, "next: gristmill transcribe out AUDIO"]
    assert found.best is not None
    assert found.best.standing == standing
    system, said = chosen(found, None)
    assert said == system + (f", {standing}" if standing else "") + f" ({found.describe(found.best)})"


def test_other_measures_hear_nothing_at_no_rate() -> None:
    best = finished({"R0": (1.0,), "R1": (0.99,)}, "semer").best
    assert best == Best("R1", {"t0": 0.99}, 2)
    assert best_system([], "wer", "lower", SYSTEMS) is None


def test_a_run_that_measured_nothing_says_what_to_use_and_to_work_on() -> None:
    report = {**finished({}).report, "to_do": [{"file": "to_annotate_a.jsonl", "what": "2 requests of a"}]}
    found = Finished("out", "expand", report, {}, {})
    assert conclude(found) == [
        "model: fused (nothing was measured)",
        "2 requests of a: out/to_annotate_a.jsonl",
        "next: gristmill annotate out REQUESTS.txt",
    ]
    assert chosen(found, None) == ("fused", "fused; nothing was measured")
    assert chosen(found, "self")[0] == "self"
    with pytest.raises(UserError, match="no system 'slef', did you mean 'self'"):
        chosen(found, "slef")
    assert conclude(replace(found, recipe="distill", report=finished({}).report)) == []
    page = to_html(Report(title="T", recipe={}, to_do=[ToDo("to_annotate_a.jsonl", "2 requests of a")]))
    assert "2 requests of a: <code>to_annotate_a.jsonl</code>, beside this page." in page


def test_the_page_says_by_what_the_model_is_the_best() -> None:
    used = Use("student", "student/0", "gristmill transcribe OUT AUDIO", "the best of 2 systems")
    report = Report(title="T", recipe={}, use=used)
    assert "To use: student, the best of 2 systems: <code>student/0</code>, beside this page." in to_html(report)
    assert "To use: student: <code>" in to_html(replace(report, use=replace(used, why="")))
