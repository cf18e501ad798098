"""A run that waits for another one says what it waits for, and then knows what that one had declared."""

from __future__ import annotations

import io
import threading
import time
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.command import leasing
from gristmill.pipelines.command.leasing import leased
from gristmill.pipelines.command.planfile import PlanKeeper
from gristmill.pipelines.progress import LogProgress
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, twice, upper

WAIT = 30.0


class Second:
    """A run of the same output in a thread, with what it says; it declares less before its first wait."""

    def __init__(self, out: Path, settings: str) -> None:
        self.said = io.StringIO()
        self.run = Run(str(out), InProcessRunner(), progress=LogProgress(self.said, every=0.0))
        self.settings = settings
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self) -> None:
        with leased(self.run, lambda: None, PlanKeeper(self.run, self.settings)):
            loud = first_step(self.run)
            assert loud.records == 6
            self.run.step(Step("copies", (twice(),), loud))
            self.run.finish()

    def says(self, words: str) -> bool:
        return words in self.said.getvalue()


def first_step(run: Run) -> SealedSet:
    return run.step(Step("upper", (upper(),), run.table("texts", texts(6))))


def until(true) -> None:
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("settings", ["same", "other"])
def test_a_run_that_waits_tells_how_far_the_other_one_is(tmp_path: Path, monkeypatch, settings: str) -> None:
    monkeypatch.setattr(leasing, "FIRST_LOOK", 0.2)
    monkeypatch.setattr(leasing, "LOOK", 0.2)
    first = Run(str(tmp_path), InProcessRunner())
    with leased(first, lambda: None, PlanKeeper(first, "same")):
        loud = first_step(first)
        first.step(Step("copies", (twice(),), loud))
        assert first.plan.nodes[0].name == "texts"
        first.plan.made(first.plan.nodes[0])
        second = Second(tmp_path, settings)
        until(lambda: second.says("whole run: waits for the run that is at work: 1 of "))
        assert second.said.getvalue().count("another run has been working at") == 1
        first.finish()
    second.thread.join(WAIT)
    assert not second.thread.is_alive()
    last = second.said.getvalue().splitlines()[-1]
    assert last.partition("whole run: ")[2].startswith("3 of 3 done")
    assert not second.run.progress.agenda.awaited
    assert list(second.run.progress.agenda.expected) == (["texts", "upper", "copies"] if settings == "same" else []), (
        "the other run's plan is that of the same settings only"
    )
    assert all(trace.kept for trace in second.run.trace)
