"""A recipe whose stage takes its time and notes each batch, to be run by two processes at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.shards.index import Cut
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    note: str
    pause: float
    records: int = 40


class Slow:
    # How it goes is no part of what comes out of it, so it is handed over beside the parameters.
    note = Path()
    pause = 0.0

    def __call__(self, batch: pa.Table) -> pa.Table:
        Slow.note.mkdir(parents=True, exist_ok=True)
        (Slow.note / f"{batch['id'][0].as_py()}-{uuid.uuid4().hex}").touch()
        time.sleep(Slow.pause)
        return batch


def run(config: Config, run: Run) -> Report:
    Slow.note, Slow.pause = Path(config.note), config.pause

    def tables() -> Iterator[pa.Table]:
        yield pa.table({"id": [f"r{number:03d}" for number in range(config.records)]})

    listed = run.source("rows", tables, {"records": config.records})
    made = run.step(Step("slow", (Stage("slow", "tests.fault.two_runs:Slow"),), listed, cut=Cut(rows=4)))
    run.artifact("count", lambda: {"n.txt": str(made.records).encode()}, {}, [made.digest])
    return Report(title="Two", recipe={"name": "two"}, digests={trace.name: trace.digest for trace in run.trace})
