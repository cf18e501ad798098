"""A recipe whose stage notes each batch and can be held, to be run by two processes at once."""

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
    hold: str
    records: int = 40


class Slow:
    # How it goes is no part of what comes out of it, so it is handed over beside the parameters.
    note = Path()
    hold = Path()

    def __call__(self, batch: pa.Table) -> pa.Table:
        Slow.note.mkdir(parents=True, exist_ok=True)
        (Slow.note / f"{batch['id'][0].as_py()}-{uuid.uuid4().hex}").touch()
        while len(list(Slow.note.iterdir())) > held_after(Slow.hold):
            time.sleep(0.05)
        return batch


def held_after(hold: Path) -> float:
    """How many batches may be noted before the next one waits: all, once the file is gone."""
    try:
        return int(hold.read_text())
    except FileNotFoundError:
        return float("inf")


def run(config: Config, run: Run) -> Report:
    Slow.note, Slow.hold = Path(config.note), Path(config.hold)

    def tables() -> Iterator[pa.Table]:
        yield pa.table({"id": [f"r{number:03d}" for number in range(config.records)]})

    listed = run.source("rows", tables, {"records": config.records})
    made = run.step(Step("slow", (Stage("slow", "tests.fault.two_runs:Slow"),), listed, cut=Cut(rows=4)))
    run.artifact("count", lambda url: {"n.txt": str(made.records).encode()}, {}, [made])
    return Report(title="Two", recipe={"name": "two"}, digests={trace.name: trace.digest for trace in run.trace})
