"""Bytes per frame of the top-k store, against dense float32 and plain zstd float16 top-k, with the errors.

    python -m benchmarks.topk_store [--utterances 120] [--k 20]

The posteriors are those of the phoneme teacher ``hama`` on real speech (``$GRISTMILL_DATA`` or ``../shared/data``), or
on synthesised spoken requests if there is none. Goal: 45 bytes per frame at k = 20.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path

from gristmill.actors.audio import decode, resample
from gristmill.actors.speech.synthesise import Hibari
from gristmill.actors.speech.teacher import label_columns, load
from gristmill.actors.speech.voices import Voice
from gristmill.models.speech.topk import TopK, select
from gristmill.shards.parquet import encode_table
from gristmill.shards.schema import TOPK_FIELDS

import numpy as np
import pyarrow as pa
import torch

WORDS = ("turn", "play", "music", "light", "kitchen", "weather", "tomorrow", "morning", "river", "timer", "seven")
CORPORA = ("librispeech-unlabelled", "kathleen")


def real_speech(count: int) -> Iterator[np.ndarray]:
    place = os.environ.get("GRISTMILL_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    for corpus in CORPORA:
        manifest = Path(place) / "speech" / corpus / "manifest.jsonl"
        if manifest.is_file():
            for line in manifest.read_text().splitlines()[: count // len(CORPORA)]:
                samples, rate = decode((manifest.parent / json.loads(line)["audio_filepath"]).read_bytes())
                yield resample(samples, rate, 16000)


def synthetic_speech(count: int) -> Iterator[np.ndarray]:
    speaker = Hibari()
    rng = np.random.default_rng(0)
    for number in range(count):
        words = " ".join(rng.choice(WORDS, 8))
        spoken = speaker.speak(words, Voice("hibari", "heart"), 1.0, 0.0, 1.0, number)
        yield resample(spoken, speaker.rate, 16000)


def columns(labels: list[TopK]) -> pa.Table:
    return pa.table(dict(zip((f.name for f in TOPK_FIELDS), label_columns(labels), strict=True)))


def divergence(exact: np.ndarray, labels: list[TopK], temperature: float) -> float:
    """Return the mean KL divergence, in nats per frame, of the stored k values from the exact ones, both tempered and
    normalised."""
    ids = np.concatenate([one.ids for one in labels]).astype(int)
    p = tempered(np.take_along_axis(exact, ids, 1).astype(float), temperature)
    q = tempered(np.concatenate([one.logprobs for one in labels]).astype(float), temperature)
    return float((np.exp(p) * (p - q)).sum(1).mean())


def tempered(values: np.ndarray, temperature: float) -> np.ndarray:
    values = values / temperature
    return values - np.log(np.exp(values).sum(1, keepdims=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=120)
    parser.add_argument("--k", type=int, default=20)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load("hama")
    sounds, source = list(real_speech(given.utterances)), "real speech"
    if not sounds:
        sounds, source = list(synthetic_speech(given.utterances)), "synthetic speech"
    posteriors = [model([one])[0][0] for one in sounds]
    exact = torch.cat(posteriors).numpy()
    frames, size = exact.shape
    print(f"{len(sounds)} utterances of {source}, {frames} frames, {size} units, k = {given.k}")

    plain = [select(one, given.k) for one in posteriors]
    codec = pa.Codec("zstd", compression_level=3)
    raw = b"".join(part.tobytes() for number in range(3) for part in (one[number] for one in plain))
    dense, zstd = size * 4.0, len(codec.compress(raw)) / frames
    print(f"dense float32            {dense:8.2f} B per frame")
    print(f"raw top-k                {len(raw) / frames:8.2f} B per frame")
    print(f"zstd float16 top-k       {zstd:8.2f} B per frame")
    for step in (0.0, 1 / 64, 1 / 32, 1 / 16):
        labels = [select(one, given.k, step) for one in posteriors] if step else plain
        size_now = len(encode_table(columns(labels))) / frames
        ids = np.concatenate([one.ids for one in labels]).astype(int)
        stored = np.concatenate([one.logprobs for one in labels]).astype(float)
        error = np.abs(np.exp(stored) - np.exp(np.take_along_axis(exact, ids, 1).astype(float)))
        kl = ", ".join(f"{divergence(exact, labels, t):.1e}" for t in (1, 2, 4))
        name = f"ours, grid {step:g} nat" if step else "ours, float16 (default)"
        print(
            f"{name:24} {size_now:8.2f} B per frame: {dense / size_now:.1f} times less than dense, "
            f"{zstd / size_now:.2f} times less than zstd; error of a probability mean {error.mean():.1e} "
            f"max {error.max():.1e}; KL at T = 1, 2, 4: {kl} nat"
        )
    tail = np.concatenate([np.exp(one.tail.astype(float)) for one in plain])
    print(f"mass dropped by top-{given.k}: mean {tail.mean():.1e}, 99th percentile {np.quantile(tail, 0.99):.1e}")
    parts = {name: len(encode_table(columns(plain).select([name]))) / frames for name in columns(plain).column_names}
    print("by column: " + ", ".join(f"{name} {part:.2f} B" for name, part in parts.items()))


if __name__ == "__main__":
    main()
