"""Actors that prepare annotated requests for the bank of utterances."""

from __future__ import annotations

import pyarrow as pa

from gristmill.actors.nlu.folds import FOLD, TEST
from gristmill.actors.sessions.bank import MEANING, meaning_of
from gristmill.shards.stage import Actor, BatchLimits


class NameMeaning(Actor):
    """Adds the ``meaning`` of annotated requests."""

    name = "meaning"
    columns = ("domain", "intent", "slots")
    adds = (MEANING,)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``meaning``."""
        rows = batch.select(list(self.columns)).to_pylist()
        found = [meaning_of(row["domain"], row["intent"], row["slots"] or []) for row in rows]
        return batch.append_column(MEANING, pa.array(found, MEANING.type))


class AsTest(Actor):
    """Adds ``fold``: that of the test, so that models of all annotated requests read it."""

    name = "as_test"
    adds = (FOLD,)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``fold``."""
        return batch.append_column(FOLD, pa.array([TEST] * batch.num_rows, FOLD.type))
