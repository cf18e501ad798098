"""Long recordings with the text of the whole are cut into utterances: forced alignment by a teacher.

The teacher hears the parts with speech, as a detector finds them, and its probabilities are aligned with the text
(:mod:`gristmill.models.speech.alignment`). A recording is a unit of work. It is read twice, by the half minute and by
the part, so that memory grows with its words and with a byte for each of its frames, and no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.sources.pointers import NO_SPEECH, NO_TEXT
from gristmill.actors.sources.sounds import Sound
from gristmill.actors.speech.ingest import Recordings
from gristmill.actors.speech.segment import BLOCK, SEGMENT_FIELDS, block_speech, load_detector
from gristmill.actors.speech.teacher import TeacherSource, heard, load, reference
from gristmill.models.speech.alignment import Aligner, PathSettings
from gristmill.models.speech.transcript import CutSettings, Transcript, find_cuts
from gristmill.models.speech.vad import FRAME_S, HYSTERESIS, UtteranceSettings, find_utterances
from gristmill.shards.errors import RejectRecord
from gristmill.shards.schema import PARENT_ID, REJECT_REASON
from gristmill.shards.stage import Actor, ArtifactRef, BatchLimits, Resources, Stage

UNSURE = "text and speech differ"  # an utterance whose confidence is below what is asked
UNHEARD = "text that is not heard"
UNWRITTEN = "speech without text"

_TOGETHER = 4  # parts that the teacher hears at once
_WORST_S = 2.0  # s of an utterance, those that lose most, that its confidence is of
_JOIN = 0.2  # s: a shorter silence is part of speech
_LEAP = 0.3  # s between two units of a word
_BEFORE, _AFTER = 0.2, 0.05  # s that a word may begin before its first unit, and end after its last one

ALIGNED_FIELDS = (
    PARENT_ID,
    pa.field("recording", pa.string()),  # the id of the recording
    *SEGMENT_FIELDS,
    pa.field("confidence", pa.float32()),
)


class AlignSettings(PathSettings, CutSettings):
    """How long recordings are aligned with their texts."""

    method: Literal["silero", "energy"] = "silero"
    """What finds speech, as in ``corpus.segment``."""
    threshold: float = Field(0.5, gt=0.15, lt=1)
    """Probability from which a frame is speech."""
    padding: float = Field(0.05, ge=0, le=0.5)
    """Silence kept before and after an utterance, s, up to the middle of the pause."""
    confidence: float = Field(0.15, ge=0, le=1)
    """The least confidence of an utterance; those of less are rejected.

    It is the geometric mean, over the two seconds that fit worst, of how probable the text's units are beside the
    likeliest ones: 1 where the teacher hears the text and nothing else."""


class AlignerSettings(AlignSettings):
    """The same, and the teacher."""

    source: TeacherSource = "checkpoint"
    device: str = "cpu"


class Align(Actor):
    """Cuts recordings with a text into utterances: a row of each becomes a pointer for each utterance.

    Runs after :class:`~gristmill.actors.speech.ingest.Probe`. Text that is not heard and speech without text are
    rejects, so that every word and every part of a recording is accounted for.
    """

    name = "align"
    version = 2  # energy: the floor of pauses of digital silence
    adds = ALIGNED_FIELDS
    batch = BatchLimits(1)
    fan_out = True
    settings: AlignerSettings

    def __init__(self, settings: AlignerSettings, model: str) -> None:
        super().__init__(settings)
        self._detect = load_detector(settings.method)
        self._teacher = load(settings.source, model, settings.device)
        # What is silence for one is for the other: the finder goes on with speech until it is less likely by 0.15.
        threshold = min(settings.threshold + HYSTERESIS, 0.9)
        finest = {"silence": _JOIN + FRAME_S, "least": FRAME_S, "most": settings.most, "padding": 0.064}
        self._parts = UtteranceSettings(threshold=threshold, **finest)

    @classmethod
    def contract(cls, settings: AlignerSettings) -> Mapping[str, Any]:
        """Return the reproducibility: only a CPU is deterministic."""
        return {"deterministic": settings.device == "cpu"}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the utterances of a batch of recordings."""
        recordings = Recordings()
        out: list[dict[str, Any]] = []
        for row in batch.to_pylist():
            none = dict.fromkeys(field.name for field in (*ALIGNED_FIELDS, REJECT_REASON))
            bare = {**row, **none, "parent_id": row["id"], "recording": row["id"], "text": None}
            try:
                out.extend({**bare, **made} for made in self._utterances(row, recordings.open(row)))
            except RejectRecord as reject:
                out.append({**bare, REJECT_REASON.name: reject.reason})
        recordings.close()
        fields = {f.name: f for f in [*batch.schema, *self.adds, REJECT_REASON]}
        return pa.Table.from_pylist(out, schema=pa.schema(list(fields.values())))

    def _utterances(self, row: dict[str, Any], sound: Sound) -> Iterator[dict[str, Any]]:
        text = Transcript.of(row["text"] or "", self._teacher.info.units)
        if not len(text):
            raise RejectRecord(NO_TEXT)
        base, total = row["start"] or 0.0, row["duration"]
        blocks = range(math.ceil(total / FRAME_S / BLOCK))
        speech = np.concatenate([block_speech(self._detect, sound, base, total, number) for number in blocks])
        speech = speech[: math.ceil(total / FRAME_S)]
        parts = [(start * FRAME_S, min(end * FRAME_S, total)) for start, end in find_utterances(speech, self._parts)]
        if not parts:
            raise RejectRecord(NO_SPEECH)
        aligner, places = Aligner(text, self.settings.part(PathSettings)), [0]
        silences = [after - stop for (_, stop), (after, _) in pairwise([*parts, (total, total)])]
        for place in range(0, len(parts), _TOGETHER):
            together = self._heard(sound, base, parts[place : place + _TOGETHER])
            for log_probs, silence in zip(together, silences[place:], strict=False):
                aligner.add(log_probs)
                aligner.pause(silence)
                places.append(places[-1] + len(log_probs) + 1)
        found = aligner.finish()
        clock = _Clock(np.array(places[:-1]), np.array([start for start, _ in parts]), self._teacher.info.frame_rate)
        first_frame, after_frame = found.words(text.first, _LEAP * self._teacher.info.frame_rate)
        begin, end = clock.times(first_frame, 0), clock.times(after_frame - 1, 1)
        is_speech = speech >= self.settings.threshold
        starts, stops = spoken_times(begin, end, is_speech)
        for first, last in find_cuts(text, starts, stops, self.settings.part(CutSettings)):
            if np.isnan(starts[first:last]).any():
                yield {"id": f"{row['id']}#word{first + 1}-{last}", REJECT_REASON.name: UNHEARD}
                continue
            # Padded up to the middle of the pause.
            before, after = np.nanmax(stops[:first], initial=0.0), np.nanmin(starts[last:], initial=total)
            start = max(starts[first] - self.settings.padding, (before + starts[first]) / 2)
            stop = min(stops[last - 1] + self.settings.padding, (after + stops[last - 1]) / 2)
            frames = is_speech[int(start / FRAME_S) : math.ceil(stop / FRAME_S)]
            confidence = self._confidence(found.loss[first_frame[first] : after_frame[last - 1]])
            yield {
                "id": f"{row['id']}@{base + start:.3f}+{stop - start:.3f}",
                "start": base + start,
                "length": stop - start,
                "duration": stop - start,
                "recording_start": base + start,
                "speech_share": float(frames.mean()) if len(frames) else 0.0,
                "text": text.part(first, last),
                "confidence": confidence,
                "declared_duration": None,
                "labels": None,
                REJECT_REASON.name: UNSURE if confidence < self.settings.confidence else None,
            }
        spoken = np.sort(begin[~np.isnan(begin)])
        for start, stop in parts:
            if np.searchsorted(spoken, start) == np.searchsorted(spoken, stop):
                yield {"id": f"{row['id']}@{base + start:.3f}+{stop - start:.3f}", REJECT_REASON.name: UNWRITTEN}

    def _heard(self, sound: Sound, base: float, parts: Sequence[tuple[float, float]]) -> list[np.ndarray]:
        """Return the log-probabilities (T, V) of each part."""
        inputs = []
        for start, end in parts:
            sound.seek(round((base + start) * sound.rate))
            inputs.append(heard(sound.read(round((end - start) * sound.rate)), sound.rate, self._teacher.info))
        log_probs, frames = self._teacher(inputs)
        return [one[:count] for one, count in zip(log_probs.float().cpu().numpy(), frames, strict=True)]

    def _confidence(self, loss: np.ndarray) -> float:
        """Return the confidence of an utterance whose frames lose so much (n,), nats."""
        width = min(len(loss), max(1, round(_WORST_S * self._teacher.info.frame_rate)))
        sums = np.concatenate([[0.0], np.cumsum(loss, dtype=np.float64)])
        return math.exp(-float((sums[width:] - sums[:-width]).max()) / width)


@dataclass(frozen=True)
class _Clock:
    """When the teacher's frames are: part after part, beginning at the frames ``places`` and the times ``starts``."""

    places: np.ndarray
    starts: np.ndarray
    rate: float

    def times(self, frames: np.ndarray, edge: int) -> np.ndarray:
        """Return when frames begin (``edge`` 0) or end (1), s; NaN for those below 0."""
        part = np.searchsorted(self.places, frames, "right") - 1
        return np.where(frames < 0, np.nan, self.starts[part] + (frames - self.places[part] + edge) / self.rate)


def spoken_times(begin: np.ndarray, end: np.ndarray, speech: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return when words begin and end, s, by the silence beside them, where there is any.

    A teacher's units show which words are where, but not to a tenth of a second: so a word ends where the first silence
    behind it begins, and begins where the last one before it ends, unless that is far. ``begin`` and ``end`` (words,)
    are the times of units, NaN for words that are not heard; ``speech`` (n,) says which frames of the detector are
    speech.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[True], speech, [True]]).astype(np.int8)))
    silences = edges.reshape(-1, 2) * FRAME_S
    silences = silences[silences[:, 1] - silences[:, 0] > _JOIN]
    heard = np.flatnonzero(~np.isnan(begin))
    behind = np.searchsorted(begin[heard], silences.mean(axis=1))  # heard words before each
    words = np.arange(len(heard))
    starts, ends = begin.copy(), end.copy()
    last = np.searchsorted(behind, words, "right") - 1
    has = (last >= 0) & (behind[last] == words) if len(behind) else np.zeros(len(heard), bool)
    starts[heard[has]] = np.maximum(silences[last[has], 1], begin[heard[has]] - _BEFORE)
    first = np.minimum(np.searchsorted(behind, words + 1), len(behind) - 1)
    has = behind[first] == words + 1 if len(behind) else has
    ends[heard[has]] = np.minimum(silences[first[has], 0], end[heard[has]] + _AFTER)
    return starts, ends


def alignment(
    settings: AlignSettings,
    source: TeacherSource,
    model: ArtifactRef | str | None = None,
    resources: Resources | None = None,
) -> Stage:
    """Return the stage that cuts recordings with their texts into utterances, by a teacher."""
    resources = resources or Resources()
    _, ref = reference(source, model)
    chosen = AlignerSettings(**dict(settings), source=source, device="cuda" if resources.gpus else "cpu")
    return Align.stage(chosen, resources=resources, model=ref)
