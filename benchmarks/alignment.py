"""Utterances of a long recording whose text is known as a whole: prompts joined with pauses, in noise.

    python -m benchmarks.alignment PROMPTS NOISE [--hours 2] [--snr 15] [--teacher FOLDER]

``PROMPTS`` is a folder of utterances with a manifest, ``NOISE`` a recording that is repeated. A CTC teacher is trained
as in ``configs/distill.yaml`` on every other prompt, or is given as a folder; the others are joined with pauses of 0.7
to 3 s and written as one FLAC, beside it their texts as one line. The stage aligns them as in a run. Printed as a JSON
line: the share of utterances whose text is right, that of those whose two bounds are within 0.3 s too (of the speech
without the silence around it), how many of the latter are kept, and the number of others that are; the same for a
baseline, the text dealt out over the utterances of ``corpus.segment=silero`` by their lengths; times real time of one
process, and by how many MB its memory grew meanwhile. ``--spoilt 0.1`` leaves out, replaces and adds as many sentences
each.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.align import UNSURE, Align, AlignerSettings
from gristmill.actors.speech.features import LogMel
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.actors.speech.segment import Segment, SegmentSettings, plan_ranges
from gristmill.cluster.inprocess import InProcessRunner
from gristmill.models.speech.units import normalise
from gristmill.pipelines.config import load
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.spelling import fitted_units
from gristmill.pipelines.speech.systems import Data, Systems
from gristmill.shards.process import prepare
from gristmill.shards.step import Step

import numpy as np
import pyarrow as pa

from benchmarks.segmentation import Bounds, joined, trimmed

NEAR = 0.3
CONFIG = Path(__file__).parents[1] / "configs" / "distill.yaml"


def trained(prompts: Path, lines: Sequence[dict[str, Any]], out: Path) -> str:
    """Return the folder of a teacher that is trained on prompts as the recipe trains its own."""
    manifest = out / "train.jsonl"
    entries = [line | {"audio_filepath": str((prompts / line["audio_filepath"]).resolve())} for line in lines]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    config = load(str(CONFIG)).config
    run = Run(str(out / "teacher"), InProcessRunner())
    pointers = run.table("listing", pa.concat_tables(list_sources(str(manifest))))
    rate = config.corpus.sampling_rate
    stages = (Probe.stage(), Load.stage(LoadSettings(sampling_rate=rate)), LogMel.stage(config.features.at(rate)))
    features = run.step(Step("features", stages, pointers, cut=config.corpus.shard))
    units = fitted_units(run, config.units, features)
    job = Systems(config.systems, units, 0).teacher(Data(features, features, features))
    return run.train(job).url


def spoilt(texts: Sequence[str], share: float) -> tuple[str, list[bool]]:
    """Return the text of the recording, and which utterances are still in it as they are spoken."""
    rng = np.random.default_rng(1)
    out, same = [], []
    for text in texts:
        what, other = rng.random(), str(rng.choice(texts))
        same.append(what >= 2 * share)
        out += [[], [other], [text, other], [text]][min(int(what / share), 3) if share else 3]
    return " ".join(out), same


def dealt(text: str, segments: Bounds) -> Iterator[tuple[float, float, str]]:
    """Yield the segments with the words of a text, dealt out by their lengths."""
    words = text.split()
    ends = np.cumsum([stop - start for start, stop in segments])
    places = np.concatenate([[0], np.round(ends / ends[-1] * len(words)).astype(int)])
    for number, (start, stop) in enumerate(segments):
        yield start, stop, " ".join(words[places[number] : places[number + 1]])


def compared(
    bounds: Bounds, texts: Sequence[str], same: Sequence[bool], found: list[tuple[float, float, str, bool]]
) -> dict[str, Any]:
    """Return the shares of utterances that are right, among those that the text has."""
    known = {}
    for number, (_, _, text, _) in enumerate(found):
        known.setdefault(normalise(text), []).append(number)
    named, right, kept = set(), set(), 0
    for (start, stop), text, is_same in zip(bounds, texts, same, strict=True):
        for number in known.get(normalise(text), []) if is_same else []:
            low, high, _, is_kept = found[number]
            if number not in named and low < stop and start < high:
                named.add(number)
                if abs(low - start) <= NEAR and abs(high - stop) <= NEAR:
                    right.add(number)
                    kept += is_kept
                break
    wrong = sum(is_kept for number, (*_, is_kept) in enumerate(found) if number not in named)
    shares = {"text_right": len(named), "right": len(right), "right_and_kept": kept}
    return {name: round(count / sum(same), 4) for name, count in shares.items()} | {"other_kept": wrong}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--snr", type=float, default=15.0, help="dB, active speech level over the noise")
    parser.add_argument("--teacher", help="folder of a teacher's model.safetensors, trained on every other prompt")
    parser.add_argument("--spoilt", type=float, default=0.0)
    given = parser.parse_args()
    prepare()  # one thread, as in a worker
    lines = [json.loads(line) for line in (given.prompts / "manifest.jsonl").read_text().splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        teacher = given.teacher or trained(given.prompts, lines[::2], out)
        (out / "corpus").mkdir()
        utterances = [trimmed(given.prompts / line["audio_filepath"]) for line in lines[1::2]]
        bounds, which = joined(utterances, given.noise, given.hours, given.snr, out / "corpus" / "long.flac")
        texts = [lines[1::2][number]["text"] for number in which]
        text, same = spoilt(texts, given.spoilt)
        (out / "corpus" / "long.txt").write_text(text)
        table = pa.concat_tables(list_sources(str(out / "corpus")))
        probed = Probe(ProbeSettings(max_duration=1e6))(table).drop_columns("reject_reason")
        align = Align(AlignerSettings(), teacher)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.process_time()
        rows = align(probed).to_pylist()
        spent = time.process_time() - begin
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        cut = Segment(SegmentSettings())(plan_ranges(probed)).to_pylist()
    placed = [row for row in rows if row["reject_reason"] in (None, UNSURE)]
    found = [(r["start"], r["start"] + r["length"], r["text"], r["reject_reason"] is None) for r in placed]
    segments = [(row["start"], row["start"] + row["length"]) for row in cut if row["reject_reason"] is None]
    baseline = [(*one, True) for one in dealt(text, segments)]
    result = {"hours": given.hours, "snr": given.snr, "spoilt": given.spoilt, "given": len(bounds)}
    result |= compared(bounds, texts, same, found) | {"baseline": compared(bounds, texts, same, baseline)}
    reasons = {one: sum(row["reject_reason"] == one for row in rows) for one in {row["reject_reason"] for row in rows}}
    result["rejects"] = {one: number for one, number in sorted(reasons.items(), key=str) if one}
    print(json.dumps(result | {"times_real_time": round(given.hours * 3600 / spent), "grown_mb": round(grown, 1)}))


if __name__ == "__main__":
    main()
