"""The parts of a recogniser with a user's words as results of a run: the base, pronunciations, the language model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa
from pydantic import Field

from gristmill.actors.ngram_files import STORE_FILE
from gristmill.actors.speech.lexicon_files import LEXICON_FILE
from gristmill.actors.speech.personalise import WORDS_FILE
from gristmill.actors.speech.phases import AcousticLoopSettings, AcousticTraining, Phase
from gristmill.actors.speech.pronounce import Pronounce
from gristmill.actors.speech.teacher_hama import describe
from gristmill.actors.speech.trainer import train
from gristmill.actors.training.settings import Schedule
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.speech.acoustic import AcousticSettings
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.models.speech.units import UNITS_FILE, normalise
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.random import RecordRandom
from gristmill.shards.step import Step

WORDS = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string())])


class BaseSettings(AcousticLoopSettings):
    """The base: its network with inner heads, and its training."""

    model: AcousticSettings = AcousticSettings(
        layers=4, inner=({"layer": 2, "of": "phones"}, {"layer": 3, "of": "units"})
    )
    """Sizes of the network, and its inner heads."""
    schedule: Schedule = Schedule(epochs=12, lr=2e-3)
    inner_weight: float = Field(0.5, ge=0)
    """Weight of CTC on the inner heads, beside that on the last layer."""
    specaugment: SpecAugment | None = SpecAugment()
    """SpecAugment of the training."""


def base_job(settings: BaseSettings, seed: int, units: Artifact, lexicon: Artifact, features: SealedSet) -> TrainJob:
    """Return the training of the base, which is frozen from then on."""
    phase = Phase(
        schedule=settings.schedule, ctc_weight=1.0, inner_weight=settings.inner_weight, specaugment=settings.specaugment
    )
    given = AcousticTraining(**dict(settings.part(AcousticLoopSettings)), phases=(phase,), seed=seed)
    inputs = {"data": {"speech": {"features": features, "text": "text"}}, "units": units, "lexicon": lexicon}
    return TrainJob("base", loop=train, settings=given, inputs=inputs, version=2)


def word_set(run: Run, name: str, sets: Sequence[SealedSet], others: Sequence[str] = ()) -> SealedSet:
    """Return the distinct words of the texts of sets, and others, a row each."""

    def tables() -> Iterator[pa.Table]:
        found = set(others)
        for sealed in sets:
            for table in sealed.tables(["text"]):
                found.update(word for text in table["text"].to_pylist() for word in normalise(text or "").split())
        words = sorted(found)
        yield pa.table([[f"word/{word}" for word in words], words], schema=WORDS)

    return run.source(name, tables, {"sets": list(sets), "others": sorted(others), "version": 1})


def pronunciations(run: Run, name: str, words: SealedSet) -> Artifact:
    """Return the artifact of the words' pronunciations, in the phones of the phoneme teacher."""
    spoken = run.step(Step(f"{name}_spoken", (Pronounce.stage(),), words, cut=Cut(rows=250)))

    def files(url: str) -> dict[str, bytes]:
        rows = [row for table in spoken.tables(["text", "phones"]) for row in table.to_pylist()]
        lines = "".join(f"{row['text']}\t{row['phones']}\n" for row in rows)
        return {LEXICON_FILE: lines.encode(), UNITS_FILE: describe().units.to_json().encode()}

    return run.artifact(name, files, {"version": 1}, [spoken])


def language_model(run: Run, settings: NgramSettings, texts: SealedSet) -> Artifact:
    """Return the artifact of a store of the texts' n-grams."""

    def files(url: str) -> dict[str, bytes]:
        from gristmill.models.ngrams.build import StoreSettings, build
        from gristmill.models.ngrams.store import chunks

        said = (normalise(text or "").split() for table in texts.tables(["text"]) for text in table["text"].to_pylist())
        made = build(estimate(said, settings), StoreSettings())
        return {STORE_FILE: b"".join(map(bytes, chunks(made)))}

    return run.artifact("language", files, {"version": 1, **settings.identity()}, [texts])


def drawn_words(words: Sequence[str], count: int, name: str, seed: int) -> list[str]:
    """Return some of the words to draw lists from, all if there are not more."""
    order = RecordRandom(seed, "words of lists")(name).permutation(len(words))[:count]
    return sorted(words[place] for place in order)


def word_file(run: Run, name: str, words: Sequence[str]) -> Artifact:
    """Return the artifact of words to draw lists from."""
    text = "".join(f"{word}\n" for word in words)
    return run.artifact(name, lambda url: {WORDS_FILE: text.encode()}, {"words": text})


def assembled(run: Run, name: str, *parts: Artifact, without: Sequence[str] = ()) -> Artifact:
    """Return the artifact with the files of several, but those ``without``."""

    def files(url: str) -> dict[str, bytes]:
        return {file: part.read(file) for part in parts for file in part.files if file not in without}

    return run.artifact(name, files, {"version": 1}, list(parts))
