"""The actor that computes log-mel features of audio."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import audio_bytes, decode, resample, set_column
from gristmill.models.speech.features import METADATA_KEY, FeatureSettings, log_mel
from gristmill.shards.schema import FEATURE_FIELDS
from gristmill.shards.stage import Actor


class LogMel(Actor):
    """Adds ``features`` (frames x n_mels, row-major float16) and ``feature_frames``; drops ``audio``."""

    name = "features"
    adds = FEATURE_FIELDS
    drops = ("audio",)
    settings: FeatureSettings

    @classmethod
    def contract(cls, settings: FeatureSettings) -> Mapping[str, Any]:
        """Return the settings as schema metadata, stored with the features."""
        return {"metadata": {METADATA_KEY: settings.to_json()}}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with features in place of audio, each utterance computed independently."""
        made, reasons = [], []
        for data in audio_bytes(batch):
            features, reason = np.zeros((0, self.settings.n_mels), np.float16), None
            if data is None:
                reason = "no audio"
            else:
                samples, rate = decode(data)
                if len(samples) == 0:
                    reason = "empty audio"
                elif not np.isfinite(samples).all():
                    reason = "audio with values that are not finite"
                else:
                    features = log_mel(resample(samples, rate, self.settings.sampling_rate), self.settings)
            made.append(features)
            reasons.append(reason)
        batch = batch.drop_columns(["audio"])
        batch = set_column(batch, "features", ragged([m.ravel() for m in made], pa.float16()))
        batch = set_column(batch, "feature_frames", pa.array([len(m) for m in made], pa.int32()))
        if any(reasons):
            batch = set_column(batch, "reject_reason", pa.array(reasons, pa.string()))
        return batch


def ragged(rows: list[np.ndarray], kind: pa.DataType) -> pa.LargeListArray:
    """Return a large-list column of one flat array per row, without a Python object per value."""
    offsets = np.concatenate([[0], np.cumsum([len(row) for row in rows], dtype=np.int64)]).astype(np.int64)
    values = np.concatenate(rows) if rows else np.zeros(0, kind.to_pandas_dtype())
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(values, kind))


def rows_of(column: pa.ChunkedArray) -> list[np.ndarray]:
    """Return one flat array per row of a large-list column, as views of its buffer."""
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    values, offsets = column.values.to_numpy(), column.offsets.to_numpy()
    return [values[a:b] for a, b in itertools.pairwise(offsets)]
