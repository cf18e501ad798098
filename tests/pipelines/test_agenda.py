"""How far a run is as a whole: the count, the total and the time to go."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.pipelines.agenda import Agenda
from gristmill.pipelines.command.launch import carry_out, expected
from gristmill.pipelines.command.plan import make_plan
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import LogProgress, RunProgress, TerminalProgress
from gristmill.pipelines.run import Run
from gristmill.shards.errors import TooManyQuarantined
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, upper


class Noting(LogProgress):
    """Notes the line of the whole run at each event."""

    def __init__(self) -> None:
        super().__init__(io.StringIO(), every=0.0)

    @property
    def counts(self) -> list[tuple[int, ...]]:
        """What was said: results done, and of how many if that was known."""
        lines = [line.partition("whole run: ")[2] for line in self.stream.getvalue().splitlines()]
        parts = [line.partition(" done")[0].split(" of ") for line in lines if line]
        return [tuple(map(int, part)) for part in parts]


def test_results_count_as_they_come() -> None:
    agenda = Agenda(["listing", "kept", "model", "model"])
    agenda.made("a", "listing")
    agenda.made("b", "kept")
    agenda.made("b", "kept")
    assert agenda.line() == "2 of 4 done", "a set that is used twice is one"
    agenda.expect(420.4)
    assert agenda.line() == "2 of 4 done, about 7 min to go"
    agenda.expect(-1.0)
    assert agenda.left == 0.0
    agenda.expect(None)
    agenda.begin({"c": "model", "d": "model"})
    agenda.at(0.5, "c")
    agenda.ended("d")
    assert agenda.line().startswith("3 of 4 done")
    agenda.made("e", "unlisted")
    assert (agenda.done, agenda.total) == (4, 5)
    assert Agenda(["a"]).line() == "0 of 1 done"


def test_without_a_plan_the_total_is_what_is_declared(recipe: Path) -> None:
    progress = Noting()
    loaded = load(str(recipe))
    carry_out(loaded, progress)
    assert progress.counts == sorted(progress.counts), "neither falls"
    assert progress.counts[-1] == (4, 4)
    assert "whole run: 4 of 4 done\n" in progress.stream.getvalue()


@pytest.mark.parametrize("ahead", ["plan", "run"])
def test_the_count_goes_from_nothing_to_all(recipe: Path, ahead: str) -> None:
    """With rejects and a quarantined record; by the plan, and by an earlier run whose step was lost."""
    loaded = load(str(recipe))
    if ahead == "plan":
        make_plan(loaded)
    else:
        run, _ = carry_out(loaded, RunProgress())
        lost = next(Path(run.out).glob("copies/*"))
        lost.rename(Path(run.out).parent / "lost")
    progress = Noting()
    assert expected(loaded).total == 4
    carry_out(loaded, progress)
    assert progress.counts == sorted(progress.counts), "it never falls"
    assert {total for _, total in progress.counts} == {4}
    assert progress.counts[-1] == (4, 4)
    # Other settings are another run.
    assert expected(load(str(recipe), ["records=30"])).total is None


def test_what_a_stopped_run_made_counts(recipe: Path) -> None:
    loaded = load(str(recipe), ["broken=5"])
    make_plan(load(str(recipe)))
    with pytest.raises(TooManyQuarantined):
        carry_out(loaded, RunProgress())
    loaded = load(str(recipe))
    carry_out(loaded, RunProgress())
    progress = Noting()
    carry_out(loaded, progress)
    assert progress.counts == [(1, 4), (2, 4), (3, 4), (4, 4)], "all of them kept"


def test_a_status_counts_by_the_plan_of_the_same_settings(gristmill, recipe: Path, tmp_path: Path) -> None:
    make_plan(load(str(recipe)))
    carry_out(load(str(recipe)), RunProgress())
    next((tmp_path / "out").glob("copies/*")).rename(tmp_path / "lost")
    assert "whole run: 3 of 4 done, " in gristmill("status", tmp_path / "out").stdout
    with pytest.raises(TooManyQuarantined):
        carry_out(load(str(recipe), ["broken=5"]), RunProgress())
    assert "whole run: 1 of 4 done (more may come), " in gristmill("status", tmp_path / "out").stdout, (
        "of these settings"
    )


class Walk(Settings):
    seed: int = 0


def walked(settings, context, **inputs):
    for step in range(3):
        context.report({"step": step, "steps": 3, "loss": 1.0})
    return {"files": {"n.txt": b"1"}}


def test_trainings_of_several_seeds_count_one_by_one(tmp_path: Path) -> None:
    progress = Noting()
    progress.agenda = Agenda(["texts", "upper", *["model"] * 3])
    run = Run(str(tmp_path), InProcessRunner(), progress=progress)
    made = run.table("texts", texts(4))
    run.step(Step("upper", (upper(),), made))
    for seed in (0, 1, 2, 2):
        run.train(TrainJob("model", walked, Walk(seed=seed)))
    run.finish()
    assert progress.counts[-1] == (5, 5)
    assert progress.counts == sorted(progress.counts)
    assert (3, 5) in progress.counts, "the first of the three has ended, and the others go on"


def test_the_line_stays_below_the_bars(tmp_path: Path) -> None:
    stream = io.StringIO()
    progress = TerminalProgress(Console(file=stream, force_terminal=True, width=100))
    progress.agenda = Agenda(["texts", "upper"])
    progress.agenda.expect(480.0)
    run = Run(str(tmp_path), InProcessRunner(), progress=progress)
    run.table("texts", texts(4))
    run.finish()
    progress.bars.refresh()
    progress.close()
    assert "whole run: 1 of 2 done, about 8 min to go" in stream.getvalue()
