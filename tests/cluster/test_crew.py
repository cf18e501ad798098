"""Warm workers: processes that outlive steps and fits, and give way to what else needs their CPUs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

pytest.importorskip("ray")

from gristmill.cluster import crew as module
from gristmill.cluster.crew import crew
from gristmill.cluster.ray_runner import RayRunner
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import Step

pytestmark = pytest.mark.usefixtures("ray_session")
ROWS = 24


class Process:
    """Adds the process that a batch was made in."""

    def __init__(self, column: str, fail: str) -> None:
        self.column = column
        if fail:
            raise UserError(f"the model {fail} is not there")

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch.append_column(self.column, pa.array([os.getpid()] * batch.num_rows))


def process(name: str = "stage", column: str = "process", fail: str = "", **resources: Any) -> Stage:
    added, given = (pa.field(column, pa.int64()),), {"column": column, "fail": fail}
    return Stage(name, "tests.cluster.test_crew:Process", added, params=given, resources=Resources(**resources))


def here(settings, context, *, words):
    return {"files": {"process.txt": str(os.getpid()).encode()}}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(module, "KEPT", 600.0)  # however slow the machine is
    crew().end()
    return Run(str(tmp_path / "out"), RayRunner(2))


@pytest.fixture
def rows(run: Run) -> SealedSet:
    return run.table("rows", pa.table({"id": [f"r{n:02d}" for n in range(ROWS)]}))


def made_in(made: SealedSet) -> set[int]:
    return {number for table in made.tables(["process"]) for number in table["process"].to_pylist()}


def step(name: str, rows: SealedSet, *stages: Stage) -> Step:
    return Step(name, stages, rows, cut=Cut(rows=4))


def test_steps_and_fits_share_their_processes(run: Run, rows: SealedSet) -> None:
    first = made_in(run.step(step("first", rows, process())))
    second = made_in(run.step(step("second", rows, process("other"))))
    fits = [run.train(TrainJob(f"fit{n}", here, inputs={"words": [n]}, stepwise=False)) for n in range(4)]
    run.finish()
    third = {int(fit.read("process.txt")) for fit in fits}
    assert len(first | second | third) <= 2
    assert os.getpid() not in first | second | third


def test_other_resources_are_other_workers(run: Run, rows: SealedSet) -> None:
    first = made_in(run.step(step("first", rows, process())))
    second = made_in(run.step(step("second", rows, process(memory=1 << 20))))
    assert not first & second


def test_a_stage_that_cannot_be_loaded_is_told_and_the_crew_goes_on(run: Run, rows: SealedSet) -> None:
    first = made_in(run.step(step("first", rows, process())))
    with pytest.raises(UserError, match="the model gone is not there"):
        _ = run.step(step("broken", rows, process(fail="gone"))).digest
    assert len(made_in(run.step(step("second", rows, process("after")))) - first) <= 2


def test_pools_of_stages_have_the_cpus_to_themselves(run: Run, rows: SealedSet) -> None:
    alone = made_in(run.step(step("alone", rows, process())))
    apart = run.step(step("apart", rows, process(), process("half", "other", cpus=0.5)))
    assert not made_in(apart) & alone
    assert apart.records == ROWS


def test_an_idle_crew_gives_its_cpus_back(run: Run, rows: SealedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 0.5)
    for number in made_in(run.step(step("first", rows, process()))):
        try:
            psutil.Process(number).wait(120)  # raises if it goes on
        except psutil.NoSuchProcess:
            continue
