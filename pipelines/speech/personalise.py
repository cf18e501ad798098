"""Recognition of a user's words without retraining.

Dingliwal et al., "Personalization of CTC Speech Recognition Models" (SLT 2022). A CTC base is trained with further
losses on inner layers, one of them on phones, and is frozen. A contextual adapter learns to hear lists of words in its
inner layers; a beam search with a word language model boosts them in five ways. The words of the test, and the names
of its lists, are in no training: a list needs none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from gristmill.actors.speech.adapter_trainer import AdapterTraining, train_adapter
from gristmill.actors.speech.personal_fits import SpellingFit, TuneSettings, learn_spellings, tune
from gristmill.actors.speech.personalise import Personalise, PersonaliseSettings
from gristmill.actors.speech.word_lists import WordListSettings
from gristmill.models.ngrams.estimate import NgramSettings
from gristmill.models.speech.features import FilterBankSettings
from gristmill.models.speech.personal import DECODER, TECHNIQUES, Technique
from gristmill.models.speech.units import UnitSettings
from gristmill.pipelines.generated import spoken_names
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.named_corpus import NamedCorpusSettings, check_named, prepare_named
from gristmill.pipelines.speech.personal_parts import (
    BaseSettings,
    assembled,
    base_job,
    drawn_words,
    language_model,
    pronunciations,
    word_file,
    word_set,
)
from gristmill.pipelines.speech.personal_report import make_report
from gristmill.pipelines.speech.spelling import fitted_units
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import later
from gristmill.shards.settings import Settings, Size
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

SYSTEMS: Mapping[str, tuple[Technique, ...]] = {
    "base": (),
    "adapter": ("adapter",),
    **{technique: (technique,) for technique in DECODER},
    "decoder": DECODER,
    "joint": TECHNIQUES,
}


class ListSettings(Settings):
    """The lists of the test."""

    present: tuple[Size, ...] = (10, 100, 1000)
    """Lengths of lists that hold the true words."""
    absent: tuple[Size, ...] = (100,)
    """Lengths of lists that do not."""
    words: int = Field(1200, ge=1)
    """Words to draw lists from."""


class Config(Settings):
    """The recipe's settings; the defaults are the embedded default."""

    corpus: NamedCorpusSettings = NamedCorpusSettings()
    features: FilterBankSettings = FilterBankSettings()
    units: UnitSettings = UnitSettings()
    base: BaseSettings = BaseSettings()
    adapter: AdapterTraining = AdapterTraining()
    language: NgramSettings = NgramSettings()
    """The word language model."""
    spellings: SpellingFit = SpellingFit()
    """How other spellings are learned, by what the base hears of the adapter's names."""
    tuning: TuneSettings = TuneSettings()
    """The recognition, and what is chosen of it on development speech."""
    lists: ListSettings = ListSettings()


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    check_named(config.corpus)

    # Requests with names, and how their words and those of the lists are pronounced.
    corpus = prepare_named(run, config.corpus, config.features)
    parts, seed = corpus.parts, run.seed
    pools = {
        part: drawn_words(spoken_names.distractors(part), config.lists.words, part, seed)
        for part in spoken_names.HELD_OUT
    }
    known = pronunciations(run, "lexicon", word_set(run, "words", [parts["train"]]))
    others = {word for words in pools.values() for word in words}
    of_lists = word_set(run, "listed_words", [parts[part] for part in pools], sorted(others))
    listed = pronunciations(run, "listed_lexicon", of_lists)
    drawn = {part: word_file(run, f"{part}_words", words) for part, words in pools.items()}
    units = fitted_units(run, config.units, parts["train"])
    language = language_model(run, config.language, corpus.texts)

    models: dict[tuple[str, int], Artifact] = {}
    tests: dict[int, dict[str, SealedSet]] = {}
    for training in run.seeds:
        # The base, frozen from here on, and the adapter, which learns names that the base has not heard.
        base = run.train(base_job(config.base, training, units, known, parts["train"]))
        inputs = {"base": base, "data": {"features": parts["adapter"], "text": "text", "names": "names"}}
        adapter = run.train(TrainJob("contextual_adapter", train_adapter, config.adapter.but(seed=training), inputs))

        # How the base spells names, and settings of decoding, by development speech alone.
        suffix = "" if training == run.seeds[0] else f"_seed{training}"
        made = assembled(run, f"parts{suffix}", base, adapter, language, known, without=("training.json",))
        heard = {"model": made, "features": parts["adapter"]}
        spelled = run.train(TrainJob("spellings", learn_spellings, config.spellings, heard, stepwise=False))
        given: dict[str, Any] = {"model": made, "features": parts["development"], "words": drawn["development"]}
        given |= {"spellings": spelled, "pronounced": listed}
        joint = run.train(TrainJob("joint", tune, config.tuning, given, stepwise=False))
        models |= {("base", training): base, ("adapter", training): adapter, ("joint", training): joint}

        # Every technique alone, and together, with lists of all lengths.
        tests[training] = {}
        for name, lists in _lists(config.lists).items():
            stage = later(_recognised, lists, joint, drawn["test"], listed)
            tests[training][name] = run.step(Step(f"{name}{suffix}", (stage,), parts["test"]))
    run.finish()
    settings = config.model_dump(mode="json")
    return make_report(run, settings, SYSTEMS, _lists(config.lists), tests, drawn["test"], models)


def _lists(settings: ListSettings) -> dict[str, WordListSettings]:
    """Return the lists of the test sets, by name."""
    present = {f"n{size}": WordListSettings(size=size) for size in settings.present}
    return present | {f"absent{size}": WordListSettings(size=size, present=False) for size in settings.absent}


def _recognised(lists: WordListSettings, model: Artifact, words: Artifact, pronounced: Artifact) -> Stage:
    given = PersonaliseSettings(lists=lists, systems=SYSTEMS)
    return Personalise.stage(given, model=model.ref, words=words.ref, pronounced=pronounced.ref)
