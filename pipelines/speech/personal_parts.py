"""The parts of a recogniser with a user's words as results of a run: the base, pronunciations, the language model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import pyarrow as pa
from pydantic import Field

from gristmill.actors.ngram_files import STORE_FILE
from gristmill.actors.speech.hama_weights import hama_checkpoint
from gristmill.actors.speech.lexicon_files import LEXICON_FILE
from gristmill.actors.speech.personalise import WORDS_FILE
from gristmill.actors.speech.phases import AcousticLoopSettings, AcousticTraining, Phase
from gristmill.actors.speech.pronounce import Pronounce
from gristmill.actors.speech.teacher_hama import describe
from gristmill.actors.speech.trainer import MODEL, train
from gristmill.actors.training.settings import Schedule
from gristmill.models.ngrams.estimate import NgramSettings, estimate
from gristmill.models.speech.acoustic import AcousticSettings
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.models.speech.units import UNITS_FILE, normalise
from gristmill.pipelines.run import Run
from gristmill.shards import canonical
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.index import Cut
from gristmill.shards.job import TrainJob
from gristmill.shards.random import RecordRandom
from gristmill.shards.step import Step

CURVES = "training.json"  # of a trained artifact
WORDS = pa.schema([pa.field("id", pa.string()), pa.field("text", pa.string())])


@dataclass(frozen=True)
class Material:
    """What a recogniser is made from: features with ``text`` and ``names``, words, and a language model."""

    adapter: SealedSet
    """Speech with names that the adapter learns from."""
    development: SealedSet
    test: SealedSet
    known: Artifact
    """Pronunciations of the words that training and language model have, with the phones as units."""
    listed: Artifact
    """Pronunciations of the words of lists."""
    words: Mapping[str, Artifact]
    """Of development and test: words to draw lists from."""
    language: Artifact
    train: SealedSet | None = None
    """Speech that the base learns from."""
    units: Artifact | None = None
    """Of the base that is trained."""
    base: Artifact | None = None
    """One that is not trained here."""


class BaseSettings(AcousticLoopSettings):
    """The base: its network with inner heads, and its training."""

    source: Literal["trained", "hama"] = "trained"
    """Trained here on the generated speech, or the recogniser of phonemes of the package ``hama``."""
    model: AcousticSettings = AcousticSettings(
        layers=4, inner=({"layer": 2, "of": "phones"}, {"layer": 3, "of": "units"})
    )
    """Sizes of the network, and its inner heads."""
    schedule: Schedule = Schedule(epochs=12, lr=2e-3)
    inner_weight: float = Field(0.5, ge=0)
    """Weight of CTC on the inner heads, beside that on the last layer."""
    specaugment: SpecAugment | None = SpecAugment()
    """SpecAugment of the training."""


def base_job(settings: BaseSettings, seed: int, material: Material) -> TrainJob:
    """Return the training of the base, which is frozen from then on."""
    phase = Phase(
        schedule=settings.schedule, ctc_weight=1.0, inner_weight=settings.inner_weight, specaugment=settings.specaugment
    )
    given = AcousticTraining(**dict(settings.part(AcousticLoopSettings)), phases=(phase,), seed=seed)
    speech = {"features": material.train, "text": "text"}
    inputs = {"data": {"speech": speech}, "units": material.units, "lexicon": material.known}
    return TrainJob("base", loop=train, settings=given, inputs=inputs, version=2)


def outside_base(run: Run) -> Artifact:
    """Return the recogniser of the package ``hama`` as a base."""
    return run.artifact("base", lambda url: {MODEL: hama_checkpoint()}, {"hama": describe().digest, "version": 1})


def word_set(run: Run, name: str, sets: Sequence[SealedSet], others: Sequence[str] = ()) -> SealedSet:
    """Return the distinct words of the texts of sets, and others, a row each."""

    def tables() -> Iterator[pa.Table]:
        found = set(others)
        for sealed in sets:
            for table in sealed.tables(["text"]):
                found.update(word for text in table["text"].to_pylist() for word in normalise(text or "").split())
        yield _rows(found)

    identity = {"sets": list(sets), "others": sorted(others), "version": 1}
    return run.source(name, tables, identity, of=sets[0], complete=True)


def list_words(run: Run, name: str, speech: SealedSet, others: Sequence[str]) -> SealedSet:
    """Return the distinct words of the lists that records have, and others, a row each."""

    def tables() -> Iterator[pa.Table]:
        found = set(others)
        for table in speech.tables(["names", "listed"]):
            for column in table.columns:
                found.update(word for words in column.to_pylist() for word in words or ())
        yield _rows(found)

    return run.source(name, tables, {"speech": speech, "others": list(others), "version": 1})


def _rows(found: Collection[str]) -> pa.Table:
    words = sorted(found)
    return pa.table([[f"word/{word}" for word in words], words], schema=WORDS)


def pronunciations(run: Run, name: str, words: SealedSet) -> Artifact:
    """Return the artifact of the words' pronunciations, in the phones of the phoneme teacher."""
    spoken = run.step(Step(f"{name}_spoken", (Pronounce.stage(),), words, cut=Cut(rows=250)))

    def files(url: str) -> dict[str, bytes]:
        rows = [row for table in spoken.tables(["text", "phones"]) for row in table.to_pylist()]
        lines = "".join(f"{row['text']}\t{row['phones']}\n" for row in rows)
        return {LEXICON_FILE: lines.encode(), UNITS_FILE: describe().units.to_json().encode()}

    return run.artifact(name, files, {"version": 1}, [spoken])


def language_model(run: Run, settings: NgramSettings, texts: SealedSet, known: FrequentWords | None = None) -> Artifact:
    """Return the artifact of a store of the texts' n-grams, if given, of the known words alone.

    Of the text that has other words, the n-grams without them.
    """

    def files(url: str) -> dict[str, bytes]:
        from gristmill.models.ngrams.build import StoreSettings, build
        from gristmill.models.ngrams.store import chunks

        words = None if known is None else known.words
        made = build(estimate(_said(texts), settings, words), StoreSettings())
        return {STORE_FILE: b"".join(map(bytes, chunks(made)))}

    given = {"version": 1, **settings.identity()}
    if known is not None:
        given |= {"most": known.most, "others": list(known.others)}
    return run.artifact("language", files, given, [texts])


@dataclass(frozen=True, eq=False)
class FrequentWords:
    """The ``most`` frequent words of texts, and others; the texts are counted once, when the words are needed."""

    texts: SealedSet
    most: int
    others: Sequence[str] = ()

    @cached_property
    def words(self) -> list[str]:
        """The words, sorted."""
        counts = Counter(word for words in _said(self.texts) for word in words)
        order = sorted(counts, key=lambda word: (-counts[word], word))
        return sorted({*order[: self.most], *self.others})


def _said(texts: SealedSet) -> Iterator[list[str]]:
    for table in texts.tables(["text"]):
        for text in table["text"].to_pylist():
            yield normalise(text or "").split()


def drawn_words(words: Sequence[str], count: int, name: str, seed: int) -> list[str]:
    """Return some of the words to draw lists from, all if there are not more."""
    order = RecordRandom(seed, "words of lists")(name).permutation(len(words))[:count]
    return sorted(words[place] for place in order)


def word_file(run: Run, name: str, words: Sequence[str]) -> Artifact:
    """Return the artifact of words to draw lists from."""
    text = "".join(f"{word}\n" for word in words)
    return run.artifact(name, lambda url: {WORDS_FILE: text.encode()}, {"words": canonical.sha256(text.encode())})


def assembled(run: Run, name: str, *parts: Artifact) -> Artifact:
    """Return the artifact with the files of several, but the courses of their trainings."""

    def files(url: str) -> dict[str, bytes]:
        return {file: part.read(file) for part in parts for file in part.files if file != CURVES}

    return run.artifact(name, files, {"version": 1}, list(parts))
