"""Actors that make test requests and training requests of turns."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from gristmill.actors.nlu.folds import FOLD, TEST
from gristmill.shards.schema import REQUEST_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

NOT_LATER = "of the sessions that are learnt from"
IS_LATER = "of the later sessions"
TRAINED_ON = "of the requests that models are trained on"
NO_SUCCESS = "not known to have succeeded"
TRAINED_FOLD = 0  # of requests that are trained on without folds


class PeriodSettings(Settings):
    """Which of the simulated sessions are taken."""

    later: bool
    """Whether those that come after the sessions that are learnt from, or these."""


class Period(Actor):
    """Takes the sessions of one period, and rejects the others."""

    name = "period"
    columns = ("later",)
    batch = BatchLimits(rows=4096)
    settings: PeriodSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        reason = NOT_LATER if self.settings.later else IS_LATER
        taken = [value == self.settings.later for value in batch["later"].to_pylist()]
        return batch.append_column("reject_reason", pa.array([None if one else reason for one in taken], pa.string()))


class TestRequests(Actor):
    """Takes the annotated requests of the test part, and rejects those that models are trained on."""

    __test__ = False  # not a pytest class
    name = "test_requests"
    columns = ("fold",)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        reasons = [None if fold == TEST else TRAINED_ON for fold in batch["fold"].to_pylist()]
        return batch.append_column("reject_reason", pa.array(reasons, pa.string()))


class TrueRequests(Actor):
    """Makes of turns the requests that they truly are: ``domain``, ``intent``, ``slots`` are true, ``fold`` is -1."""

    name = "true_requests"
    columns = ("tokens", "asr_text", "lang", "true_domain", "true_intent", "true_slots", "failed", "meaning")
    keeps = ("failed", "meaning")
    adds = (*REQUEST_FIELDS[1:], FOLD)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the requests."""
        rows = batch.select(["id", *self.columns]).to_pylist()
        return _requests(rows, "true_", "gold", TEST, ("failed", "meaning"), batch.schema)


class Successes(Actor):
    """Makes training requests of the turns that are known to have succeeded, as they were read (self-training).

    A request that is said again and again counts as often.
    """

    name = "successes"
    columns = ("tokens", "asr_text", "lang", "domain", "intent", "slots", "succeeded")
    keeps = ()
    adds = (*REQUEST_FIELDS[1:], FOLD)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the requests; other turns are rejected."""
        rows = batch.select(["id", *self.columns]).to_pylist()
        made = _requests(rows, "", "pseudo", TRAINED_FOLD, (), batch.schema)
        reasons = [None if row["succeeded"] and row["domain"] and row["intent"] else NO_SUCCESS for row in rows]
        return made.append_column("reject_reason", pa.array(reasons, pa.string()))


def _requests(
    rows: list[dict[str, Any]], prefix: str, source: str, fold: int, kept: tuple[str, ...], given: pa.Schema
) -> pa.Table:
    made = [
        {
            "id": row["id"],
            "text": row["asr_text"] or " ".join(row["tokens"]),
            "tokens": row["tokens"],
            "domain": row[f"{prefix}domain"],
            "intent": row[f"{prefix}intent"],
            # A model learns from words, and is judged by them: a value that was not heard is no slot of the request.
            "slots": [slot for slot in row[f"{prefix}slots"] or [] if slot["start"] is not None],
            "lang": row["lang"],
            "label_source": source,
            FOLD.name: fold,
            **{name: row[name] for name in kept},
        }
        for row in rows
    ]
    schema = pa.schema([*REQUEST_FIELDS, FOLD, *(given.field(name) for name in kept)])
    return pa.Table.from_pylist(made, schema=schema)
