"""Code that changed under an unchanged version: told, and made anew if the user says so."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.provenance import add_provenance
from gristmill.pipelines.report.document import to_json
from gristmill.pipelines.report.html import to_html
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.shards.audit import audit_below
from gristmill.shards.dataset import SealedSet
from gristmill.shards.engine import kept_code
from gristmill.shards.job import TrainJob
from gristmill.shards.step import Step
from tests.pipelines import tiny

CODE = """
from gristmill.actors.records import filter_records

@filter_records
def keep(text: str) -> str | None:
    return "long" if len(text) > 6 else None

def count(settings, context, *, data):
    return {"files": {"n.txt": b"1"}}
"""


class Heard(RunProgress):
    """Keeps what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def say(self, text: str) -> None:
        """Keep a sentence."""
        self.said.append(text)


Made = Callable[..., tuple[Run, SealedSet, list[str]]]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Made:
    """Run some steps with a module of the user's own; return the last set, and what was said of code."""
    monkeypatch.syspath_prepend(str(tmp_path))
    texts = tiny.texts(12)

    def run(code: str, *again: str) -> tuple[Run, SealedSet, list[str]]:
        (tmp_path / "again_lab.py").write_text(code)
        importlib.invalidate_caches()
        lab: Any = importlib.reload(importlib.import_module("again_lab"))
        run = Run(str(tmp_path / "out"), InProcessRunner(), progress=(heard := Heard()), again=frozenset(again))
        kept = run.step(Step("kept", (lab.keep.stage(),), run.table("texts", texts)))
        run.train(TrainJob("count", lab.count, inputs={"data": kept}, stepwise=False))
        last = run.step(Step("copies", (tiny.twice(),), kept))
        run.finish()
        return run, last, heard.said

    return run


def test_changed_code_is_told_and_made_anew_on_demand(made: Made, tmp_path: Path) -> None:
    _, first, said = made(CODE)
    assert (first.records, said) == (20, [])
    assert made(CODE.replace('return "long"', '# by letters\n    return "long"'))[2] == []
    changed = CODE.replace("> 6", "> 5").replace('b"1"', 'b"2"')
    run, same, said = made(changed)
    assert all(trace.kept for trace in run.trace)
    assert same.digest == first.digest
    assert [sentence.partition(", and its")[0] for sentence in said] == [
        "step kept: the code of keep is not that which its result was made by",
        "training count: the code of count is not that which its result was made by",
    ]
    assert "`gristmill run ... --again keep`" in said[0]
    add_provenance(report := Report(title="T", recipe={}, notes=["Before."]), run, "inprocess")
    assert [note.partition(", and its")[0] for note in report.notes] == [
        "Before.",
        "The code of keep is not that which its results were made by (step kept)",
        "The code of count is not that which its results were made by (training count)",
    ]
    assert "`gristmill run ... --again keep`" in to_html(report)
    assert json.loads(to_json(report))["notes"] == report.notes

    run, anew, said = made(changed, "keep")
    assert {trace.name: trace.kept for trace in run.trace} == {
        "texts": True,
        "kept": False,
        "count": False,  # of another set now
        "copies": False,
    }
    assert (anew.records, said) == (0, [])
    add_provenance(report := Report(title="T", recipe={}), run, "inprocess")
    assert report.notes == []
    assert made(changed)[2] == []
    # The earlier results are kept, and whole.
    assert len(list((tmp_path / "out" / "kept").iterdir())) == 2
    assert not [gap for result in audit_below(str(tmp_path / "out")) for gap in result.gaps]


def test_a_training_alone_is_made_anew(made: Made) -> None:
    made(CODE)
    run, _, _ = made(CODE.replace('b"1"', 'b"2"'), "count")
    assert [trace.name for trace in run.trace if not trace.kept] == ["count"]


def test_a_step_that_is_resumed_by_other_code_is_told(made: Made, tmp_path: Path) -> None:
    made(CODE)
    (folder,) = (tmp_path / "out" / "kept").iterdir()
    (folder / "seal.json").unlink()
    assert kept_code(str(folder), None)["digests"]
    assert "the code of keep" in made(CODE.replace("> 6", "> 5"))[2][0]


def test_names_are_checked_before_any_work(gristmill, recipe: Path, tmp_path: Path) -> None:
    result = gristmill("run", recipe, "--again", "upper")
    assert result.exit_code == 2
    assert (
        "has no stage, step, artifact or training of that name; expected one that an earlier run made" in result.stderr
    )
    assert not (tmp_path / "out").exists()
    gristmill("run", recipe)
    result = gristmill("run", recipe, "--again", "uper")
    assert result.exit_code == 2
    assert "did you mean 'upper'?" in result.stderr
    assert "nothing to do" in gristmill("run", recipe).stdout
    assert "(expected one of upper, " in result.stderr
    assert str(tmp_path) not in result.stderr.partition("(expected ")[2]
    result = gristmill("run", recipe, "--again", "twice", "--again", "count")
    assert result.exit_code == 0
    # Of the same bytes, so nothing else is.
    assert "made 2 sets, artifacts and models" in result.stdout
