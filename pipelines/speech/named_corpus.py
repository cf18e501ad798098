"""The synthetic corpus of the personalisation recipe: spoken requests with rare names, and the texts of their words."""

from __future__ import annotations

from functools import partial

from pydantic import Field

from gristmill.actors.audio import RateSettings
from gristmill.actors.speech.features import LogMel
from gristmill.actors.speech.synthesise import Speak, SpeakSettings, check_voices
from gristmill.actors.speech.voices import VoiceChoice, voices_of
from gristmill.models.ngrams.estimate import NgramSettings
from gristmill.models.speech.features import FeatureSettings, FilterBankSettings
from gristmill.models.speech.units import UnitSettings
from gristmill.pipelines.generated import spoken_names
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.personal_parts import (
    Material,
    drawn_words,
    language_model,
    pronunciations,
    word_file,
    word_set,
)
from gristmill.pipelines.speech.spelling import fitted_units
from gristmill.shards.dataset import SealedSet
from gristmill.shards.index import Cut
from gristmill.shards.step import Step


class NamedCorpusSettings(RateSettings):
    """Sizes of the generated corpus; each part has names of its own, and the test parts have voices of their own."""

    train_records: int = Field(4000, ge=1)
    """Utterances that the base learns from."""
    adapter_records: int = Field(1500, ge=1)
    """Utterances that the adapter learns from; the base has heard none of their names."""
    bare: float = Field(0.4, ge=0, le=1)
    """Share of both that are names alone, four to six, and no requests: how names are spelled is learned from many."""
    development_records: int = Field(120, ge=1)
    """Utterances by which settings of decoding are chosen."""
    test_records: int = Field(240, ge=1)
    """Utterances of the test sets."""
    texts: int = Field(20000, ge=1)
    """Requests for the language model; their names are those that the base learns from."""
    voices: VoiceChoice = "neural"
    """Who speaks; see the corpus of ``distill``."""
    shard: Cut = Cut(rows=100)
    """Maximum size of a shard."""

    def records(self) -> dict[str, int]:
        """Return the utterances of each part."""
        parts = ("train", "adapter", "development", "test")
        return {part: getattr(self, f"{part}_records") for part in parts}


def prepare_named(
    run: Run,
    settings: NamedCorpusSettings,
    features: FilterBankSettings,
    units: UnitSettings,
    language: NgramSettings,
    words: int,
) -> Material:
    """Make the generated speech and all that is made of its texts; ``words`` are those that lists are drawn from."""
    made = {part: spoken_part(run, settings, part, features.at(settings.sampling_rate)) for part in spoken_names.PARTS}
    given = {"records": settings.texts, "seed": run.seed, **spoken_names.identity()}
    texts = run.source("texts", partial(spoken_names.texts, settings.texts, seed=run.seed), given)
    pools = {part: drawn_words(spoken_names.distractors(part), words, part, run.seed) for part in spoken_names.HELD_OUT}
    others = sorted({word for pool in pools.values() for word in pool})
    held_out = word_set(run, "listed_words", [made[part] for part in pools], others)
    return Material(
        made["adapter"],
        made["development"],
        made["test"],
        known=pronunciations(run, "lexicon", word_set(run, "words", [made["train"]])),
        listed=pronunciations(run, "listed_lexicon", held_out),
        words={part: word_file(run, f"{part}_words", pool) for part, pool in pools.items()},
        language=language_model(run, language, texts),
        train=made["train"],
        units=fitted_units(run, units, made["train"]),
    )


def spoken_part(run: Run, settings: NamedCorpusSettings, part: str, features: FeatureSettings) -> SealedSet:
    """Make the requests of a part, speak them, and take their features."""
    records = settings.records()[part]
    voices = voices_of(part, settings.voices)
    bare = 0.0 if part in spoken_names.HELD_OUT else settings.bare
    given = {"part": part, "records": records, "seed": run.seed, "voices": voices, **spoken_names.identity()}
    drawn = partial(spoken_names.named_requests, part, records, voices, seed=run.seed, bare=bare)
    requests = run.source(f"requests_{part}", drawn, given | ({"bare": bare} if bare else {}))
    speak = Speak.stage(SpeakSettings(sampling_rate=settings.sampling_rate))
    spoken = run.step(Step(part, (speak,), requests, cut=settings.shard))
    return run.step(Step(f"features_{part}", (LogMel.stage(features),), spoken))


def check_named(settings: NamedCorpusSettings) -> None:
    """Check that the corpus can be made here.

    Raises:
        UserError: a voice or a list of names is in a package that is not installed.
    """
    check_voices(voices_of("train", settings.voices))
    spoken_names.distractors("test")
