"""Trainings by which faults are tried: a few sums that depend on every step before."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings


class Walk(Settings):
    """How far a training walks, and what happens on the way."""

    steps: int = 6
    seconds: float = 0.0
    note: str | None = None
    die_at: int | None = None
    error_at: int | None = None


class Count(Settings):
    """How far a fit counts, and how often it dies."""

    note: str
    steps: int = 6
    deaths: int = 0
    error: bool = False


def walk(settings: Walk, context: Any) -> dict[str, Any]:
    """Walk ``steps`` steps with a checkpoint each; notes each step; dies at ``die_at`` if the note of it is missing."""
    state = json.loads(context.resume() or b'{"step": 0, "value": 1.0}')
    while state["step"] < settings.steps:
        state = {"step": state["step"] + 1, "value": (state["value"] * 1.7 + total(state["step"], context)) % 10.0}
        if settings.error_at == state["step"]:
            raise UserError("the label is not there")
        if settings.note and context.rank == 0:
            with open(settings.note, "a") as out:
                out.write(f"{state['step']}\n")
        mark = Path(str(settings.note) + ".died")
        if settings.die_at == state["step"] and context.rank == context.world_size - 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(settings.seconds)
        context.report({"value": state["value"]}, json.dumps(state).encode() if context.rank == 0 else None)
    return {"files": {"value.json": json.dumps(state["value"]).encode()}}


def count(settings: Count, context: Any) -> dict[str, Any]:
    """Count to ``steps`` at once; notes each attempt and dies in the first ``deaths`` of them."""
    with open(settings.note, "a") as out:
        out.write(f"{os.getpid()}\n")
    if settings.error:
        raise UserError("the text is not there")
    if len(Path(settings.note).read_text().split()) <= settings.deaths:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"files": {"value.json": json.dumps(settings.steps).encode()}}


def total(step: int, context: Any) -> float:
    """Return the sum over ranks of a number of each."""
    mine = float(step * 3 + context.rank)
    if context.world_size == 1:
        return mine
    import torch
    import torch.distributed as dist

    value = torch.tensor([mine])
    dist.all_reduce(value)
    return float(value)


def walking(name: str, ranks: int = 1, **config: Any) -> TrainJob:
    """Return a training by :func:`walk`."""
    return TrainJob(name, walk, Walk(**config), ranks=ranks)


def counting(name: str, note: Path, deaths: int = 0, **config: Any) -> TrainJob:
    """Return a fit by :func:`count`."""
    return TrainJob(name, count, Count(note=str(note), deaths=deaths, **config), stepwise=False)
