"""Audio as its writers write it: by FFmpeg into files and pipes, of any kind that it encodes."""

from __future__ import annotations

import io
from typing import Any

import av
import numpy as np


class Pipe(io.RawIOBase):
    """What a writer cannot go back in: lengths in its header stay unknown."""

    def __init__(self) -> None:
        self.data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.data += bytes(data)
        return len(data)

    def getvalue(self) -> bytes:
        return bytes(self.data)


class _WriteOnly:
    """PyAV takes what has ``seek`` for a file."""

    def __init__(self, pipe: Pipe) -> None:
        self.write = pipe.write


def tone(seconds: float = 1.0, rate: int = 16000) -> np.ndarray:
    """A tone that grows, so that places in it can be told apart."""
    places = np.arange(round(seconds * rate))
    return (0.3 * (0.2 + 0.8 * places / max(1, len(places))) * np.sin(places * 2 * np.pi * 440 / rate)).astype(
        np.float32
    )


def encoded(
    container: str,
    codec: str,
    seconds: float = 1.0,
    rate: int = 16000,
    channels: int = 1,
    pipe: bool = False,
    samples: np.ndarray | None = None,
    **how: Any,
) -> bytes:
    """Return samples, or a tone, as a file of a ``container`` with a ``codec``, with options of the container.

    ``samples``: (n,), which is in all channels, or (channels, n).
    """
    out = Pipe() if pipe else io.BytesIO()
    place: Any = _WriteOnly(out) if isinstance(out, Pipe) else out
    samples = tone(seconds, rate) if samples is None else samples
    samples = np.repeat(samples[None], channels, axis=0) if samples.ndim == 1 else samples
    with av.open(place, "w", format=container, options={key: str(value) for key, value in how.items()}) as box:
        stream = box.add_stream(codec, rate=rate, layout="mono" if channels == 1 else "stereo")
        if codec.startswith("wma"):
            stream.bit_rate = 64000
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=stream.layout.name)
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=rate)
        size = stream.codec_context.frame_size or 1024
        fifo = av.AudioFifo()
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            part.pts = None
            fifo.write(part)
        at = 0
        while (part := fifo.read(size, partial=True)) is not None:
            part.pts, at = at, at + part.samples
            box.mux(stream.encode(part))
        box.mux(stream.encode(None))
    return out.getvalue()
