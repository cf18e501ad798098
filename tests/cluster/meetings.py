"""A training that waits for another one, to see whether two run side by side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext, TrainJob
from gristmill.shards.settings import Settings

PATIENCE = 240.0  # seconds


class Meeting(Settings):
    """Two files: the one that shows that this training has begun, and the other's."""

    mine: str
    other: str


def meet(settings: Meeting, context: TrainContext) -> dict[str, Any]:
    """Wait until the other one has begun, too."""
    Path(settings.mine).touch()
    end = time.monotonic() + PATIENCE
    while not Path(settings.other).exists():
        if time.monotonic() > end:
            raise UserError("the other one did not come")
        time.sleep(0.05)
    return {"files": {"value.json": b'"met"'}}


def meeting(folder: Path, name: str, other: str, *, stepwise: bool) -> TrainJob:
    """Return a training that ends only while another one runs."""
    settings = Meeting(mine=str(folder / f"{name}.begun"), other=str(folder / f"{other}.begun"))
    return TrainJob(name, loop=meet, settings=settings, stepwise=stepwise)
