"""Actors that read requests with the recogniser of one function: labels of a pool, and what systems make of a test.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.embed import EMBEDDING, vectors_of
from gristmill.actors.nlu.labels import CONFIDENCE, PSEUDO, WITHOUT
from gristmill.models.nlu.domain import Slot, log_sigmoid
from gristmill.models.nlu.families import load
from gristmill.models.nlu.linear import LinearModel, LinearScorer, LinearScores
from gristmill.shards.artifact import get_artifact, read_file
from gristmill.shards.errors import UserError
from gristmill.shards.schema import REQUEST_FIELDS, SLOT
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

ACCEPTED = "accepted.json"
NOT_ACCEPTED = "below the recogniser's threshold"
LABELLED = (*REQUEST_FIELDS[3:6], REQUEST_FIELDS[7], CONFIDENCE, WITHOUT)  # domain, intent, slots, label_source
READING = pa.struct(
    [
        pa.field("intent", pa.string()),
        pa.field("slots", pa.list_(SLOT)),
        pa.field("logprob", pa.float32()),  # that the request is of the function
        pa.field("threshold", pa.float32()),  # from which it is accepted
    ]
)


class FunctionReading(NamedTuple):
    """What the recogniser of a function makes of a request; slots only where they were asked for."""

    intent: str
    logprob: float
    intent_logprob: float
    slots: tuple[Slot, ...] | None


class FunctionReader:
    """The recogniser of one function at a URL, applied to tables of requests.

    Raises:
        UserError: there is no artifact of a linear domain model.
    """

    def __init__(self, url: str) -> None:
        artifact = get_artifact(url)
        model = None if artifact is None else load({name: artifact.read(name) for name in artifact.files})
        if not isinstance(model, LinearModel):
            raise UserError(
                f"recogniser: there is no linear domain model at {url}; expected the artifact of its training"
            )
        self.model = model
        self.folds = model.folds.shape[1]
        self._scorer = LinearModel.together([model])
        self.threshold = np.float32(log_sigmoid(np.array(model.threshold)))

    def __call__(self, batch: pa.Table, own: np.ndarray) -> list[FunctionReading]:
        """Return the reading of each request by its ``tokens`` and, if the model reads it, its ``embedding``.

        Slots are those of requests that are accepted, and of those marked in ``own`` (requests,): tagging all of a
        large pool would take most of the time.

        Raises:
            UserError: the requests have no embedding, or one of another dimension.
        """
        if not batch.num_rows:
            return []
        scores = self._scores(batch)
        sure, intents = scores.domain[:, 0], scores.intents[0]
        best = intents.argmax(1)
        asked = own | (sure >= self.threshold)
        return [
            FunctionReading(
                self.model.intents[best[row]],
                float(sure[row]),
                float(intents[row, best[row]]),
                scores.slots(row, 0)[0] if asked[row] else None,
            )
            for row in range(batch.num_rows)
        ]

    def log_odds(self, batch: pa.Table) -> np.ndarray:
        """Return the log-odds that each request is of the function, (requests,) float64."""
        return _log_odds(self._scores(batch).domain[:, 0] if batch.num_rows else np.zeros(0))

    def log_odds_without(self, batch: pa.Table) -> np.ndarray:
        """Return those without the annotated requests of each fold of the cross-validation, (requests, folds)."""
        if not batch.num_rows or not self.folds:
            return np.zeros((batch.num_rows, self.folds))
        return _log_odds(self._without(*self._read(batch)).domain)

    @cached_property
    def _without(self) -> LinearScorer:
        """The scorer of the folds' models: only what labels requests needs it."""
        return LinearModel.together([self.model.without(fold) for fold in range(self.folds)])

    def _scores(self, batch: pa.Table) -> LinearScores:
        return self._scorer(*self._read(batch))

    def _read(self, batch: pa.Table) -> tuple[list[list[str]], np.ndarray | None]:
        vectors = None
        if self.model.dim and EMBEDDING in batch.column_names:
            vectors = vectors_of(batch[EMBEDDING])
        return [one or [] for one in batch["tokens"].to_pylist()], vectors


def _log_odds(logprob: np.ndarray) -> np.ndarray:
    sure = logprob.astype(np.float64)
    return sure - np.log(-np.expm1(np.minimum(sure, -1e-7)))


class Label(Actor):
    """Labels requests by a function's recogniser: those it accepts get its domain, intent and slots, others a reason.

    ``label_source`` is ``pseudo``, ``confidence`` the product of the probabilities of domain and intent.
    ``accepted_without`` are the folds of the recogniser's cross-validation without whose annotated requests it accepts
    it too (null: it has none), so that what is trained on it can be cross-validated with them. ``accepted``: the
    artifact of another acceptance (:mod:`gristmill.actors.requests.propagation`), in the place of the threshold.
    """

    name = "label"
    adds = LABELLED
    batch = BatchLimits(1024)

    def __init__(self, settings: Settings, model: str, accepted: str | None = None) -> None:
        super().__init__(settings)
        self._read = FunctionReader(model)
        self._accepted = None if accepted is None else json.loads(read_file(accepted, ACCEPTED))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with labels, and ``reject_reason`` where a request is not accepted."""
        without: Sequence[Sequence[int] | None]
        if self._accepted is None:
            readings = self._read(batch, np.zeros(batch.num_rows, bool))
            kept = np.array([one.logprob >= self._read.threshold for one in readings], bool)
            without = self._without(batch)
        else:
            ids = batch["id"].to_pylist()
            kept = np.array([name in self._accepted for name in ids], bool)
            readings = self._read(batch, kept)
            without = [self._accepted.get(name) for name in ids]
        sure = [float(np.exp(one.logprob + one.intent_logprob)) for one in readings]
        columns: tuple[Sequence[Any], ...] = (
            [self._read.model.domain] * len(readings),
            [one.intent for one in readings],
            [as_rows(one.slots) for one in readings],
            [PSEUDO] * len(readings),
            sure,
            without,
        )
        for field, values in zip(LABELLED, columns, strict=True):
            batch = set_column(batch, field.name, pa.array(values, field.type))
        reasons = [None if one else NOT_ACCEPTED for one in kept]
        return set_column(batch, "reject_reason", pa.array(reasons, pa.string()))

    def _without(self, batch: pa.Table) -> Sequence[Sequence[int] | None]:
        """Return the folds without which each request is above the threshold."""
        if not self._read.folds:
            return [None] * batch.num_rows
        above = self._read.log_odds_without(batch) >= self._read.model.threshold
        return [np.flatnonzero(row).tolist() for row in above]


class DetectSettings(Settings):
    """The systems that read."""

    systems: tuple[str, ...]
    """Their names; the artifact of each is named as its column."""


class Detect(Actor):
    """Adds ``read_<system>`` for the recogniser of each system: intent, slots, log-probability and threshold.

    Slots are null of requests of another domain that are not accepted.
    """

    name = "detect"
    batch = BatchLimits(1024)
    settings: DetectSettings

    def __init__(self, settings: DetectSettings, **models: str) -> None:
        super().__init__(settings)
        self._readers = {column: FunctionReader(url) for column, url in models.items()}

    @classmethod
    def contract(cls, settings: DetectSettings) -> dict[str, Any]:
        """Return a column for each system."""
        return {"adds": tuple(pa.field(f"read_{system}", READING) for system in settings.systems)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with what each system reads."""
        own = np.array(batch["domain"].to_pylist(), dtype=object)
        for system in self.settings.systems:
            column = f"read_{system}"
            reader = self._readers[column]
            found = [
                {
                    "intent": one.intent,
                    "slots": as_rows(one.slots),
                    "logprob": one.logprob,
                    "threshold": reader.threshold,
                }
                for one in reader(batch, own == reader.model.domain)
            ]
            batch = set_column(batch, column, pa.array(found, READING))
        return batch


def as_rows(slots: tuple[Slot, ...] | None) -> list[dict[str, Any]] | None:
    """Return slots as the column of that name has them."""
    return None if slots is None else [slot._asdict() for slot in slots]
