"""Warm workers: processes that outlive steps and fits, and give way to what else needs their CPUs."""

from __future__ import annotations

import json
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest

pytest.importorskip("ray")

from gristmill.cluster import crew as module
from gristmill.cluster.crew import crew
from gristmill.cluster.ray_runner import RayRunner
from gristmill.cluster.warm import WarmStageActor
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut, ShardSpec
from gristmill.shards.job import TrainJob
from gristmill.shards.parquet import read_table
from gristmill.shards.receipt import Receipt
from gristmill.shards.stage import Resources, Stage
from gristmill.shards.step import ShardTask, Step
from gristmill.shards.work import Work

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


class Loaded:
    """Notes that it was loaded."""

    def __init__(self, note: str) -> None:
        with Path(note).open("a") as file:
            file.write("loaded\n")

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch


def test_steps_of_one_stage_load_it_once(run: Run, rows: SealedSet, tmp_path: Path) -> None:
    run.cluster = RayRunner(1)
    note = tmp_path / "note"
    stage = Stage("same", "tests.cluster.test_crew:Loaded", params={"note": str(note)})
    for number in range(4):
        run.step(Step(f"step{number}", (stage,), rows, cut=Cut(rows=8)))
    run.finish()
    assert note.read_text().split() == ["loaded"]


class Alone:
    """Notes if two batches are in it at once."""

    def __init__(self) -> None:
        self.inside = 0

    def __call__(self, batch: pa.Table) -> pa.Table:
        self.inside += 1
        time.sleep(0.01)
        alone = self.inside == 1
        self.inside -= 1
        return batch.append_column("alone", pa.array([alone] * batch.num_rows))


def test_threads_of_a_worker_with_a_gpu_share_its_stages_and_not_its_storage(run: Run, tmp_path: Path) -> None:
    """As it is called by Ray: a shard is read while the stages have another."""
    rows = seal_tables(str(tmp_path / "rows"), "rows", [pa.table({"id": [f"r{n}"]}) for n in range(12)])
    stage = Stage("alone", "tests.cluster.test_crew:Alone", (pa.field("alone", pa.bool_()),))
    step = Step("alone", (stage,), rows)
    task = ShardTask(str(tmp_path / "made"), step.stages, step.schema, step.given, 0, True)
    read, opened = threading.Barrier(3), ShardTask.open

    def open_beside(self: ShardTask, spec: ShardSpec) -> Work:
        read.wait(60)
        return opened(self, spec)

    worker = WarmStageActor()
    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(3) as pool:
        patch.setattr(ShardTask, "open", open_beside)
        answers = list(pool.map(lambda spec: worker.make(task.loading, task, spec, False), step.index()))
    receipts = [Receipt.from_json(json.loads(answer)) for answer in answers]
    assert sum(receipt.records_out for receipt in receipts) == 12
    assert all(read_table(task.url, receipt.data)["alone"].to_pylist() == [True] for receipt in receipts)


class Meets:
    """Waits until the others of its kind, in other steps and trainings, have begun as well."""

    def __init__(self, folder: str, name: str, others: list[str]) -> None:
        self.folder, self.name, self.others = folder, name, others

    def __call__(self, batch: pa.Table) -> pa.Table:
        meet(self.folder, self.name, self.others)
        return batch


def meet(folder: str, name: str, others: list[str]) -> None:
    Path(folder, name).touch()
    begun = time.monotonic()
    while not all(Path(folder, other).exists() for other in others):
        if time.monotonic() - begun > 300:
            raise UserError(f"{name} met nobody")
        time.sleep(0.05)


def meets(settings, context, *, folder, name, others):
    meet(folder, name, others)
    return {"files": {"name.txt": name.encode()}}


@pytest.mark.parametrize("cpus", [1.0, 0.5])
def test_steps_and_trainings_run_side_by_side(run: Run, rows: SealedSet, tmp_path: Path, cpus: float) -> None:
    """Two steps, of equal resources or not, and a training; they end only if all of them have begun."""
    run.cluster = RayRunner(3)
    names = ["one", "two", "model"]
    for name, share in (("one", 1.0), ("two", cpus)):
        stage = Stage(
            name,
            "tests.cluster.test_crew:Meets",
            params={"folder": str(tmp_path), "name": name, "others": names},
            resources=Resources(cpus=share),
        )
        run.step(Step(name, (stage,), rows, cut=Cut(rows=ROWS)))
    inputs = {"folder": str(tmp_path), "name": "model", "others": names}
    model = run.train(TrainJob("model", meets, inputs=inputs))
    run.finish()
    assert model.read("name.txt") == b"model"


def test_an_error_ends_what_runs_beside_and_the_rest_is_made_by_the_next_run(run: Run, rows: SealedSet) -> None:
    good = run.step(step("good", rows, process()))
    run.step(step("broken", rows, process("bad", fail="gone")))
    after = run.step(step("after", good, process("again", "twice")))
    with pytest.raises(UserError, match="the model gone is not there"):
        run.finish()
    again = Run(run.out, RayRunner(2))
    rows = again.table("rows", pa.table({"id": [f"r{n:02d}" for n in range(ROWS)]}))
    good = again.step(step("good", rows, process()))
    after = again.step(step("after", good, process("again", "twice")))
    again.finish()
    assert (good.records, after.records) == (ROWS, ROWS)


class Slow:
    """Takes its time for each batch, and notes its step."""

    def __init__(self, note: str, name: str) -> None:
        self.note, self.name = note, name

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(0.2)
        with Path(self.note).open("a") as file:
            file.write(self.name + "\n")
        return batch


def test_the_more_urgent_step_gets_the_workers_of_another(run: Run, rows: SealedSet, tmp_path: Path) -> None:
    """A long step has both workers; one that becomes ready with more behind it is over before the long one is."""
    note = tmp_path / "note"

    def slow(name: str, given: SealedSet, size: int) -> SealedSet:
        stage = Stage(name, "tests.cluster.test_crew:Slow", params={"note": str(note), "name": name})
        return run.step(Step(name, (stage,), given, cut=Cut(rows=size)))

    first = slow("first", rows, ROWS)
    many = run.table("many", pa.table({"id": [f"m{n:03d}" for n in range(100)]}))
    slow("long", many, 1)
    urgent = slow("urgent", first, 3)
    run.train(TrainJob("model", here, inputs={"words": [urgent]}))
    run.finish()
    order = note.read_text().split()
    last = max(place for place, name in enumerate(order) if name == "urgent")
    assert order[last + 1 :].count("long") > 10, order


def test_an_idle_crew_gives_its_cpus_back(run: Run, rows: SealedSet, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT", 0.5)
    for number in made_in(run.step(step("first", rows, process()))):
        try:
            psutil.Process(number).wait(120)  # raises if it goes on
        except psutil.NoSuchProcess:
            continue
