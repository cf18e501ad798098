"""Memory while a recording of hours is cut into utterances and these are loaded: FLAC, WAV, mp3 without a header.

    python -m benchmarks.long_recordings PROMPTS NOISE [--hours 6] [--method energy] [--formats flac ...]

Ten minutes of prompts with pauses and noise (as in ``segmentation.py``) are repeated to the length; mp3 is repeated
frame by frame, as from a pipe, so that only decoding tells its length. Each format is probed, cut range by range, and
its utterances loaded in batches, by one process of its own. Printed as JSON lines: its peak (MB) after the first
two ranges, which have all that is loaded once, and by how much it grew until the end (goal: 100 MB), the number of
utterances, and the times real time of all of it. Each set of utterances is also found in the opposite order of ranges,
the order of a worker that gets others' (the first two hours of it): their audio's digest must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.actors.speech.segment import Segment, SegmentSettings, plan_ranges
from gristmill.shards.process import prepare

import pyarrow as pa
import pyarrow.compute as pc
import soundfile

from benchmarks.driver_memory import peak
from benchmarks.segmentation import RATE, joined, trimmed
from tests.actors.sources.encode import encoded

BATCH = 64


def write(prompts: Path, noise: Path, hours: float, kind: str, out: Path) -> None:
    utterances = [trimmed(path) for path in sorted(prompts.glob("*.flac"))[::8]]
    short = out.with_suffix(".short.flac")
    joined(utterances, noise, 1 / 6, 15.0, short)
    samples, _ = soundfile.read(short, dtype="float32")
    short.unlink()
    times = round(hours * 3600 * RATE / len(samples))
    if kind == "mp3":
        data = encoded("mp3", "libmp3lame", samples=samples, pipe=True)
        with out.open("wb") as file:
            for _ in range(times):
                file.write(data)
    else:
        with soundfile.SoundFile(out, "w", RATE, 1, "PCM_16", format=kind.upper()) as sound:
            for _ in range(times):
                sound.write(samples)


def utterances_of(ranges: pa.Table, segment: Segment, load: Load) -> tuple[int, str]:
    """Cut and load some ranges; return the number of utterances and the digest of their ids and audio."""
    digest, number = hashlib.sha256(), 0
    found = segment(ranges)
    found = found.filter(pc.is_null(found["reject_reason"])).drop_columns("reject_reason")
    for start in range(0, len(found), BATCH):
        for row in load(found.slice(start, BATCH)).to_pylist():
            digest.update(row["id"].encode() + (row["audio"]["bytes"] or b""))
            number += 1
    return number, digest.hexdigest()


def one(path: Path, method: str) -> None:
    prepare()  # one thread, as in a worker
    begin = time.process_time()
    table = pa.concat_tables(list_sources(str(path.parent)))
    ranges = plan_ranges(Probe(ProbeSettings(max_duration=1e6))(table).drop_columns("reject_reason"))
    actors = Segment(SegmentSettings(method=method)), Load(LoadSettings(annotated=False))
    made, base = [], 0.0
    for part in range(len(ranges)):
        made.append(utterances_of(ranges.slice(part, 1), *actors))
        base = peak() if part == 1 else base
    spent, grown = time.process_time() - begin, peak() - base
    hours = sum(ranges["duration"].to_pylist()) / 3600
    result = {"format": path.suffix[1:], "hours": round(hours, 2), "method": method, "base_mb": round(base)}
    result |= {"grown_mb": round(grown), "utterances": sum(number for number, _ in made)}
    few = range(min(len(ranges), 12))
    again = {part: utterances_of(ranges.slice(part, 1), *actors) for part in reversed(few)}
    result |= {"equal": [again[part] for part in few] == made[: len(few)]}
    print(json.dumps(result | {"times_real_time": round(hours * 3600 / spent)}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--hours", type=float, default=6.0)
    parser.add_argument("--method", default="energy", choices=("silero", "energy"))
    parser.add_argument("--formats", nargs="+", default=["flac", "wav", "mp3"])
    given = parser.parse_args()
    for kind in given.formats:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, f"long.{kind}")
            write(given.prompts, given.noise, given.hours, kind, path)
            subprocess.run([sys.executable, __file__, "--one", str(path), given.method], check=True)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        one(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
