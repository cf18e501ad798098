"""Transcription by a trained model: of recordings as they come, and of corpora as steps of a run.

    from gristmill.pipelines.speech.transcribe import Transcriber
    for one in Transcriber("out/distill").transcribe("my.wav", "a/folder"):
        print(one.audio, one.start, one.text)

Recordings go through the actors of a corpus: the probe, the segmenter (of what is long for the model), the loader,
the features and the recogniser.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from gristmill.actors.audio import audio_array, encode
from gristmill.actors.sources.decoders import MOST_SECONDS
from gristmill.actors.sources.pointers import NO_SPEECH, SILENT
from gristmill.actors.sources.unlisted import divided
from gristmill.actors.speech.features import LogMel
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.actors.speech.recognise import RecogniserSettings, Transcribe
from gristmill.actors.speech.segment import Detector, Segment, SegmentSettings, plan_ranges
from gristmill.actors.speech.teacher_checkpoint import describe
from gristmill.models.speech.words import Word
from gristmill.pipelines.inline import Inline, lost
from gristmill.pipelines.inputs import list_source, once, refuse_empty
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.known_words import KnownWords
from gristmill.pipelines.speech.lengths import lengths_of
from gristmill.pipelines.speech.recognisers import find_recogniser
from gristmill.pipelines.speech.recordings import (
    GIVEN,
    Heard,
    audio_of,
    check_samples,
    given_once,
    is_samples,
    list_recordings,
)
from gristmill.shards import processor, store
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import Damaged, GristmillError, UserError
from gristmill.shards.index import Cut
from gristmill.shards.step import Step

# The defaults of corpus.segment are for close boundaries. Here a lost consonant is a wrong word and kept silence is
# none, and a pause of 0.3 s parts sentences that a model of short ones would hear as one.
PAUSE, PADDING, LEAST_SPEECH = 0.3, 0.25, 0.2  # s
THRESHOLDS: Mapping[Detector, float] = {"silero": 0.8, "energy": 0.2}
QUIET = (SILENT, NO_SPEECH)  # why a recording has no text though nothing is wrong with it
_ANY_SIZE = 1 << 62  # bytes
_SECONDS = 600.0  # of recordings that are worked on together
_NARROW = 0.75  # of the model's sampling rate, below which a recording lacks what the model listens to

Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Utterance:
    """What was heard in a recording, or in a part of a long one."""

    audio: str
    """The recording, as it was given; of samples, their number among what was given: ``samples 1``."""
    id: str
    """The record's id: the corpus and the recording's path in it, for a part with its place."""
    start: float = 0.0
    """Where the utterance begins in the recording, s."""
    duration: float = 0.0
    """Its length, s."""
    text: str = ""
    confidence: float | None = None
    """The mean of the words' confidences; ``None`` without a word."""
    words: tuple[Word, ...] = ()
    """With times from the utterance's begin."""
    problem: str | None = None
    """Why there is no text: one of ``QUIET``, or what is wrong with the recording."""


class Transcriber:
    """Transcribes recordings by a model: its folder, a published one, or the output of a run, whose best system it is.

    ``system`` chooses another of the run's. ``device`` ``auto`` is a GPU if torch sees one. ``beam`` is the width of
    the search, 0 for the best path; with ``words`` the search goes through these, and its width is theirs by default.
    ``segment`` is what finds speech in recordings of over ``lengths.whole`` s, which are long for the model: ``silero``
    if it is installed, else ``energy``. ``elsewhere``: URLs below which a manifest's entries may lie. ``say`` is told
    what a user should know.

    Raises:
        UserError: there is no such model or system, no GPU, the words cannot be read or spelled, or this machine does
            not offer the instruction set.
        GristmillError: the model is damaged.
    """

    def __init__(
        self,
        model: store.Place,
        *,
        system: str | None = None,
        device: Device = "auto",
        beam: int | None = None,
        words: KnownWords | None = None,
        segment: Detector | None = None,
        elsewhere: Sequence[store.Place] = (),
        say: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        processor.check()
        self.model, self.said = find_recogniser(model, system)
        try:
            info = describe(self.model.url)
        except Damaged as error:
            raise GristmillError(f"{error.url}: {error.fault}; expected the weights as they were written") from None
        except UserError as error:
            raise UserError(f"{self.model.url}: {error}") from None
        if info.features is None:
            raise UserError(f"{self.model.url}: has no settings of features; expected a recogniser trained here")
        self.sampling_rate = info.sampling_rate
        self._say, self._elsewhere, self._narrow = say, tuple(os.fspath(one) for one in elsewhere), False
        self._probe = Probe.stage(ProbeSettings(max_duration=MOST_SECONDS, elsewhere=self._elsewhere))
        self._features = LogMel.stage(info.features)
        if words is None:
            search = RecogniserSettings(beam=beam or 0, device=_device(device))
            self._recognise = Transcribe.stage(search, model=self.model)
        else:
            self._recognise = words.stage(self.model, beam, _device(device))
        self.lengths, self._cuts = lengths_of(self.model.url), False
        whole = self.lengths.whole
        load = LoadSettings(sampling_rate=self.sampling_rate, max_duration=2 * whole, annotated=False)
        method = segment or _detector()
        cut = SegmentSettings(
            method=method,
            threshold=THRESHOLDS[method],
            silence=PAUSE,
            padding=PADDING,
            least=LEAST_SPEECH,
            most=min(whole, SegmentSettings().most),
            whole=whole,
        )
        self._hear = (Segment.stage(cut), Load.stage(load), self._features, self._recognise)
        self._probing, self._hearing = Inline(self._probe), Inline(*self._hear)
        self._reading = Inline(self._features, self._recognise, beside=self._hearing)
        if words is not None:  # loaded now, so that mistakes are told before any work
            for problem in words.problems(self._reading.load(self._recognise)):
                say(problem)

    def transcribe(self, *audio: Heard | Iterable[Heard]) -> Iterator[Utterance]:
        """Yield the utterances of recordings in their order; one of a recording that cannot be read has a ``problem``.

        What is given, alone or in iterables, is a file of audio, anything that a corpus is read from (a folder, a
        manifest, Parquet, ...), ``-`` for audio from standard input, or samples in memory: ``(samples, rate)`` with
        floats (n,) in [-1, 1] of one channel, and their rate, Hz. The third thing that is given is called
        ``samples 3``, if it is samples.

        Raises:
            UserError: a place does not exist or has no audio, or samples cannot be used.
        """
        for table in list_recordings(audio_of(audio), self._elsewhere, once(self._say)):
            kept, files = divided(table)
            for file in files.to_pylist():
                place, _, fault = file["message"].partition(": ")
                yield Utterance(place, file["id"], problem=f"{file['reason']}: {fault}")
            if kept.num_rows:
                yield from self._in_order(kept)

    def hear(self, samples: np.ndarray, rate: float) -> Utterance:
        """Transcribe samples (n,) in [-1, 1] at ``rate`` Hz as one utterance.

        Raises:
            UserError: they cannot be used.
        """
        check_samples(samples, rate)
        seconds = len(samples) / rate
        audio = audio_array([encode(samples, int(rate))])
        table = pa.table({"id": ["samples"], "audio": audio, "duration": [seconds]})
        made = self._reading(table)
        for _, _, problem in lost(made):
            raise UserError(f"samples: {problem}; expected samples of speech")
        return _utterance(made.table.to_pylist()[0] | {GIVEN.name: ""})

    def corpus(self, run: Run, name: str, places: store.Place | Iterable[store.Place]) -> SealedSet:
        """Transcribe a corpus as steps of a run, and return the set ``<name>``: a record an utterance, in order.

        Beside ``id``, ``duration``, ``audio_filepath`` and ``recording_start`` its columns are those of
        :class:`~gristmill.actors.speech.recognise.Transcribe`. What cannot be read is rejected.

        Raises:
            UserError: a place does not exist, or no record is left.
        """
        found = audio_of([places])
        if streamed := next((one for one in found if given_once(one)), None):
            what = "samples" if is_samples(streamed) else f"{streamed}: standard input or a pipe"
            raise UserError(f"{what} can be read once, and a corpus is listed twice; expected a file")
        listing = partial(list_recordings, found, self._elsewhere, once(self._say))
        listed = list_source(run, f"listing_{name}", listing, name)
        probed = run.step(Step(f"probed_{name}", (self._probe,), listed, max_quarantine=1.0))
        refuse_empty(probed, name)

        def ranges() -> Iterator[pa.Table]:
            return (plan_ranges(table) for table in probed.tables() if table.num_rows)

        planned = run.source(f"ranges_{name}", ranges, {"probed": probed, "version": 1})
        return run.step(Step(name, self._hear, planned, cut=Cut(bytes=_ANY_SIZE), max_quarantine=1.0))

    def _in_order(self, pointers: pa.Table) -> Iterator[Utterance]:
        """Yield the utterances of some recordings, and those of which there are none, in the order of the pointers."""
        names = pointers["id"].to_pylist()
        place = {name: number for number, name in enumerate(names)}
        given = dict(zip(names, pointers[GIVEN.name].to_pylist(), strict=True))
        work = self._probing(pointers)
        waiting = sorted(lost(work), key=lambda one: place[one[0]])
        ranges = plan_ranges(work.table) if work.table.num_rows else work.table
        for start, end in _parts(ranges["duration"].to_pylist()):
            part = ranges.slice(start, end - start)
            whole = dict(zip(part["id"].to_pylist(), part["recording"].to_pylist(), strict=True))
            for rate, total in zip(part["sampling_rate"].to_pylist(), part["total"].to_pylist(), strict=True):
                self._warn(rate, total)
            made = self._hearing(part)
            found = [
                (place[row["recording"]], row["recording_start"], _utterance(row)) for row in made.table.to_pylist()
            ]
            for origin, name, problem in lost(made):
                recording = whole[origin]
                found.append((place[recording], 0.0, Utterance(given[recording], name, problem=problem)))
            for number, _, one in sorted(found, key=lambda one: one[:2]):
                while waiting and place[waiting[0][0]] < number:
                    yield _without(waiting.pop(0), given)
                yield one
        for left in waiting:
            yield _without(left, given)

    def _warn(self, rate: int, total: float) -> None:
        if total > self.lengths.whole and not self._cuts:
            self._cuts = True
            self._say(self.lengths.describe())
        if rate < _NARROW * self.sampling_rate and not self._narrow:
            self._narrow = True
            self._say(
                f"recordings of {rate:,} Hz, and a model of speech at {self.sampling_rate:,} Hz: it lacks what they do "
                "not have (telephone speech), and makes more errors than its report says"
            )


def _detector() -> Detector:
    return "silero" if importlib.util.find_spec("silero_vad") else "energy"


def _device(device: Device) -> str:
    if device != "auto":
        return device
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _parts(seconds: Sequence[float]) -> Iterator[tuple[int, int]]:
    """Yield the bounds of parts that are worked on together, so that a long recording's first words come soon."""
    start, held = 0, 0.0
    for number, length in enumerate(seconds):
        held += length
        if held >= _SECONDS:
            yield start, number + 1
            start, held = number + 1, 0.0
    if start < len(seconds):
        yield start, len(seconds)


def _without(one: tuple[str, str, str], given: Mapping[str, str]) -> Utterance:
    return Utterance(given[one[0]], one[1], problem=one[2])


def _utterance(row: Mapping[str, Any]) -> Utterance:
    words = tuple(Word(**word) for word in row["words"])
    start = row.get("recording_start") or 0.0
    sure, text = row["hypothesis_confidence"], row["hypothesis"]
    return Utterance(row[GIVEN.name], row["id"], start, row["duration"], text, sure, words)
