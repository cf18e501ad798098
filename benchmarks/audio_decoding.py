"""Speed of decoding: recordings read as the loader reads them, beside libsndfile or FFmpeg alone.

    python -m benchmarks.audio_decoding [--seconds 10] [--turns 15]

Each recording is found out (what is it, does its header prove its length), decoded and averaged over its channels. The
peers decode it and do nothing else: ``soundfile`` what it reads right, PyAV (FFmpeg) the rest. All turns alternate;
seconds are of this process's CPU. Printed as JSON lines: times real time, and the peer's seconds by ours (the median of
the turns, with the least and the largest): at least 0.95 is the claim for WAV, FLAC and Ogg.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable

from gristmill.actors.sources.decoders import open_sound

import av
import numpy as np
import soundfile

from tests.actors.sources.encode import encoded

RATE = 16000


def by_libsndfile(data: bytes) -> np.ndarray:
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        return sound.read(sound.frames, dtype="float32", always_2d=True).mean(axis=1, dtype=np.float32)


def by_ffmpeg(data: bytes) -> np.ndarray:
    with av.open(io.BytesIO(data)) as box:
        parts = [frame.to_ndarray() for frame in box.decode(audio=0)]
    return np.concatenate(parts, axis=1).mean(axis=0, dtype=np.float32)


def by_gristmill(data: bytes) -> np.ndarray:
    return open_sound(io.BytesIO(data), len(data)).read()


def speech_like(seconds: float) -> np.ndarray:
    rng = np.random.default_rng(0)
    t = np.arange(round(RATE * seconds)) / RATE
    voice = sum(np.sin(2 * np.pi * k * 130 * t) / k for k in range(1, 12))
    envelope = np.clip(np.sin(2 * np.pi * 2.5 * t), 0.05, None)
    return (0.2 * envelope * voice + 0.003 * rng.standard_normal(len(t))).astype(np.float32)


def recordings(seconds: float) -> dict[str, tuple[bytes, Callable[[bytes], np.ndarray]]]:
    def written(kind: str, subtype: str) -> bytes:
        out = io.BytesIO()
        soundfile.write(out, speech_like(seconds), RATE, format=kind, subtype=subtype)
        return out.getvalue()

    return {
        "wav": (written("WAV", "PCM_16"), by_libsndfile),
        "flac": (written("FLAC", "PCM_16"), by_libsndfile),
        "ogg, Vorbis": (written("OGG", "VORBIS"), by_libsndfile),
        "ogg, Opus": (written("OGG", "OPUS"), by_libsndfile),
        "mp3": (written("MP3", "MPEG_LAYER_III"), by_libsndfile),
        "mp3, from a pipe": (encoded("mp3", "libmp3lame", seconds, pipe=True), by_ffmpeg),
        "flac, from a pipe": (encoded("flac", "flac", seconds, pipe=True), by_ffmpeg),
        "m4a": (encoded("ipod", "aac", seconds), by_ffmpeg),
    }


def spent(decode: Callable[[bytes], np.ndarray], data: bytes, times: int) -> float:
    begin = time.process_time()
    for _ in range(times):
        decode(data)
    return time.process_time() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the recordings")
    parser.add_argument("--turns", type=int, default=15)
    given = parser.parse_args()
    for name, (data, peer) in recordings(given.seconds).items():
        times = max(1, round(0.1 / max(1e-4, spent(peer, data, 1))))
        pairs = [(spent(peer, data, times), spent(by_gristmill, data, times)) for _ in range(given.turns)]
        ratios = sorted(theirs / ours for theirs, ours in pairs)
        real_time = given.seconds * times / statistics.median(ours for _, ours in pairs)
        found = {"recording": name, "peer": peer.__name__[3:], "times_real_time": round(real_time)}
        low, middle, high = (round(value, 3) for value in (ratios[0], statistics.median(ratios), ratios[-1]))
        print(json.dumps({**found, "ratio": middle, "low": low, "high": high}), flush=True)


if __name__ == "__main__":
    main()
