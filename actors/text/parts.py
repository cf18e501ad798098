"""Random assignment of texts to training, development and test, and nested subsets of training of any size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, model_validator

from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

TRAIN, DEV, TEST = "train", "dev", "test"
PART = pa.field("part", pa.string())
DRAW = pa.field("draw", pa.float64())  # uniform in [0, 1): training texts below 0.1 are a tenth of training
ANOTHER = "of another part"


class TextPartSettings(Settings):
    """The shares of texts for development and test; the rest is for training."""

    dev: float = Field(0.06, gt=0, lt=1)
    """The share of texts for development."""
    test: float = Field(0.2, gt=0, lt=1)
    """The share of texts for test."""

    @model_validator(mode="after")
    def _leave_some(self) -> Self:
        if self.dev + self.test >= 1:
            raise ValueError(
                f"shares of {self.dev:g} for development and {self.test:g} for test; expected a sum below 1"
            )
        return self


class TextParts(Actor):
    """Adds ``part`` and ``draw``, drawn from the run's seed and the text only: equal texts are in the same part."""

    name = "parts"
    adds = (PART, DRAW)
    batch = BatchLimits(1024)
    seeded = True
    settings: TextPartSettings

    def __init__(self, settings: TextPartSettings, rng: Callable[[str], np.random.Generator]) -> None:
        super().__init__(settings)
        self._rng = rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``part`` and ``draw``."""
        dev, test = self.settings.dev, self.settings.test
        parts, draws = [], []
        for text in batch["text"].to_pylist():
            rng = self._rng(text)
            place = rng.random()
            parts.append(TEST if place < test else DEV if place < test + dev else TRAIN)
            draws.append(rng.random())
        return batch.append_column(PART, pa.array(parts, PART.type)).append_column(DRAW, pa.array(draws, DRAW.type))


class SubsetSettings(Settings):
    """The records to keep."""

    parts: tuple[str, ...]
    """The parts to keep."""
    share: float = Field(1.0, gt=0, le=1)
    """The share of training to keep."""


class Subset(Actor):
    """Keeps the records of some parts; of training, those whose draw is below a share."""

    name = "subset"
    batch = BatchLimits(1024)
    settings: SubsetSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        own = pc.is_in(batch["part"], value_set=pa.array(self.settings.parts, pa.string()))
        small = pc.or_(pc.less(batch["draw"], self.settings.share), pc.not_equal(batch["part"], TRAIN))
        reasons = pc.if_else(pc.and_(own, small), pa.scalar(None, pa.string()), ANOTHER)
        return batch.append_column("reject_reason", reasons)
