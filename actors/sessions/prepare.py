"""Actors that prepare annotated requests for the bank of utterances."""

from __future__ import annotations

import pyarrow as pa

from gristmill.actors.nlu.folds import FOLD, TEST
from gristmill.actors.sessions.bank import MEANING
from gristmill.models.sessions.interpretations import interpretations
from gristmill.shards.stage import Actor, BatchLimits


class NameMeaning(Actor):
    """Adds the ``meaning`` of annotated requests: their interpretation (``models/sessions/interpretations.py``)."""

    name = "meaning"
    columns = ("text", "domain", "intent", "slots")
    adds = (MEANING,)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``meaning``."""
        return batch.append_column(MEANING, interpretations(batch))


class AsTest(Actor):
    """Adds ``fold``: that of the test, so that models of all annotated requests read it."""

    name = "as_test"
    adds = (FOLD,)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``fold``."""
        return batch.append_column(FOLD, pa.array([TEST] * batch.num_rows, FOLD.type))
