"""A recipe for `gristmill clean`: a set that only another set is made of, one that a model is trained on, and one that
the recipe itself reads. Each batch of the first is noted in the folder that ``CLEANED_NOTE`` names."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

import pyarrow as pa
from pydantic import BaseModel, ConfigDict

from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.job import TrainContext, TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step
from tests.pipelines.tiny import Twice, texts, upper

NOTE = "CLEANED_NOTE"


class Config(BaseModel):
    model_config = ConfigDict(extra="forbid")
    width: int = 1
    broken: bool = False


class Noted(Twice):
    def __call__(self, batch: pa.Table) -> pa.Table:
        if folder := os.environ.get(NOTE):
            Path(folder, f"{batch['id'][0].as_py().replace('/', '-')}={uuid.uuid4().hex}").touch()
        return super().__call__(batch)


class Scored:
    def __init__(self, model: str) -> None:
        self.letters = int(read_file(model, "n.txt"))

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch.append_column("letters", pa.array([self.letters] * batch.num_rows))


def noted() -> Stage:
    return Stage("noted", "tests.pipelines.cleaned:Noted", fan_out=True)


def learn(settings: Settings, context: TrainContext, *, data: str) -> dict[str, Any]:
    letters = sum(len(text) for table in open_sealed(data).tables(["upper"]) for text in table["upper"].to_pylist())
    return {"files": {"n.txt": str(letters).encode()}}


def make(run: Run, width: int = 1, *, broken: bool = False) -> SealedSet:
    special = {3: "break"} if broken else {}
    listed = run.source("texts", lambda: iter([texts(6, special), texts(6, None, 6)]), {"broken": broken})
    noisy = run.step(Step("noisy", (noted(),), listed))
    features = run.step(Step("features", (upper(width),), noisy, max_quarantine=0.5))
    model = run.train(TrainJob("model", learn, inputs={"data": features}, stepwise=False))
    added = (pa.field("letters", pa.int64()),)
    stage = Stage("scored", "tests.pipelines.cleaned:Scored", added, artifacts={"model": model.ref})
    return run.step(Step("scored", (stage,), features))


def run(config: Config, run: Run) -> Report:
    scored = make(run, config.width, broken=config.broken)
    letters = {number for table in scored.tables(["letters"]) for number in table["letters"].to_pylist()}
    return Report(
        title="Cleaned",
        recipe={"name": "cleaned", **config.model_dump()},
        summary=f"{letters} letters.",
        digests={trace.name: trace.digest for trace in run.trace},
    )
