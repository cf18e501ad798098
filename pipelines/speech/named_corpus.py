"""The synthetic corpus of the personalisation recipe: spoken requests with rare names, and the texts of their words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from pydantic import Field

from gristmill.actors.audio import RateSettings
from gristmill.actors.speech.features import LogMel
from gristmill.actors.speech.synthesise import Speak, SpeakSettings, check_voices
from gristmill.actors.speech.voices import VoiceChoice, voices_of
from gristmill.models.speech.features import FilterBankSettings
from gristmill.pipelines.generated import spoken_names
from gristmill.pipelines.run import Run
from gristmill.shards.dataset import SealedSet
from gristmill.shards.index import Cut
from gristmill.shards.step import Step


class NamedCorpusSettings(RateSettings):
    """Sizes of the generated corpus; each part has names of its own, and the test parts have voices of their own."""

    train_records: int = Field(4000, ge=1)
    """Utterances that the base learns from."""
    adapter_records: int = Field(1500, ge=1)
    """Utterances that the adapter learns from, beside those of the base."""
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


@dataclass(frozen=True)
class NamedCorpus:
    """Features of the parts, with ``text`` and ``names``, and the texts of the language model."""

    parts: Mapping[str, SealedSet]
    texts: SealedSet


def prepare_named(run: Run, settings: NamedCorpusSettings, features: FilterBankSettings) -> NamedCorpus:
    """Make the requests, speak them, and take their features."""
    speak = Speak.stage(SpeakSettings(sampling_rate=settings.sampling_rate))
    log_mel = LogMel.stage(features.at(settings.sampling_rate))
    made = {}
    for part, records in settings.records().items():
        voices = voices_of("test" if part in spoken_names.HELD_OUT else part, settings.voices)
        given = {"part": part, "records": records, "seed": run.seed, "voices": voices, **spoken_names.identity()}
        requests = run.source(
            f"requests_{part}", partial(spoken_names.named_requests, part, records, voices, seed=run.seed), given
        )
        spoken = run.step(Step(part, (speak,), requests, cut=settings.shard))
        made[part] = run.step(Step(f"features_{part}", (log_mel,), spoken))
    given = {"records": settings.texts, "seed": run.seed, **spoken_names.identity()}
    texts = run.source("texts", partial(spoken_names.texts, settings.texts, seed=run.seed), given)
    return NamedCorpus(made, texts)


def check_named(settings: NamedCorpusSettings) -> None:
    """Check that the corpus can be made here.

    Raises:
        UserError: a voice or a list of names is in a package that is not installed.
    """
    check_voices(voices_of("train", settings.voices))
    spoken_names.distractors("test")
