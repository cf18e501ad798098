"""A recipe for tests: sentences in capitals, those with "drop" rejected and those with "break" broken."""

from __future__ import annotations

import os
import time
from typing import Literal

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.shards import store
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.stage import BatchLimits, Stage
from gristmill.shards.step import Step

TEXT = pa.schema([("id", pa.string()), ("text", pa.string()), ("duration", pa.float64())])


class Shape(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = Field(default=1, ge=1)
    mode: Literal["loud", "quiet"] = "loud"


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    records: int = Field(default=20, ge=1)
    text: str = ""
    shape: Shape = Shape()
    broken: int = 1
    empty: bool = False


class Upper:
    def __init__(self, width: int) -> None:
        self.width = width
        self.pause = float(os.environ.get("TINY_PAUSE", "0"))

    def __call__(self, batch: pa.Table) -> pa.Table:
        time.sleep(self.pause)
        texts = batch["text"].to_pylist()
        if "break" in texts and "TINY_MENDED" not in os.environ:
            raise ValueError("this record breaks")
        batch = batch.append_column("upper", pa.array([text.upper() * self.width for text in texts]))
        return batch.append_column("reject_reason", pa.array(["dropped" if t == "drop" else None for t in texts]))


class Twice:
    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [
            {**row, "id": f"{row['id']}~{copy}", "parent_id": row["id"]}
            for row in batch.to_pylist()
            for copy in range(2)
        ]
        return pa.Table.from_pylist(rows, schema=batch.schema.append(pa.field("parent_id", pa.string())))


class BreaksSecond:
    def __call__(self, batch: pa.Table) -> pa.Table:
        if any(i.endswith("3~1") for i in batch["id"].to_pylist()) and "TINY_MENDED" not in os.environ:
            raise ValueError("this copy breaks")
        return batch


def breaks_second() -> Stage:
    return Stage("second", "tests.pipelines.tiny:BreaksSecond")


def upper(width: int = 1) -> Stage:
    added = (pa.field("upper", pa.string()),)
    return Stage("upper", "tests.pipelines.tiny:Upper", added, params={"width": width}, batch=BatchLimits(rows=8))


def twice() -> Stage:
    return Stage("twice", "tests.pipelines.tiny:Twice", fan_out=True)


def texts(number: int, special: dict[int, str] | None = None, start: int = 0) -> pa.Table:
    rows = [
        {"id": f"t/{i:05d}", "text": (special or {}).get(i, f"text {i}"), "duration": 2.0}
        for i in range(start, start + number)
    ]
    return pa.Table.from_pylist(rows, schema=TEXT)


def run(config: Config, run: Run) -> Report:
    def tables():
        special = {3: "drop"} | dict.fromkeys(range(5, 5 + config.broken), "break")
        if config.empty:
            return
        for start in range(0, config.records, 10):
            yield texts(min(10, config.records - start), special, start)

    if config.text and not store.exists(config.text):
        raise UserError(f"text: {config.text} is not there; expected a file")
    listed = run.source("texts", tables, {"records": config.records, "broken": config.broken})
    made = run.step(Step("upper", (upper(config.shape.width),), listed, cut=Cut(rows=4), max_quarantine=0.1))
    copies = run.step(Step("copies", (twice(),), made))
    count = run.artifact("count", lambda url: {"n.txt": str(copies.records).encode()}, {}, [copies])
    summary = f"{count.read('n.txt').decode()} copies."
    return Report(
        title="Tiny",
        recipe={"name": "tiny", **config.model_dump()},
        summary=summary,
        digests={t.name: t.digest for t in run.trace},
    )
