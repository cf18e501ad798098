"""Lists of hypotheses in which several skills are right, for the fits of re-rankers.

A re-ranker learns from the errors of each hypothesis against one reference. A hypothesis of a domain that is a pseudo
label (:mod:`gristmill.actors.sessions.skill_trainer`) has the slots' errors only: its domain and intent count as right.
One of a domain with negative feedback stays wrong.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.models.measures.semer import Interpretation, errors
from gristmill.shards.schema import HYPOTHESES_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits


class SeveralRightSettings(Settings):
    """Which pseudo labels count as right."""

    least: float = Field(0.25, ge=0, le=1)
    """Least value of a pseudo label."""
    same_intent: bool = True
    """Whether the hypothesis is to have the reference's intent too; otherwise intents of other domains, which may have
    other names, count as right."""


class SeveralRight(Actor):
    """Changes ``errors`` and ``correct`` of hypotheses, and ``oracle_errors``, by the ``labels`` of requests.

    A request whose reference has no domain is left as it is.
    """

    name = "several_right"
    columns = ("domain", "intent", "slots", "labels", "hypotheses", "reference_length", "oracle_errors")
    batch = BatchLimits(rows=1024)
    settings: SeveralRightSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the errors that count."""
        rows = batch.select(list(self.columns)).to_pylist()
        for row in rows:
            if row["domain"] is not None and row["hypotheses"]:
                self._judge(row)
        for field in HYPOTHESES_FIELDS:
            batch = set_column(batch, field.name, pa.array([row[field.name] for row in rows], field.type))
        return batch

    def _judge(self, row: dict[str, Any]) -> None:
        labels = row["labels"] or []
        rejected = {one["skill"] for one in labels if one["source"] == "negative"}
        right = {one["skill"] for one in labels if one["source"] == "pseudo" and one["value"] >= self.settings.least}
        reference = _reading(row["domain"], row["intent"], row)
        for one in row["hypotheses"]:
            if one["domain"] in rejected:
                continue
            if one["domain"] in right and (one["intent"] == row["intent"] or not self.settings.same_intent):
                found = _reading(row["domain"], row["intent"], one)
                one["errors"] = errors(reference, found)
                one["correct"] = one["errors"] == 0
        row["oracle_errors"] = min(one["errors"] for one in row["hypotheses"])


def _reading(domain: str, intent: str, row: Mapping[str, Any]) -> Interpretation:
    return Interpretation(domain, intent, tuple((slot["name"], slot["value"]) for slot in row["slots"] or []))
