"""Audio of records: decoding to float samples and encoding. Mono, float32, in [-1, 1]."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import soundfile
from pydantic import Field

from gristmill.shards.interrupts import held
from gristmill.shards.schema import AUDIO
from gristmill.shards.settings import Settings

MOST_FRAMES = 1 << 28
"""Of audio that is decoded at once: 4.6 hours at 16 kHz, 1 GiB as samples. A few bytes of FLAC can declare more."""
# Samples of all channels that are decoded together: a thousand channels are no reason for memory. Smaller pieces would
# change the last bits of MP3.
_PIECE = 1 << 27


class RateSettings(Settings):
    """The sampling rate of a corpus."""

    sampling_rate: int = Field(16000, ge=8000, le=48000)
    """Hz; audio at another rate is resampled."""


def decode(data: bytes) -> tuple[np.ndarray, int]:
    """Return (samples, sampling rate in Hz) of encoded audio; channels are averaged to one.

    Audio that cannot be decoded, or of more than ``MOST_FRAMES``, raises :class:`ValueError`.

    Example:
        >>> samples, rate = decode(encode(np.array([0.0, 0.5, -0.5], np.float32), 16000))
        >>> samples.round(2).tolist(), rate
        ([0.0, 0.5, -0.5], 16000)
    """
    try:
        with held(), soundfile.SoundFile(io.BytesIO(data)) as sound:
            return read_mono(sound, sound.frames), int(sound.samplerate)
    except soundfile.LibsndfileError as error:
        # The original message contains a memory address; errors are counted by their message.
        raise ValueError("audio cannot be decoded") from error


def read_mono(sound: soundfile.SoundFile, count: int, channel: int | None = None) -> np.ndarray:
    """Return the next ``count`` frames of an open file (n,), or those to its end: of a channel, or their average.

    The channels are held in memory for a piece at a time. More than ``MOST_FRAMES`` raise :class:`ValueError`.
    """
    if count > MOST_FRAMES:
        raise ValueError(f"audio of more than {MOST_FRAMES} frames")
    step, parts = max(1, _PIECE // sound.channels), []
    is_one = sound.channels == 1 or channel is not None
    while count > 0:
        with held():
            part = sound.read(min(step, count), dtype="float32", always_2d=True)
        if not len(part):
            break
        parts.append(part[:, channel or 0] if is_one else part.mean(axis=1, dtype=np.float32))
        count -= len(part)
    return np.concatenate(parts) if len(parts) > 1 else parts[0] if parts else np.zeros(0, np.float32)


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
    with held():
        soundfile.write(out, pcm, rate, format="FLAC", subtype="PCM_16")
    return out.getvalue()


def encode_opus(samples: np.ndarray, rate: int) -> bytes:
    """Return samples (n,) in -1 to 1 as Opus in Ogg at 16 kHz: about 2 kB a second, lossy, for ears only."""
    out = io.BytesIO()
    low = 0.95  # of libsndfile's compression levels: about 18 kbit/s
    samples = resample(samples, rate, 16000)
    with held():
        soundfile.write(out, samples, 16000, format="OGG", subtype="OPUS", compression_level=low)
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
