"""Trainings resume from their last checkpoint, whatever is killed, and end with the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob, TrainListener
from tests.cluster.meetings import meeting
from tests.fault.train_loops import counting, walking


class Heard(TrainListener):
    """Remembers what has ended."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def ended(self, url: str, seconds: float | None = None) -> None:
        self.done.append(url)


def value(url: Path) -> bytes:
    found = get_artifact(str(url))
    assert found is not None
    return found.read("value.json")


def undisturbed(tmp_path: Path) -> bytes:
    InProcessRunner().train([(walking("walk"), str(tmp_path / "whole"))])
    assert [path.name for path in (tmp_path / "whole").iterdir() if path.is_dir()] == [], "checkpoints are left behind"
    return value(tmp_path / "whole")


def test_killed_driver_resumes(tmp_path: Path) -> None:
    note, url = tmp_path / "note", tmp_path / "model"
    command = [sys.executable, "-m", "tests.fault.train_driver", str(url), str(note), "4"]
    assert subprocess.run(command, timeout=100).returncode == -9
    assert get_artifact(str(url)) is None
    assert subprocess.run(command, timeout=100).returncode == 0
    assert note.read_text().split() == ["1", "2", "3", "4", "4", "5", "6"], "only the step under way is done again"
    assert value(url) == undisturbed(tmp_path)


def test_several_ranks_need_processes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 ranks"):
        InProcessRunner().train([(walking("walk", ranks=2), str(tmp_path / "model"))])


@pytest.mark.usefixtures("ray_session")
@pytest.mark.slow
def test_killed_worker_is_replaced(tmp_path: Path) -> None:
    """Three trainings, two at a time, and a fit; the worker of a training is killed while it runs."""
    note = tmp_path / "note"
    fit = counting("count", tmp_path / "counted")
    jobs = [walking("a"), walking("b", note=str(note), die_at=4), walking("c")]
    heard = Heard()
    RayRunner(2).train([(job, str(tmp_path / job.name)) for job in (*jobs, fit)], heard)
    assert sorted(heard.done) == sorted(str(tmp_path / job.name) for job in (*jobs, fit))
    assert value(tmp_path / "count") == b"6"
    assert note.read_text().split() == ["1", "2", "3", "4", "4", "5", "6"]
    assert [value(tmp_path / job.name) for job in jobs] == [undisturbed(tmp_path)] * 3
    made = get_artifact(str(tmp_path / "b"))
    assert made is not None
    assert sorted(made.files) == ["training.json", "value.json"]
    left = {path.name for path in (tmp_path / "b").iterdir()}
    assert left == {"artifact.json", *made.files.values()}, "checkpoints are left behind"


@pytest.mark.usefixtures("ray_session")
def test_a_fit_and_a_training_run_side_by_side(tmp_path: Path) -> None:
    jobs = [meeting(tmp_path, "fit", "steps", stepwise=False), meeting(tmp_path, "steps", "fit", stepwise=True)]
    RayRunner(2).train([(job, str(tmp_path / job.name)) for job in jobs])
    assert [value(tmp_path / job.name) for job in jobs] == [b'"met"'] * 2


@pytest.mark.usefixtures("ray_session")
def test_a_killed_rank_restarts_all_and_errors_are_raised_unchanged(tmp_path: Path) -> None:
    note = tmp_path / "note"
    jobs = [walking("pair", ranks=2, note=str(note), die_at=4), walking("broken", ranks=2, error_at=2)]
    with pytest.raises(UserError, match="the label is not there"):
        RayRunner(2).train([(job, str(tmp_path / job.name)) for job in jobs])
    assert note.read_text().split().count("3") == 1, "it went back further than to the last checkpoint"
    here = 1.0
    for step in range(6):  # rank r adds step * 3 + r
        here = (here * 1.7 + (step * 6 + 1)) % 10.0
    assert float(value(tmp_path / "pair")) == here
    assert get_artifact(str(tmp_path / "broken")) is None


@pytest.mark.usefixtures("ray_session")
def test_fits_are_restarted_when_their_workers_are_lost(tmp_path: Path) -> None:
    jobs = [counting(name, tmp_path / f"note_{name}", deaths) for name, deaths in (("a", 0), ("b", 2), ("c", 0))]
    RayRunner(2).train([(job, str(tmp_path / job.name)) for job in jobs])
    assert [len((tmp_path / f"note_{name}").read_text().split()) for name in "abc"] == [1, 3, 1]
    assert [value(tmp_path / name) for name in "abc"] == [b"6"] * 3
    again = counting("hopeless", tmp_path / "hopeless", deaths=99)
    with pytest.raises(RuntimeError, match="training hopeless lost its workers 4 times"):
        RayRunner(2).train([(again, str(tmp_path / "model"))])


@pytest.mark.usefixtures("ray_session")
def test_an_error_of_a_fit_is_raised_unchanged_and_no_more_work_starts(tmp_path: Path) -> None:
    jobs = [counting("wrong", tmp_path / "wrong", error=True), counting("later", tmp_path / "later")]
    with pytest.raises(UserError, match="the text is not there"):
        RayRunner(1).train([(job, str(tmp_path / f"{job.name}_model")) for job in jobs])
    assert not (tmp_path / "later").exists()
    with pytest.raises(ValueError, match="one rank, not 2"):
        TrainJob("pair", "module:loop", ranks=2, stepwise=False)
