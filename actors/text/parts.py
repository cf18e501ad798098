"""Texts are dealt to training, development and test; and of training, nested shares of any size are taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards.errors import UserError
from gristmill.shards.stage import BatchLimits, Stage

TRAIN, DEV, TEST = "train", "dev", "test"
PART = pa.field("part", pa.string())
DRAW = pa.field("draw", pa.float64())  # uniform in [0, 1): training texts below 0.1 are a tenth of training
ANOTHER = "of another part"


class TextParts:
    """Adds ``part`` and ``draw``, drawn from the run's seed and the text alone: equal texts never fall apart."""

    def __init__(self, dev: float, test: float, rng: Callable[[str], np.random.Generator]) -> None:
        self._dev, self._test, self._rng = dev, test, rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        parts, draws = [], []
        for text in batch["text"].to_pylist():
            rng = self._rng(text)
            place = rng.random()
            parts.append(TEST if place < self._test else DEV if place < self._test + self._dev else TRAIN)
            draws.append(rng.random())
        return batch.append_column(PART, pa.array(parts, PART.type)).append_column(DRAW, pa.array(draws, DRAW.type))


class Subset:
    """Keeps the records of some parts; of training, those whose draw is below a share."""

    def __init__(self, parts: Sequence[str], share: float) -> None:
        self._parts, self._share = parts, share

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Work on one batch."""
        own = pc.is_in(batch["part"], value_set=pa.array(self._parts, pa.string()))
        small = pc.or_(pc.less(batch["draw"], self._share), pc.not_equal(batch["part"], TRAIN))
        reasons = pc.if_else(pc.and_(own, small), pa.scalar(None, pa.string()), ANOTHER)
        return batch.append_column("reject_reason", reasons)


def parts_stage(dev: float, test: float, name: str = "parts") -> Stage:
    """Return the stage that deals texts out: shares above 0 that leave something for training."""
    if min(dev, test) <= 0 or dev + test >= 1:
        raise UserError(
            f"shares of {dev:g} for development and {test:g} for test; expected both above 0, together below 1"
        )
    params = {"dev": dev, "test": test}
    return Stage(
        name, "gristmill.actors.text.parts:TextParts", (PART, DRAW), params=params, batch=BatchLimits(1024), seeded=True
    )


def subset_stage(*parts: str, share: float = 1.0, name: str = "subset") -> Stage:
    """Return the stage that keeps the parts named, and ``share`` of training."""
    params = {"parts": list(parts), "share": share}
    return Stage(name, "gristmill.actors.text.parts:Subset", params=params, batch=BatchLimits(1024))
