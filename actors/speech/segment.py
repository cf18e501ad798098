"""Long recordings are cut into utterances: ranges of a recording, and the speech that a detector finds in each.

A range is a unit of work of ten minutes: its utterances depend on the recording only, not on who cuts its neighbours.
Probabilities of speech are computed for blocks on a fixed grid, each with two seconds before it and nothing else; and
ranges meet at the quietest place near their border, which both find in the same blocks. Audio is read by the block, so
that memory does not grow with a recording. A recording stays open from range to range, which in their order are read on
from where the last one ended: what cannot seek is decoded once by each worker.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pydantic import Field
from safetensors.torch import load

from gristmill.actors.audio import resample
from gristmill.actors.sources.pointers import NO_SPEECH
from gristmill.actors.sources.sounds import Sound
from gristmill.actors.speech.ingest import Recordings, order_of, place_of
from gristmill.models.speech.vad import (
    FRAME,
    FRAME_S,
    RATE,
    SileroVAD,
    UtteranceSettings,
    energy_probabilities,
    find_utterances,
    quietest,
)
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.schema import PARENT_ID, REJECT_REASON
from gristmill.shards.stage import Actor, BatchLimits

BLOCK, _WARM_UP = 1024, 64  # frames
_RANGE = 18  # blocks: 9.8 minutes
_SEAM = 512  # frames around a border in which ranges may meet
_WEIGHTS = "data/silero_vad_16k.safetensors"  # in the package silero-vad

DetectSpeech = Callable[[np.ndarray], np.ndarray]  # samples (n * 512,) at 16 kHz to probabilities of speech (n,)

RANGE_FIELDS = (
    pa.field("recording", pa.string()),  # the id of the recording
    pa.field("part", pa.int32()),  # which of its ranges
    pa.field("parts", pa.int32()),  # their number
    pa.field("total", pa.float64()),  # s, of the recording, or of the segment of it that a manifest names
)
SPEECH_SHARE = pa.field("speech_share", pa.float32())  # of an utterance's frames that are speech
SEGMENT_FIELDS = (
    pa.field("recording_start", pa.float64()),  # s, where the utterance begins in its file
    SPEECH_SHARE,
)
Detector = Literal["silero", "energy"]


class SegmentSettings(UtteranceSettings):
    """How long recordings are cut into utterances."""

    method: Detector = "silero"
    """What finds speech: Silero's detector (``pip install '.[vad]'``), or levels above the noise."""
    whole: float = Field(0.0, ge=0)
    """Length of a recording up to which it is one utterance, whatever is in it, s."""


def plan_ranges(probed: pa.Table) -> pa.Table:
    """Return the ranges of probed recordings, a row each; a recording of one range keeps its id."""
    rows = []
    for row in probed.to_pylist():
        parts = max(1, round(row["duration"] / (_RANGE * BLOCK * FRAME_S)))
        for part in range(parts):
            begin, end = (min(p * _RANGE * BLOCK * FRAME_S, row["duration"]) for p in (part, part + 1))
            end = row["duration"] if part + 1 == parts else end
            name = f"{row['id']}@{part:04d}" if parts > 1 else row["id"]
            more = {"recording": row["id"], "part": part, "parts": parts, "total": row["duration"]}
            rows.append({**row, **more, "id": name, "duration": end - begin})
    return pa.Table.from_pylist(rows, schema=pa.schema([*probed.schema, *RANGE_FIELDS]))


def load_detector(method: str, setting: str = "method") -> DetectSpeech:
    """Return what gives the probability of speech of each frame (n,) of samples (n * 512,) at 16 kHz.

    ``setting`` names where the method was set.

    Raises:
        UserError: Silero's weights are not installed.
    """
    if method == "energy":
        return energy_probabilities
    package = importlib.util.find_spec("silero_vad")
    if package is None or not package.submodule_search_locations:
        raise UserError(f"{setting}=silero: silero-vad is missing; pip install '.[vad]', or {setting}=energy")
    path = Path(package.submodule_search_locations[0], _WEIGHTS)
    model = SileroVAD.of_weights(load(path.read_bytes()))
    return lambda samples: model(torch.from_numpy(samples)).numpy()


class Segment(Actor):
    """Finds the utterances in ranges of recordings: a row of each becomes a pointer for each utterance.

    Runs after :func:`plan_ranges`. A pointer's ``start`` and ``length`` are those of its utterance, which is not named
    by any manifest: it has no text.
    """

    name = "segment"
    version = 2  # energy: the floor of pauses of digital silence
    adds = (PARENT_ID, *SEGMENT_FIELDS)
    drops = ("part", "parts", "total")
    batch = BatchLimits(16)
    fan_out = True
    settings: SegmentSettings

    def __init__(self, settings: SegmentSettings) -> None:
        super().__init__(settings)
        self._detect = load_detector(settings.method)
        self._recordings = Recordings()
        self._last: tuple[tuple[Any, ...], dict[int, np.ndarray]] = (), {}  # blocks that the next range has too

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the utterances of a batch of ranges."""
        out: list[dict[str, Any]] = []
        for row in sorted(batch.to_pylist(), key=lambda row: (*order_of(row), row["part"])):
            try:
                with self._recordings.kept():
                    out.extend(self._utterances(row, self._recordings.open(row)))
            except RejectRecord as reject:
                nothing = dict.fromkeys((f.name for f in SEGMENT_FIELDS), None)
                out.append({**row, **nothing, "parent_id": row["id"], REJECT_REASON.name: reject.reason})
        order = {name: number for number, name in enumerate(batch["id"].to_pylist())}
        out.sort(key=lambda row: order[row["parent_id"]])
        kept = [f for f in batch.schema if f.name not in self.drops]
        fields = {f.name: f for f in [*kept, *self.adds, REJECT_REASON]}
        return pa.Table.from_pylist(out, schema=pa.schema(list(fields.values())))

    def _utterances(self, row: dict[str, Any], sound: Sound) -> list[dict[str, Any]]:
        base, frames = row["start"] or 0.0, math.ceil(row["total"] / FRAME_S)
        if row["total"] <= self.settings.whole:
            return [{**row, "recording_start": base, "speech_share": None, "parent_id": row["id"]}]
        first, last = row["part"] * _RANGE, (row["part"] + 1) * _RANGE  # blocks
        end = math.ceil(frames / BLOCK)
        last = end if row["part"] + 1 == row["parts"] else last
        read = range(max(0, first - 1), min(end, last + 1))
        key, known = (*place_of(row), row["version"], row["channel"], base, row["total"]), self._last[1]
        known = known if self._last[0] == key else {}
        blocks = {n: known[n] if n in known else block_speech(self._detect, sound, base, row["total"], n) for n in read}
        self._last = key, {number: blocks[number] for number in read[-2:]}
        found = np.concatenate(list(blocks.values()))
        offset = read.start * BLOCK
        found = found[: frames - offset]

        def seam(block: int) -> int:
            """Return the frame at which the ranges before and after a block meet."""
            middle = block * BLOCK - offset
            return middle - _SEAM + quietest(found[middle - _SEAM : middle + _SEAM])

        begin = 0 if row["part"] == 0 else seam(first)
        stop = len(found) if row["part"] + 1 == row["parts"] else seam(last)
        out = []
        for start, finish in find_utterances(found[begin:stop], self.settings):
            speech = found[begin + start : begin + finish] >= self.settings.threshold
            place = (offset + begin + start) * FRAME_S
            length = min((finish - start) * FRAME_S, row["total"] - place)
            name = f"{row['recording']}@{place:.3f}+{length:.3f}"
            more: Mapping[str, Any] = {"recording_start": base + place, "speech_share": float(speech.mean())}
            cut = {"start": base + place, "length": length, "duration": length}
            none = {"text": None, "declared_duration": None, "labels": None, REJECT_REASON.name: None}
            out.append({**row, **cut, **more, **none, "id": name, "parent_id": row["id"]})
        if not out:
            raise RejectRecord(NO_SPEECH)
        return out


def block_speech(detect: DetectSpeech, sound: Sound, base: float, total: float, number: int) -> np.ndarray:
    """Return the probabilities of speech in a block's frames, of ``total`` s of a sound from ``base`` s on.

    They depend on the block and the two seconds before it.
    """
    before = min(number * BLOCK, _WARM_UP)
    frames = min(BLOCK, math.ceil(total / FRAME_S) - number * BLOCK)
    zero = round(base * sound.rate)
    start = zero + round((number * BLOCK - before) * FRAME_S * sound.rate)
    after = zero + round(min((number + 1) * BLOCK * FRAME_S, total) * sound.rate)
    sound.seek(start)
    samples = resample(sound.read(after - start), sound.rate, RATE)
    wanted = (before + frames) * FRAME
    samples = np.pad(samples[:wanted], (0, max(0, wanted - len(samples))))
    return detect(samples)[before:]
