"""The actors that transcribe utterances by CTC models."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import set_column
from gristmill.actors.speech.features import rows_of
from gristmill.actors.speech.teacher_checkpoint import Checkpoint
from gristmill.models.speech.decode import DecodingSettings, best_units
from gristmill.models.speech.features import METADATA_KEY, FeatureSettings
from gristmill.models.speech.words import Word, spoken_words
from gristmill.shards.errors import UserError
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits, Resources, Stage


class RecogniserSettings(DecodingSettings):
    """Settings of decoding, and the device."""

    device: str = "cpu"


class FeatureReader(Actor):
    """Base of actors that hear features by a network on the device of their settings, and drop them."""

    drops = ("features",)
    batch = BatchLimits(rows=32, cost="feature_frames", max_cost=48000)

    @classmethod
    def contract(cls, settings: Any) -> Mapping[str, Any]:
        """Return the reproducibility of the texts, as only a CPU is deterministic, and the GPU of a worker."""
        gpu = settings.device != "cpu"
        return {"deterministic": not gpu, "resources": Resources(gpus=1.0 if gpu else 0.0)}


class Recogniser(FeatureReader):
    """Transcribes each row's features by each model: one column ``hypothesis_<name>`` per model.

    The features are dropped. :func:`recognition` makes its stage.
    """

    name = "recognise"
    version = 2
    settings: RecogniserSettings

    def __init__(self, settings: RecogniserSettings, **models: str) -> None:
        super().__init__(settings)
        self.models = {name: Checkpoint(url, settings.device, "float32") for name, url in models.items()}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the texts, which are empty for rows without feature frames."""
        for name, model in self.models.items():
            texts = [""] * batch.num_rows
            for place, scores in outputs(model, name, batch):
                texts[place] = model.info.units.decode(best_units(scores, self.settings))
            batch = set_column(batch, f"hypothesis_{name}", pa.array(texts, pa.string()))
        return batch


def check_features(model: Checkpoint, name: str, batch: pa.Table) -> FeatureSettings:
    """Return the settings of a batch's features, which are those of a model.

    Raises:
        UserError: they are not; the sentence calls the model ``name``.
    """
    settings = model.info.features
    written = (batch.schema.metadata or {}).get(METADATA_KEY.encode(), b"").decode()
    if settings is None or written != settings.to_json():
        raise UserError(f"recognise: the features were made with {written or 'unknown settings'}, not {name}'s")
    return settings


def outputs(model: Checkpoint, name: str, batch: pa.Table) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the log-probabilities (T, V) of each row that has feature frames, with its place in the batch.

    On a CPU each utterance runs alone, so that they cannot depend on its batch; on a GPU the batch runs at once.

    Raises:
        UserError: the features were not made with the settings of the model, which the sentence calls ``name``.
    """
    settings = check_features(model, name, batch)
    rows = [row.reshape(-1, settings.n_mels) for row in rows_of(batch["features"])]
    heard = [place for place, row in enumerate(rows) if len(row)]
    alone = model.device.type == "cpu"
    for group in [[place] for place in heard] if alone else [heard] if heard else []:
        log_probs, frames = model([rows[place] for place in group])
        for place, scores, count in zip(group, log_probs.cpu().numpy(), frames, strict=True):
            yield place, scores[:count]


WORDS = pa.field(
    "words",
    pa.list_(pa.struct([("word", pa.string()), *((n, pa.float32()) for n in ("start", "end", "confidence"))])),
)  # of the hypothesis; s from the utterance's begin


class Transcribe(FeatureReader):
    """Adds ``hypothesis``, its ``words`` with their times, and ``hypothesis_confidence``; drops the features.

    No time is beyond the record's ``duration`` (s): the last frame may be longer than what is left of it.

    A word's confidence is the least, over its units, of the unit's highest probability; the hypothesis's is the mean of
    its words', null without one.
    """

    name = "transcribe"
    version = 2  # times within the duration
    adds = (pa.field("hypothesis", pa.string()), pa.field("hypothesis_confidence", pa.float32()), WORDS)
    settings: RecogniserSettings

    def __init__(self, settings: RecogniserSettings, model: str) -> None:
        super().__init__(settings)
        self.model = Checkpoint(model, settings.device, "float32")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with the texts, which are empty for rows without feature frames."""
        info = self.model.info
        texts = [""] * batch.num_rows
        words: list[list[Word]] = [[] for _ in texts]
        lengths = batch["duration"].to_pylist() if "duration" in batch.column_names else [math.inf] * len(texts)
        for place, scores in outputs(self.model, "the model", batch):
            units = best_units(scores, self.settings)
            texts[place] = info.units.decode(units)
            words[place] = [
                one._replace(start=min(one.start, lengths[place]), end=min(one.end, lengths[place]))
                for one in spoken_words(scores, units, info.units, 1 / info.frame_rate)
            ]
        sure = [float(np.mean([word.confidence for word in one])) if one else None for one in words]
        columns = (texts, sure, [[word._asdict() for word in one] for one in words])
        for field, values in zip(self.adds, columns, strict=True):
            batch = set_column(batch, field.name, pa.array(values, field.type))
        return batch


def recognition(
    models: Mapping[str, ArtifactRef], settings: RecogniserSettings | None = None, resources: Resources | None = None
) -> Stage:
    """Return the stage that transcribes features by the models of artifacts."""
    resources = resources or Resources()
    settings = (settings or RecogniserSettings()).but(device="cuda" if resources.gpus else "cpu")
    adds = tuple(pa.field(f"hypothesis_{model}", pa.string()) for model in models)
    return replace(Recogniser.stage(settings, resources=resources), adds=adds, artifacts=dict(models))
