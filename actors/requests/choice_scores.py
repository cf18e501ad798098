"""The choice of requests each of which is worth what it says itself: by chance, by relevance, by confidence.

The least of all shards are found exactly, ties by the smaller id, as :mod:`gristmill.actors.nearest` finds the nearest:
a threshold is fitted on the set of scores, and applied to the requests.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.nearest import DISTANCE, Keep, draw
from gristmill.actors.requests.diversity import CONFIDENCE, NOT_CHOSEN, floats
from gristmill.models.requests.diversity import DiversitySettings
from gristmill.shards.stage import Actor, BatchLimits


class ChoiceScore(Actor):
    """Adds ``distance``, by which a request is chosen by itself: the least are."""

    name = "score"
    adds = (DISTANCE,)
    keeps = ()
    batch = BatchLimits(4096)
    settings: DiversitySettings

    @classmethod
    def contract(cls, settings: DiversitySettings) -> Mapping[str, Any]:
        """Return the column that is read."""
        return {"columns": _columns(settings)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``distance``."""
        return set_column(batch, DISTANCE.name, _scores(self.settings, batch))


class KeepScored(Keep):
    """Rejects the records beyond a threshold of :class:`ChoiceScore`; their own ``distance``, if any, stays."""

    name = "chosen"
    why = NOT_CHOSEN
    settings: DiversitySettings

    @classmethod
    def contract(cls, settings: DiversitySettings) -> Mapping[str, Any]:
        """Return the column that is read."""
        return {"columns": _columns(settings)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        scored = pa.table({"id": batch["id"], DISTANCE.name: _scores(self.settings, batch)})
        return set_column(batch, "reject_reason", super().__call__(scored)["reject_reason"])


def _columns(settings: DiversitySettings) -> tuple[str, ...]:
    return {"top": (DISTANCE.name,), "least_sure": (CONFIDENCE,)}.get(settings.selector, ())


def _scores(settings: DiversitySettings, batch: pa.Table) -> pa.Array:
    if settings.selector == "random":
        drawn = [draw(settings.seed, name) for name in batch["id"].to_pylist()]
        return pa.array(np.array(drawn, np.float32))
    return pa.array(floats(batch[_columns(settings)[0]]))
