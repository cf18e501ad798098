"""Audio of records: decoding to float samples and encoding. Mono, float32, in [-1, 1]."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import soundfile
from pydantic import Field

from gristmill.shards.schema import AUDIO
from gristmill.shards.settings import Settings


class RateSettings(Settings):
    """The sampling rate of a corpus."""

    sampling_rate: int = Field(16000, ge=8000, le=48000)
    """Hz; audio at another rate is resampled."""


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Return (samples, sampling rate in Hz) of encoded audio; channels are averaged to one.

    Audio that cannot be decoded raises :class:`ValueError`.

    Example:
        >>> samples, rate = decode(encode(np.array([0.0, 0.5, -0.5], np.float32), 16000))
        >>> samples.round(2).tolist(), rate
        ([0.0, 0.5, -0.5], 16000)
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        # The original message contains a memory address; errors are counted by their message.
        raise ValueError("audio cannot be decoded") from error
    return samples.mean(axis=1, dtype=np.float32), int(rate)


def resample(samples: np.ndarray, rate: int, target: int) -> np.ndarray:
    """Return samples (n,) at ``target`` Hz, by soxr's high-quality band-limited interpolation."""
    if rate == target:
        return samples
    import soxr

    return soxr.resample(samples, rate, target, quality="HQ").astype(np.float32, copy=False)


def encode(samples: np.ndarray, rate: int) -> bytes:
    """Return samples (n,) as 16-bit FLAC; the caller keeps them within [-1, 1]."""
    out = io.BytesIO()
    pcm = np.clip(np.rint(samples * 32767.0), -32768, 32767).astype(np.int16)
    soundfile.write(out, pcm, rate, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def audio_array(encoded: Sequence[bytes | None]) -> pa.StructArray:
    """Return an ``audio`` column of encoded bytes, without paths."""
    paths = pa.nulls(len(encoded), pa.string())
    return pa.StructArray.from_arrays([pa.array(encoded, pa.binary()), paths], fields=list(AUDIO))


def audio_bytes(batch: pa.Table) -> list[bytes | None]:
    """Return the encoded bytes of a batch's ``audio`` column."""
    return batch.column("audio").combine_chunks().field("bytes").to_pylist()


def set_column(batch: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Return the batch with one column set, appended if it is new."""
    place = batch.schema.get_field_index(name)
    field = pa.field(name, values.type)
    return batch.append_column(field, values) if place < 0 else batch.set_column(place, field, values)
