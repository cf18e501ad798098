"""A recipe that leaves every kind of file: sets with rejects and quarantine, a join, artifacts, a training with
checkpoints. ``more`` adds a step, a fit and a training that read all of it."""

from __future__ import annotations

import json
import os
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact, read_file
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.index import Cut, Join
from gristmill.shards.job import TrainContext, TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step
from tests.pipelines.tiny import texts, twice, upper

STEPS = 5


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    more: bool = False


class Tag:
    """Adds the number that an artifact holds; stops the run at a record, as Ctrl-C would."""

    def __init__(self, column: str, count: str) -> None:
        self.column = column
        self.number = int(read_file(count, "n.txt"))

    def __call__(self, batch: pa.Table) -> pa.Table:
        if os.environ.get("DAMAGE_STOP") in batch["id"].to_pylist():
            raise KeyboardInterrupt
        return batch.append_column(self.column, pa.array([self.number] * batch.num_rows))


def tag(name: str, count: Artifact) -> Stage:
    added = (pa.field(name, pa.int64()),)
    return Stage(name, "tests.fault.damage:Tag", added, params={"column": name}, artifacts={"count": count.ref})


def learn(settings: Settings, context: TrainContext, *, data: str, count: str) -> dict[str, Any]:
    state = json.loads(context.resume() or b'{"step": 0, "sum": 0}')
    lengths = [len(text) for table in open_sealed(data).tables(["text"]) for text in table["text"].to_pylist()]
    while state["step"] < STEPS:
        state = {"step": state["step"] + 1, "sum": state["sum"] + sum(lengths) * state["step"]}
        context.report({"sum": state["sum"]}, json.dumps(state).encode())
        if os.environ.get("DAMAGE_STOP") == f"step {state['step']}":
            raise KeyboardInterrupt
    body = {"sum": state["sum"], "number": int(read_file(count, "n.txt"))}
    return {"files": {"model.json": json.dumps(body).encode()}}


def run(config: Config, run: Run) -> Report:
    special = {3: "drop", 17: "drop", 5: "break"}
    listed = run.source(
        "texts", lambda: iter([texts(20, special), texts(20, special, 20)]), {"records": 40}, ["duration"]
    )
    dealt = run.step(Step("dealt", (), listed, cut=Cut(rows=16)))
    made = run.step(Step("upper", (upper(),), dealt, max_quarantine=0.1))
    copies = run.step(Step("copies", (twice(),), dealt))
    joined = run.step(Step("joined", (), copies, (Join(made, ("upper",), on="parent_id"),)))
    count = run.artifact("count", lambda url: {"n.txt": str(joined.records).encode()}, {}, [joined])
    tagged = run.step(Step("tagged", (tag("tag", count),), joined))
    model = run.train(_job("learn", tagged, count))
    if config.more:
        again = run.step(Step("again", (tag("again", model_count(run, model)),), tagged))
        read = [again, copies, made, listed]
        for one in read:
            run.train(_job(f"learn_{one.name}", one, count))
        for one in (*read, joined):
            run.artifact(f"ids_{one.name}", lambda url, one=one: {"ids.json": _ids(one)}, {}, [one])
    run.finish()
    return Report(
        title="Damage",
        recipe={"name": "damage", **config.model_dump()},
        summary="All kinds of files.",
        digests={trace.name: trace.digest for trace in run.trace},
    )


def model_count(run: Run, model: Artifact) -> Artifact:
    return run.artifact(
        "sum", lambda url: {"n.txt": str(json.loads(model.read("model.json"))["sum"]).encode()}, {}, [model]
    )


def _job(name: str, data: SealedSet, count: Artifact) -> TrainJob:
    return TrainJob(name, learn, inputs={"data": data, "count": count})


def _ids(one: SealedSet) -> bytes:
    return json.dumps([record for table in one.tables(["id"]) for record in table["id"].to_pylist()]).encode()
