"""Utterances found in a long recording whose speech is known: prompts joined with pauses, in noise.

    python -m benchmarks.segmentation PROMPTS NOISE [--hours 2] [--snr 20 15 10 5] [--method silero energy package]

``PROMPTS`` is a folder of utterances, of which the silence at both ends is cut off by their own level; ``NOISE`` is a
recording that is repeated. They are joined with pauses of 0.7 to 3 s and written as one FLAC, which the stage reads as
in a run; defaults were chosen with every second prompt (``--half tuning``), figures are of the others. Printed as JSON
lines, for each ratio and method: the share of the boundaries of utterances that are found within 0.3 s, the share of
speech lost, utterances given and found, and times real time of one process. The method ``package`` is Silero's own
``get_speech_timestamps`` on the same samples, with its defaults.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from gristmill.actors.audio import resample
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings
from gristmill.actors.speech.segment import Segment, SegmentSettings, plan_ranges
from gristmill.models.speech.mixing import active_level, power_level
from gristmill.shards.process import prepare

import numpy as np
import pyarrow as pa
import soundfile

RATE, NEAR = 16000, 0.3
Bounds = list[tuple[float, float]]


def trimmed(path: Path) -> np.ndarray:
    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    samples = resample(samples.mean(axis=1), rate, RATE)
    frames = samples[: len(samples) // 160 * 160].reshape(-1, 160)
    loud = np.flatnonzero(np.sqrt((frames**2).mean(axis=1)) > 0.02 * np.abs(samples).max())
    return samples[loud[0] * 160 : (loud[-1] + 1) * 160]


def joined(utterances: list[np.ndarray], noise: Path, hours: float, snr: float, out: Path) -> tuple[Bounds, list[int]]:
    """Write the recording, utterance by utterance; return their bounds, s, and which they are."""
    rng = np.random.default_rng(0)
    background, rate = soundfile.read(noise, dtype="float32", always_2d=True)
    background = resample(background.mean(axis=1), rate, RATE)
    level = float(np.median([active_level(samples, RATE) for samples in utterances]))
    background = background * 10 ** ((level - snr - power_level(background)) / 20)
    bounds: Bounds = []
    which: list[int] = []
    place = 0
    with soundfile.SoundFile(out, "w", RATE, 1, "PCM_16", format="FLAC") as sound:
        while place < hours * 3600 * RATE:
            pause = np.zeros(round(rng.uniform(0.7, 3.0) * RATE), np.float32)
            which.append(int(rng.integers(len(utterances))))
            speech = utterances[which[-1]]
            start = place + len(pause)
            part = np.concatenate([pause, speech])
            part += np.take(background, np.arange(place, place + len(part)), mode="wrap")
            sound.write(part.clip(-1, 1))
            place += len(part)
            bounds.append((start / RATE, place / RATE))
    return bounds, which


def compared(given: Bounds, found: Bounds) -> dict[str, float]:
    edges = [np.sort([pair[side] for pair in found]) for side in (0, 1)]
    near = [np.abs(edges[side] - pair[side]).min() <= NEAR for pair in given for side in (0, 1)] if found else [False]
    grid = 0.01
    end = max(pair[1] for pair in [*given, *found])
    marks = np.zeros((2, int(end / grid) + 2), bool)
    for row, pairs in enumerate((given, found)):
        for start, stop in pairs:
            marks[row, round(start / grid) : round(stop / grid)] = True
    lost = float((marks[0] & ~marks[1]).sum() / marks[0].sum())
    return {"boundaries_within_0.3_s": round(float(np.mean(near)), 4), "speech_lost": round(lost, 5)}


def by_stage(path: Path, settings: SegmentSettings) -> Bounds:
    table = pa.concat_tables(list_sources(str(path.parent)))
    ranges = plan_ranges(Probe(ProbeSettings(max_duration=1e6))(table).drop_columns("reject_reason"))
    actor = Segment(settings)
    rows = pa.concat_tables(actor(ranges.slice(part, 1)) for part in range(len(ranges))).to_pylist()
    return [(row["start"], row["start"] + row["length"]) for row in rows if row["reject_reason"] is None]


def by_package(path: Path) -> Bounds:
    import silero_vad
    import torch

    samples = torch.from_numpy(soundfile.read(path, dtype="float32")[0])
    stamps = silero_vad.get_speech_timestamps(samples, silero_vad.load_silero_vad(), sampling_rate=RATE)
    return [(stamp["start"] / RATE, stamp["end"] / RATE) for stamp in stamps]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--snr", type=float, nargs="+", default=[20, 15, 10, 5], help="dB, active speech over noise")
    parser.add_argument("--method", nargs="+", default=["silero", "energy", "package"])
    parser.add_argument("--half", default="final", choices=("tuning", "final"), help="of the prompts")
    parser.add_argument("--set", type=json.loads, default={}, help="settings of the stage, as JSON")
    given = parser.parse_args()
    prepare()  # one thread, as in a worker
    paths = sorted(given.prompts.glob("*.flac"))[("tuning", "final").index(given.half) :: 2]
    utterances = [trimmed(path) for path in paths]
    for snr in given.snr:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "long.flac")
            bounds, _ = joined(utterances, given.noise, given.hours, snr, path)
            for method in given.method:
                begin = time.process_time()
                if method == "package":
                    found = by_package(path)
                else:
                    found = by_stage(path, SegmentSettings(method=method, **given.set))
                faster = round(given.hours * 3600 / (time.process_time() - begin))
                result = {"method": method, "hours": given.hours, "snr": snr, **compared(bounds, found)}
                result |= {"given": len(bounds), "found": len(found), "times_real_time": faster}
                print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
