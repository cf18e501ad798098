"""Input speech of a recipe: the user's own files, real digit strings, or synthesised requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Self

import pyarrow as pa
from pydantic import Field, field_validator, model_validator

from gristmill.actors.audio import RateSettings
from gristmill.actors.sources.decoders import MOST_SECONDS
from gristmill.actors.sources.places import PlaceSettings
from gristmill.actors.sources.pointers import POINTERS
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.align import AlignSettings
from gristmill.actors.speech.ingest import (
    DurationSettings,
    FieldSettings,
    Load,
    LoadSettings,
    Probe,
    ProbeSettings,
    RecordingSettings,
)
from gristmill.actors.speech.join_digits import DigitPart, JoinDigits, plan_strings
from gristmill.actors.speech.quality import Quality, QualitySettings
from gristmill.actors.speech.segment import Segment, SegmentSettings, plan_ranges
from gristmill.actors.speech.speakers import RejectSpeakers, SpeakerSettings
from gristmill.actors.speech.synthesise import Speak, SpeakSettings
from gristmill.actors.speech.voices import VoiceChoice, voices_of
from gristmill.pipelines.describing import ALONE
from gristmill.pipelines.filters import SpeechFilter, filtered
from gristmill.pipelines.generated.spoken_requests import DOMAINS, requests
from gristmill.pipelines.inputs import Places, list_places, list_source, once, place_names, refuse_empty
from gristmill.pipelines.progress import plural
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import Cut
from gristmill.shards.random import RecordRandom
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

_ANY_SIZE = 1 << 62  # bytes


class CorpusSettings(RecordingSettings, PlaceSettings, FieldSettings):
    """Source of the speech.

    ``kind`` ``requests`` synthesises generated requests; ``digits`` joins single spoken digits found at ``digits`` into
    strings; ``files`` reads ``labelled``, ``unlabelled`` and ``test`` (setting one of them implies it). Without
    ``test`` a share of the labelled speakers is held out.
    """

    kind: Literal["requests", "digits", "files"] | None = None
    """By default derived from the other settings."""
    labelled: Places | None = None
    """Files: annotated speech."""
    unlabelled: Places | None = None
    """Files: speech without annotation."""
    test: Places | None = None
    """Files: annotated speech of the test sets."""
    digits: str | None = None
    """Digits: recordings of single spoken digits."""
    domains: tuple[str, ...] = DOMAINS
    """Requests: their domains."""
    voices: VoiceChoice = "neural"
    """Requests: who speaks. ``neural`` is one voice with 30 vocal tracts and pitches, and eight others for the test;
    ``mixed`` is 40 voices, most of them eSpeak NG's, and ten others (``pip install '.[espeak]'``, GPL)."""
    labelled_records: int = Field(400, ge=1)
    """Requests and digits: number of utterances in the annotated part."""
    unlabelled_records: int = Field(2400, ge=1)
    """Requests and digits: number of utterances in the part without annotation."""
    test_records: int = Field(240, ge=1)
    """Requests and digits: number of utterances in the test set."""
    labelled_share: float = Field(0.1, gt=0, lt=1)
    """Digits: share of the recordings outside the test set."""
    test_share: float = Field(0.2, gt=0, lt=1)
    """Share of the recordings (digits; of the speakers, if they are held out) or of the labelled speakers (files)."""
    held_out: Literal["recordings", "speakers"] = "recordings"
    """Digits: what the test set has to itself."""
    segment: SegmentSettings | None = Field(None, json_schema_extra={ALONE: "method"})
    """Files: how ``unlabelled`` recordings of any length are cut into utterances; ``silero`` or ``energy`` alone sets
    the method. By default a recording is an utterance."""
    quality: QualitySettings | None = None
    """Measures of each utterance's audio, and limits beyond which it is rejected; the test part is measured only. By
    default nothing is measured."""
    shard: Cut = Cut()
    """Shard sizes of the three parts."""
    transcribed: Places | None = None
    """Long recordings, each with the text of the whole: the teacher aligns them, and students learn from the utterances
    as from ``labelled``."""
    align: AlignSettings = AlignSettings()
    """How ``transcribed`` recordings are aligned and cut."""
    filters: tuple[SpeechFilter, ...] = ()
    """The user's own filters, applied to the parts as they are made."""

    @field_validator("segment", mode="before")
    @classmethod
    def _method_alone(cls, given: Any) -> Any:
        return {"method": given} if isinstance(given, str) else given

    @model_validator(mode="after")
    def _utterances_fit(self) -> Self:
        cuts = {"segment": self.segment, "align": self.align if self.transcribed else None}
        for name, cut in cuts.items():
            if cut is not None and cut.most > self.max_duration:
                raise ValueError(
                    f"{name}.most={cut.most:g} is more than max_duration={self.max_duration:g}; such utterances would "
                    "be rejected"
                )
        return self

    @model_validator(mode="after")
    def _bandwidth_is_possible(self) -> Self:
        least = self.quality.least_bandwidth if self.quality is not None else None
        if least is not None and least >= self.sampling_rate / 2:
            raise ValueError(
                f"quality.least_bandwidth={least:g} is not below half of sampling_rate={self.sampling_rate}; all "
                "speech would be rejected"
            )
        return self

    @property
    def chosen(self) -> str:
        """The kind, as set or derived."""
        if self.kind is not None:
            return self.kind
        if self.labelled or self.unlabelled or self.test:
            return "files"
        return "digits" if self.digits else "requests"

    def places(self) -> dict[str, tuple[str, ...]]:
        """Return the URLs of the parts to read, by part; a required one that is missing is a ``UserError``."""
        parts = {"requests": (), "digits": ("digits",), "files": ("labelled", "unlabelled", "test")}[self.chosen]
        found = {}
        for part in (*parts, "transcribed"):
            given = getattr(self, part)
            if given is not None:
                found[part] = (given,) if isinstance(given, str) else given
            elif part not in ("test", "transcribed"):
                raise UserError(f"corpus.{part}: not given; expected the URL of audio, a manifest, Parquet or tar")
        return found


@dataclass(frozen=True)
class Corpora:
    """The three parts of a corpus. ``unlabelled`` has no text."""

    labelled: SealedSet
    unlabelled: SealedSet
    test: SealedSet


def _measures(settings: CorpusSettings, part: str) -> tuple[Stage, ...]:
    """Return the stage that measures a part's audio, if it is wanted; a filtered test would be another test."""
    if settings.quality is None:
        return ()
    return (Quality.stage(settings.quality.unlimited() if part == "test" else settings.quality),)


def loaded_schema(settings: CorpusSettings, part: str) -> pa.Schema:
    """Return the columns of a part that is read from files and not cut, before the user's filters."""
    probe, load = Probe.stage(ProbeSettings()), Load.stage(LoadSettings(annotated=part != "unlabelled"))
    schema = POINTERS
    for stage in (probe, load, *_measures(settings, part)):
        schema = stage.output_schema(schema)
    return schema


def prepare_corpora(run: Run, settings: CorpusSettings) -> Corpora:
    """Make the three parts of the corpus."""
    make = {"requests": _requests, "digits": _digits, "files": _files}[settings.chosen]
    corpora = make(run, settings)
    for part in ("labelled", "unlabelled", "test"):
        made: SealedSet = getattr(corpora, part)
        refuse_empty(made, f"corpus.{part}")
    kept = {part: filtered(run, made, settings.filters, part) for part, made in vars(corpora).items()}
    return Corpora(**kept)


def prepare_speech(run: Run, name: str, urls: Sequence[str], settings: CorpusSettings) -> SealedSet:
    """Make a set of annotated speech of places, outside of the three parts."""
    return _load(run, name, _probe(run, name, urls, settings), settings, in_parts=False)


def _requests(run: Run, settings: CorpusSettings) -> Corpora:
    counts = {
        "labelled": settings.labelled_records,
        "unlabelled": settings.unlabelled_records,
        "test": settings.test_records,
    }
    parts = {}
    for part, records in counts.items():
        voices = voices_of(part, settings.voices)
        identity = {"part": part, "records": records, "seed": run.seed, "domains": settings.domains, "voices": voices}
        texts = run.source(
            f"requests_{part}",
            partial(requests, part, records, voices, seed=run.seed, domains=settings.domains),
            {**identity, "version": 1},
        )
        stage = Speak.stage(SpeakSettings(sampling_rate=settings.sampling_rate, keep_text=part != "unlabelled"))
        parts[part] = run.step(Step(part, (stage, *_measures(settings, part)), texts, cut=settings.shard))
    return Corpora(**parts)


def _digits(run: Run, settings: CorpusSettings) -> Corpora:
    """Join single recorded digits into strings of 3 to 7; no recording is in two parts."""
    probed = _probe(run, "digits", settings.places()["digits"], settings)
    rest, by_speaker = 1.0 - settings.test_share, settings.held_out == "speakers"
    parts = {
        "labelled": DigitPart(rest * settings.labelled_share, settings.labelled_records),
        "unlabelled": DigitPart(rest * (1 - settings.labelled_share), settings.unlabelled_records, False),
        "test": DigitPart(settings.test_share, settings.test_records),
    }
    made = {}
    for name, part in parts.items():

        def plan(name: str = name) -> Iterator[pa.Table]:
            # The plan needs all recordings in memory: a few thousand short rows.
            rows = pa.concat_tables(probed.tables())
            yield plan_strings(rows, parts, run.seed, apart="test" if by_speaker else None)[name]

        identity = {"probed": probed, "parts": parts, "seed": run.seed, "part": part, "version": 1}
        identity |= {"apart": "test"} if by_speaker else {}
        plans = run.source(f"strings_{name}", plan, identity)
        stages = (JoinDigits.stage(settings.part(RateSettings)), *_measures(settings, name))
        made[name] = run.step(Step(name, stages, plans, cut=settings.shard))
    return Corpora(**made)


def _files(run: Run, settings: CorpusSettings) -> Corpora:
    """Read the user's own files; without a test part, a share of the labelled speakers is held out."""
    places = settings.places()
    probed = {name: _probe(run, name, places[name], settings) for name in places if name != "transcribed"}
    if "test" not in probed:
        probed |= _hold_out(run, probed["labelled"], settings.test_share)
        held_out = _speakers(probed["test"]) - _speakers(probed["labelled"]) - {""}
        probed["unlabelled"] = _without_speakers(run, probed["unlabelled"], held_out)
    if settings.segment is not None:
        probed["unlabelled"] = _segment(run, probed["unlabelled"], settings.segment)
    parts = {}
    for name, source in probed.items():
        parts[name] = _load(run, name, source, settings, in_parts=settings.segment is not None and name == "unlabelled")
    return Corpora(**parts)


def prepare_transcribed(run: Run, settings: CorpusSettings, aligned: Stage) -> SealedSet:
    """Make the utterances of ``transcribed`` recordings by the stage that aligns them."""
    probed = _probe(run, "transcribed", settings.places()["transcribed"], settings)
    cuts = run.step(Step("aligned_transcribed", (aligned,), probed, cut=Cut(bytes=_ANY_SIZE)))
    refuse_empty(cuts, "corpus.transcribed")
    made = _load(run, "transcribed", cuts, settings, in_parts=True)
    return filtered(run, made, settings.filters, "transcribed")


def _load(run: Run, name: str, source: SealedSet, settings: CorpusSettings, *, in_parts: bool) -> SealedSet:
    """Read the audio of utterances, which may be ``in_parts`` of files."""
    stage = Load.stage(LoadSettings(**dict(settings.part(RecordingSettings)), annotated=name != "unlabelled"))
    # The size of a pointer is that of its file, of which an utterance is a small part.
    cut = settings.shard.but(bytes=_ANY_SIZE) if in_parts else settings.shard
    made = run.step(Step(name, (stage, *_measures(settings, name)), source, cut=cut))
    refuse_empty(made, f"corpus.{name}")  # before the next part, which may take hours, is read
    return made


def _segment(run: Run, probed: SealedSet, settings: SegmentSettings) -> SealedSet:
    """Cut recordings into utterances: ranges of ten minutes are the units of work."""

    def ranges() -> Iterator[pa.Table]:
        return (plan_ranges(table) for table in probed.tables() if table.num_rows)

    planned = run.source("ranges_unlabelled", ranges, {"probed": probed, "version": 1}, of=probed)
    made = run.step(Step("segments_unlabelled", (Segment.stage(settings),), planned, cut=Cut(bytes=_ANY_SIZE)))
    refuse_empty(made, "corpus.unlabelled")
    return made


def _probe(run: Run, name: str, urls: Sequence[str], settings: CorpusSettings) -> SealedSet:
    """List a corpus and read the headers of its files."""
    names = place_names(urls)
    say = once(run.progress.say)
    listed = partial(list_sources, fields=settings.fields, elsewhere=settings.elsewhere, say=say)

    def tables() -> Iterator[pa.Table]:
        return list_places(partial(listed, url, corpus=name) for url, name in zip(urls, names, strict=True))

    listing = list_source(run, f"listing_{name}", tables, name)
    durations = dict(settings.part(DurationSettings))
    if name == "transcribed" or (settings.segment is not None and name == "unlabelled"):
        durations["max_duration"] = MOST_SECONDS
    how = {**durations, **dict(settings.part(PlaceSettings)), **dict(settings.part(FieldSettings))}
    stage = Probe.stage(ProbeSettings(**how))
    made = run.step(Step(f"probed_{name}", (stage,), listing))
    refuse_empty(made, f"corpus.{name}")
    return made


def _hold_out(run: Run, probed: SealedSet, share: float) -> dict[str, SealedSet]:
    """Split a labelled corpus into training and test by whole speakers; by record if there is only one speaker."""
    speakers = _speakers(probed)
    order = sorted(speakers, key=lambda name: RecordRandom(0, "hold_out")(name).random())
    chosen = set(order[: max(1, min(round(share * len(order)), len(order) - 1))])  # never all

    def side(held_out: bool) -> Iterator[pa.Table]:
        for table in probed.tables():
            if len(speakers) > 1:
                taken = [(name or "") in chosen for name in table["speaker"].to_pylist()]
            else:
                taken = [RecordRandom(0, "hold_out")(key).random() < share for key in table["id"].to_pylist()]
            yield table.filter(pa.array([out is held_out for out in taken]))

    identity = {"probed": probed, "share": share, "version": 1}
    sides = {"labelled": False, "test": True}
    return {
        name: run.source(f"split_{name}", partial(side, out), {**identity, "held_out": out}, of=probed)
        for name, out in sides.items()
    }


def _without_speakers(run: Run, probed: SealedSet, held_out: set[str]) -> SealedSet:
    """Return speech without the speakers who are held out for the test, of whom the corpus may have more."""
    shared = sorted(_speakers(probed) & held_out) if held_out else []
    if not shared:
        return probed
    run.progress.say(
        f"corpus.unlabelled: has speech of {plural(len(shared), 'speaker')} held out for the test "
        f"({', '.join(shared)[:100]}), which is not trained on; expected corpus.test if another test is wanted"
    )
    stage = RejectSpeakers.stage(SpeakerSettings(speakers=tuple(shared)))
    kept = run.step(Step(f"{probed.name}_kept", (stage,), probed))
    refuse_empty(kept, "corpus.unlabelled")
    return kept


def _speakers(probed: SealedSet) -> set[str]:
    found: set[str] = set()
    for table in probed.tables(["speaker"]):
        found.update(name or "" for name in table["speaker"].to_pylist())
    return found
