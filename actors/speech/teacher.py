"""The teacher: stores its distribution of each frame of an utterance as top-k labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import audio_bytes, decode, resample, set_column
from gristmill.actors.speech.features import ragged, rows_of
from gristmill.actors.speech.teacher_source import Precision, TeacherInfo, TeacherModel
from gristmill.models.speech import topk
from gristmill.models.speech.decode import collapse
from gristmill.models.speech.features import METADATA_KEY as FEATURES_KEY
from gristmill.models.speech.features import FeatureSettings, log_mel
from gristmill.shards.errors import UserError
from gristmill.shards.schema import TOPK_FIELDS
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits, Resources, Stage

TeacherSource = Literal["checkpoint", "huggingface", "hama"]
HYPOTHESIS_FIELDS = (pa.field("hypothesis", pa.string()), pa.field("confidence", pa.float32()))


class TeacherSettings(topk.TopKSettings):
    """The teacher, and the columns it adds."""

    source: TeacherSource
    """``checkpoint`` (of this project, an artifact), ``huggingface`` (a folder or a hub name) or ``hama``."""
    hypothesis: bool = False
    """Whether the transcript of the best path and its confidence are added."""
    precision: Precision = "auto"
    """Precision of the network; auto: float16 on a GPU, float32 on a CPU."""
    device: str = "cpu"


class Teacher(Actor):
    """Adds top-k labels, and on request the greedy transcript, to records with ``audio`` or ``features``.

    A ``features`` column with the teacher's own settings is used as is; otherwise the teacher decodes ``audio`` itself,
    while a GPU would wait. ``label_entropy`` (nats, mean per frame) is added for metrics. :func:`labelling` makes its
    stage.
    """

    name = "teacher"
    batch = BatchLimits(64, "duration", 320.0)
    settings: TeacherSettings

    def __init__(self, settings: TeacherSettings, model: str | None = None) -> None:
        super().__init__(settings)
        self.teacher = load(settings.source, model, settings.device, settings.precision)
        self.k = topk.kept(settings.k, len(self.teacher.info.units))

    @classmethod
    def contract(cls, settings: TeacherSettings) -> Mapping[str, Any]:
        """Return the columns, with or without the transcript, and the reproducibility: only a CPU is deterministic."""
        return {
            "adds": TOPK_FIELDS + (HYPOTHESIS_FIELDS if settings.hypothesis else ()),
            "measures": ("label_entropy", "confidence") if settings.hypothesis else ("label_entropy",),
            "deterministic": settings.device == "cpu",
        }

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with labels; records without frames, or without finite probabilities, are rejected."""
        inputs = self._inputs(batch)
        reasons = [self._reason(one) for one in inputs]
        rows = [row for row, reason in enumerate(reasons) if reason is None]
        labels: list[topk.TopK | None] = [None] * len(inputs)
        if rows:
            log_probs, frames = self.teacher([inputs[row] for row in rows])
            found = topk.select(log_probs, self.k, self.settings.step)
            for place, (row, count) in enumerate(zip(rows, frames, strict=True)):
                made = topk.TopK(*(part[place, :count] for part in found))
                if made.finite:
                    labels[row] = made
                else:
                    reasons[row] = "teacher gave no finite probabilities"
        for field, values in zip(TOPK_FIELDS, label_columns(labels), strict=True):
            batch = set_column(batch, field.name, values)
        known = [float(topk.entropy(one).mean()) if one is not None and len(one.tail) else None for one in labels]
        batch = set_column(batch, "label_entropy", pa.array(known, pa.float32()))
        if self.settings.hypothesis:
            texts, trust = zip(*(self._read(one) for one in labels), strict=True) if labels else ((), ())
            batch = set_column(batch, "hypothesis", pa.array(texts, pa.string()))
            batch = set_column(batch, "confidence", pa.array(trust, pa.float32()))
        if any(reasons):
            batch = set_column(batch, "reject_reason", pa.array(reasons, pa.string()))
        return batch

    def _inputs(self, batch: pa.Table) -> list[np.ndarray]:
        info = self.teacher.info
        if info.features is not None and "features" in batch.column_names:
            if _feature_settings(batch.schema) == info.features:
                return [one.reshape(-1, info.features.n_mels) for one in rows_of(batch.column("features"))]
            if "audio" not in batch.column_names:
                raise UserError("teacher: the features of this set have other settings than the teacher's")
        if "audio" not in batch.column_names:
            raise UserError(f"teacher: records have neither audio nor the teacher's features: {batch.column_names}")
        return [self._hear(data) for data in audio_bytes(batch)]

    def _hear(self, data: bytes | None) -> np.ndarray:
        samples, rate = decode(data) if data else (np.zeros(0, np.float32), self.teacher.info.sampling_rate)
        return heard(samples, rate, self.teacher.info)

    def _reason(self, one: np.ndarray) -> str | None:
        if len(one) == 0:
            return "no audio"
        return "too short for the teacher" if len(one) < self.teacher.shortest else None

    def _read(self, labels: topk.TopK | None) -> tuple[str | None, float | None]:
        if labels is None:
            return None, None
        text = self.teacher.info.units.decode(collapse(labels.ids[:, 0]))
        return text, topk.confidence(labels.logprobs[:, 0])


def heard(samples: np.ndarray, rate: int, info: TeacherInfo) -> np.ndarray:
    """Return a teacher's input for samples (n,) at ``rate`` Hz: samples at its rate, or features (frames, n_mels)."""
    samples = resample(samples, rate, info.sampling_rate) if len(samples) else samples
    if info.features is None:
        return samples
    return log_mel(samples, info.features) if len(samples) else np.zeros((0, info.features.n_mels), np.float16)


def load(
    source: TeacherSource, model: str | None = None, device: str = "cpu", precision: Precision = "auto"
) -> TeacherModel:
    """Load a teacher of one of the three sources."""
    if source == "hama":
        from gristmill.actors.speech.teacher_hama import Hama

        return Hama(device)
    given = _given(source, model)
    if source == "checkpoint":
        from gristmill.actors.speech.teacher_checkpoint import Checkpoint

        return Checkpoint(given, device, precision)
    from gristmill.actors.speech.teacher_huggingface import HuggingFace

    return HuggingFace(given, device, precision)


def describe(source: TeacherSource, model: str | None = None) -> TeacherInfo:
    """Return the description of a teacher without running it: units, frame rate, feature settings, digest."""
    if source == "hama":
        from gristmill.actors.speech import teacher_hama

        return teacher_hama.describe()
    given = _given(source, model)
    if source == "checkpoint":
        from gristmill.actors.speech import teacher_checkpoint

        return teacher_checkpoint.describe(given)
    from gristmill.actors.speech import teacher_huggingface

    return teacher_huggingface.describe(given)


def _given(source: str, model: str | None) -> str:
    if not model:
        raise UserError(f"teacher.model: a teacher of source {source!r} needs the location of its model")
    return model


def labelling(
    settings: TeacherSettings,
    model: ArtifactRef | str | None = None,
    *,
    name: str | None = None,
    resources: Resources | None = None,
) -> Stage:
    """Return the stage that labels records by a teacher; its ``model`` is read for the description of the labels.

    With ``resources.gpus`` it runs on a GPU in half precision, and is then compared within a tolerance instead of by
    digest.
    """
    resources = resources or Resources()
    info, ref = reference(settings.source, model)
    settings = settings.but(device="cuda" if resources.gpus else "cpu")
    stage = Teacher.stage(settings, name=name, resources=resources, model=ref)
    return replace(stage, metadata={topk.METADATA_KEY: info.labels(settings.k, settings.step).to_json()})


def reference(source: TeacherSource, model: ArtifactRef | str | None) -> tuple[TeacherInfo, ArtifactRef | None]:
    """Return a teacher's description, and the reference to its model by which stages use it.

    Fingerprints cover the teacher's content, not its location: the digest of an artifact, or that of a checkpoint.
    """
    place = model.url if isinstance(model, ArtifactRef) else model
    if source == "huggingface":
        from gristmill.actors.speech.teacher_huggingface import pinned

        place = pinned(_given(source, place))
    info = describe(source, place)
    if isinstance(model, ArtifactRef):
        return replace(info, digest=model.digest), model
    return info, ArtifactRef(place, info.digest) if place and source != "hama" else None


def _feature_settings(schema: pa.Schema) -> FeatureSettings | None:
    text = (schema.metadata or {}).get(FEATURES_KEY.encode())
    return None if text is None else FeatureSettings.from_json(text.decode())


def label_columns(labels: Sequence[topk.TopK | None]) -> list[pa.Array]:
    """Return the columns of TOPK_FIELDS; a record without labels has empty lists and no frames."""
    frames = np.array([0 if one is None else len(one.tail) for one in labels], dtype=np.int32)
    out: list[pa.Array] = []
    for number, field in enumerate(TOPK_FIELDS[:-1]):
        kind = field.type.value_type
        none = np.zeros(0, kind.to_pandas_dtype())
        out.append(ragged([none if one is None else one[number].ravel() for one in labels], kind))
    return [*out, pa.array(frames)]
