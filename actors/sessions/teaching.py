"""Actors that find unknown spans of requests, and make requests of them that taggers are trained on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.actors.nlu.labels import CONFIDENCE
from gristmill.actors.sessions.teaching_trainer import HELD
from gristmill.models.sessions.teaching import MODEL, TAGGERS, TeachingModel
from gristmill.shards.artifact import read_file
from gristmill.shards.schema import REQUEST_FIELDS, SLOT
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

UNKNOWN_SPAN = pa.struct([*SLOT, pa.field("score", pa.float32())])
UNKNOWN = "unknown"
PROJECTED = "projected"
NOTHING_UNKNOWN = "no unknown span"
UNSURE = "an unsure span"
NOT_HELD = "no hidden value"
_SOURCE = REQUEST_FIELDS[-1]


def read_teaching(url: str) -> TeachingModel:
    """Return the model of unknown spans at the URL of its artifact."""
    return TeachingModel.from_files({name: read_file(url, name) for name in (MODEL, TAGGERS)})


class UnknownSettings(Settings):
    """How unknown spans are found."""

    column: str = UNKNOWN
    """The column that is added."""
    words: bool = False
    """Whether they are just the words that no training request has: the baseline."""


class UnknownSpans(Actor):
    """Adds ``unknown``: the spans of a request that may be values of slots, and that no training request has as one.

    Each has the name of the slot that it may fill, and as ``score`` the least probability of its tags. ``teaching``:
    the artifact of :func:`gristmill.actors.sessions.teaching_trainer.train`.
    """

    name = "unknown_spans"
    columns = ("tokens", "domain")
    batch = BatchLimits(rows=1024)
    settings: UnknownSettings

    def __init__(self, settings: UnknownSettings, teaching: str) -> None:
        super().__init__(settings)
        self._model = read_teaching(teaching)

    @classmethod
    def contract(cls, settings: UnknownSettings) -> Mapping[str, Any]:
        """Return the column that is added."""
        return {"adds": (pa.field(settings.column, pa.list_(UNKNOWN_SPAN)),)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the spans."""
        found = []
        for row in batch.select(list(self.columns)).to_pylist():
            tokens = row["tokens"] or []
            own = self._model.unknown_words if self.settings.words else None
            spans = own(tokens) if own else self._model.unknown(tokens, row["domain"])
            found.append([span._asdict() for span in spans])
        return set_column(batch, self.settings.column, pa.array(found, pa.list_(UNKNOWN_SPAN)))


class KeepHeld(Actor):
    """Rejects requests without a hidden value: the others are the test."""

    name = "keep_held"
    columns = (HELD.name,)
    batch = BatchLimits(rows=4096)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``reject_reason``."""
        reasons = [None if held else NOT_HELD for held in batch[HELD.name].to_pylist()]
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))


class TaughtSettings(Settings):
    """Which unknown spans become labels."""

    score: float = Field(0.8, ge=0, le=1)
    """Least score of each span of a request."""


class AsTaught(Actor):
    """Makes requests with ``unknown`` spans training data: the spans are slots, beside those of the interpretation.

    ``label_source`` is ``projected``, ``confidence`` the least score. A slot of the interpretation that a span overlaps
    gives way to it; a request without a span, or with one that is too unsure, is rejected.
    """

    name = "as_taught"
    columns = ("slots", UNKNOWN)
    adds = (_SOURCE, CONFIDENCE)
    drops = (UNKNOWN,)
    batch = BatchLimits(rows=4096)
    settings: TaughtSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with slots, source and confidence."""
        slots, scores, reasons = [], [], []
        for row in batch.select(list(self.columns)).to_pylist():
            spans = row[UNKNOWN] or []
            score = min((span["score"] for span in spans), default=0.0)
            placed = [one for one in row["slots"] or [] if one["start"] is not None and one["end"] is not None]
            kept = [one for one in placed if all(_apart(one, span) for span in spans)]
            own = [{name: span[name] for name in ("name", "value", "start", "end")} for span in spans]
            slots.append(sorted([*kept, *own], key=lambda slot: slot["start"]))
            scores.append(score)
            unsure = UNSURE if score < self.settings.score else None
            reasons.append(unsure if spans else NOTHING_UNKNOWN)
        batch = set_column(batch, "slots", pa.array(slots, pa.list_(SLOT)))
        batch = set_column(batch, _SOURCE.name, pa.array([PROJECTED] * len(slots), pa.string()))
        batch = set_column(batch, CONFIDENCE.name, pa.array(scores, CONFIDENCE.type))
        batch = batch.drop_columns([UNKNOWN])
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))


def _apart(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one["end"] <= other["start"] or other["end"] <= one["start"]
