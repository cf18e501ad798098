"""A slot tagger on encoder states, which tags the requests that a recogniser's own tagger is trained on.

A tagger that reads what each word is in its sentence generalises from few annotated requests to values that they do
not have; one on words alone, trained on what the first makes of the pool, takes part of that and needs no encoder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field, PositiveFloat
from safetensors.numpy import load, save

from gristmill.actors.audio import set_column
from gristmill.actors.nlu.slot_examples import TAGGED, same_slots, slot_names, tagged
from gristmill.actors.requests.function_reader import as_rows
from gristmill.actors.word_states import States, word_states
from gristmill.models.nlu.crf import CrfSettings, Tagger, features, fit
from gristmill.models.nlu.domain import OUTSIDE, from_iob
from gristmill.shards.artifact import read_file
from gristmill.shards.dataset import open_sealed
from gristmill.shards.job import TrainContext
from gristmill.shards.schema import REQUEST_FIELDS
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Actor, BatchLimits

TAGGER = "slots.crfsuite"
SCALE = "states.safetensors"


class SlotTeacherSettings(Settings):
    """A slot tagger on encoder states."""

    crf: CrfSettings = CrfSettings()
    """Its training."""
    length: PositiveFloat = 5.0
    """Root mean square length of the words' states, beside features of value 1."""
    repeats: int = Field(3, ge=1)
    """Times that an annotated request of the function is trained on, beside those of others with the same slots."""


class SlotTeacherTraining(SlotTeacherSettings):
    """Training of the tagger of one function."""

    domain: str = Field(min_length=1)
    """The function."""
    same_slots: int = Field(0, ge=0)
    """Requests of other functions with slots of the same names, at most."""
    seed: int = 0
    """It determines which of these, as in the recogniser's training."""


def train(
    settings: SlotTeacherTraining, context: TrainContext, *, seeds: str, others: str, encoder: str
) -> dict[str, Any]:
    """Train on annotated requests of the function and of others; ``encoder`` is the place of an embedding model.

    Returns the tagger, which is empty if the function has no slots, and the centre and scale of states.
    """
    own = [one for row in _rows(seeds) if (one := tagged(row)).tokens]
    drawn = same_slots(
        open_sealed(others).tables(list(TAGGED)), slot_names(own), settings.domain, settings.same_slots, settings.seed
    )
    told = {"own": len(own), "others": len(drawn)}
    if not slot_names(own):
        return {"files": {TAGGER: b""}, **told}
    read = word_states(encoder)
    examples = [*own, *drawn.values()]
    found = [read(example.tokens) for example in examples]
    scale = _Scale.of(np.concatenate(found), settings.length)
    states = [scale(one) for one in found]
    again = settings.repeats - 1
    made = fit([*examples, *(own * again)], settings.crf, [*states, *(states[: len(own)] * again)])
    context.report({"step": 0, "requests": float(len(examples))})
    return {"files": {TAGGER: made or b"", SCALE: scale.to_bytes()}, **told}


def _rows(url: str) -> list[dict[str, Any]]:
    rows = [row for table in open_sealed(url).tables(list(TAGGED)) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: str(row["id"]))


class _Scale:
    """Brings states to a mean of 0 and a root mean square length, as they were in training."""

    def __init__(self, centre: np.ndarray, factor: float) -> None:
        self._centre, self._factor = centre, factor

    @classmethod
    def of(cls, states: np.ndarray, length: float) -> _Scale:
        """Return the scale of states (words, dim)."""
        centre = states.mean(0, dtype=np.float64)
        spread = float(np.sqrt(np.mean(np.sum((states - centre) ** 2, axis=1))))
        return cls(centre, length / max(spread, 1e-9))

    @classmethod
    def from_bytes(cls, data: bytes) -> _Scale:
        """Return the scale of a teacher's file."""
        tensors = load(data)
        return cls(tensors["centre"], float(tensors["factor"][0]))

    def to_bytes(self) -> bytes:
        """Return the teacher's file."""
        return save({"centre": self._centre, "factor": np.array([self._factor])})

    def __call__(self, states: np.ndarray) -> np.ndarray:
        read = states.any(1, keepdims=True)  # a word without a state has none of the features
        return np.where(read, (states - self._centre) * self._factor, 0.0)


class TeachSlots(Actor):
    """Gives requests the slots that a tagger on encoder states finds (:func:`train`), in the place of their own."""

    name = "teach_slots"
    adds = (REQUEST_FIELDS[5],)
    batch = BatchLimits(1024)

    def __init__(self, settings: Settings, teacher: str, encoder: str) -> None:
        super().__init__(settings)
        data = read_file(teacher, TAGGER)
        self._tagger = Tagger(data or None)
        self._states: States | None = word_states(encoder) if data else None
        self._scale = _Scale.from_bytes(read_file(teacher, SCALE)) if data else None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``slots``."""
        slots = [as_rows(from_iob(tokens, self._tags(tokens))) for tokens in _tokens(batch)]
        return set_column(batch, self.adds[0].name, pa.array(slots, self.adds[0].type))

    def _tags(self, tokens: Sequence[str]) -> list[str]:
        if not tokens or self._states is None or self._scale is None:
            return [OUTSIDE] * len(tokens)
        return self._tagger(len(tokens), features(tokens, self._scale(self._states(tokens))))[0]


def _tokens(batch: pa.Table) -> list[list[str]]:
    return [one or [] for one in batch["tokens"].to_pylist()]
