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
from gristmill.actors.speech.personal_fits import PersonalTuning, SpellingFit, learn_spellings, tune
from gristmill.actors.speech.personalise import Personalise, PersonaliseSettings
from gristmill.actors.speech.word_lists import WordListSettings
from gristmill.models.ngrams.estimate import NgramSettings
from gristmill.models.speech.features import FilterBankSettings
from gristmill.models.speech.personal import DECODER, TECHNIQUES, Technique
from gristmill.models.speech.units import UnitSettings
from gristmill.pipelines.report.report import Report
from gristmill.pipelines.run import Run
from gristmill.pipelines.speech.biased_speech import BiasedSpeechSettings, check_biased, prepare_biased
from gristmill.pipelines.speech.named_corpus import NamedCorpusSettings, check_named, prepare_named
from gristmill.pipelines.speech.personal_parts import BaseSettings, Material, assembled, base_job
from gristmill.pipelines.speech.personal_report import make_report
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
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


class ListLengths(Settings):
    """The lists of the test."""

    present: tuple[Size, ...] = (10, 100, 1000)
    """Lengths of lists that hold the true words."""
    absent: tuple[Size, ...] = (10, 100, 1000)
    """Lengths of lists that do not."""
    own: bool = False
    """Whether there is a further test set ``own``, with the published lists of real speech."""
    words: int = Field(1200, ge=1)
    """Words to draw lists from."""


class Config(Settings):
    """The recipe's settings; the defaults are the embedded default."""

    corpus: NamedCorpusSettings = NamedCorpusSettings()
    speech: BiasedSpeechSettings | None = None
    """Real speech to choose settings by and to test, in place of the generated."""
    features: FilterBankSettings = FilterBankSettings()
    units: UnitSettings = UnitSettings()
    base: BaseSettings = BaseSettings()
    adapter: AdapterTraining = AdapterTraining()
    language: NgramSettings = NgramSettings()
    """The word language model."""
    spellings: SpellingFit = SpellingFit()
    """How other spellings are learned, by what the base hears of the adapter's names."""
    tuning: PersonalTuning = PersonalTuning()
    """The recognition, and what is chosen of it on development speech."""
    lists: ListLengths = ListLengths()


def run(config: Config, run: Run) -> Report:
    """Run the recipe and return its report."""
    check(config)

    # Speech with names, the words of lists, how all of them are pronounced, and a language model without them.
    given = _material(run, config)
    lists = _lists(config.lists)
    models: dict[tuple[str, int], Artifact] = {}
    tests: dict[int, dict[str, SealedSet]] = {}
    for seed in run.seeds:
        # The base, frozen from here on, and the adapter, which learns names that the base has not heard.
        base = given.base if given.base is not None else run.train(base_job(config.base, seed, given))
        names = {"base": base, "data": {"features": given.adapter, "text": "text", "names": "names"}}
        heard = names | ({"lexicon": given.known} if config.base.source == "hama" else {})
        adapter = run.train(TrainJob("contextual_adapter", train_adapter, config.adapter.but(seed=seed), heard))

        # How the base spells names, and settings of decoding, by development speech alone.
        suffix = "" if seed == run.seeds[0] else f"_seed{seed}"
        parts = assembled(run, f"parts{suffix}", base, adapter, given.language, given.known)
        by: dict[str, Any] = {"model": parts, "features": given.development, "words": given.words["development"]}
        by |= {"pronounced": given.listed}
        if config.base.source == "trained":
            spelled = {"model": parts, "features": given.adapter}
            by["spellings"] = run.train(
                TrainJob("spellings", learn_spellings, config.spellings, spelled, stepwise=False)
            )
        joint = run.train(TrainJob("joint", tune, config.tuning, by, stepwise=False))
        models |= {("base", seed): base, ("adapter", seed): adapter, ("joint", seed): joint}

        # Every technique alone, and together, with lists of all lengths.
        tests[seed] = {}
        for name, one in lists.items():
            stage = later(_recognised, one, joint, given.words["test"], given.listed)
            tests[seed][name] = run.step(Step(f"{name}{suffix}", (stage,), given.test))
    run.finish()
    return make_report(run, config.model_dump(mode="json"), SYSTEMS, lists, tests, given, models)


def check(config: Config) -> None:
    """Raise a ``UserError`` for mistakes that can be found before anything is made."""
    if config.base.source == "hama" and config.speech is None:
        raise UserError("base.source: hama hears phonemes, not letters; expected real speech (speech) with it")
    if config.base.source == "trained" and config.speech is not None:
        raise UserError("base.source: a base of generated speech does not hear real speech; expected hama")
    if config.lists.own and config.speech is None:
        raise UserError("lists.own: generated speech has no published lists; expected false")
    longest = max((0, *config.lists.present, *config.lists.absent, *config.tuning.sizes))
    if longest > config.lists.words:
        raise UserError(
            f"lists.words: {config.lists.words} words to draw lists of {longest} from; expected as many or more"
        )
    check_named(config.corpus)
    if config.speech is not None:
        check_biased(config.speech)


def _material(run: Run, config: Config) -> Material:
    if config.speech is not None:
        return prepare_biased(run, config.speech, config.corpus, config.language, config.lists.words)
    return prepare_named(run, config.corpus, config.features, config.units, config.language, config.lists.words)


def _lists(settings: ListLengths) -> dict[str, WordListSettings]:
    """Return the lists of the test sets, by name."""
    present = {f"n{size}": WordListSettings(size=size) for size in settings.present}
    absent = {f"absent{size}": WordListSettings(size=size, present=False) for size in settings.absent}
    return present | absent | ({"own": WordListSettings(size=None)} if settings.own else {})


def _recognised(lists: WordListSettings, model: Artifact, words: Artifact, pronounced: Artifact) -> Stage:
    given = PersonaliseSettings(lists=lists, systems=SYSTEMS)
    return Personalise.stage(given, model=model.ref, words=words.ref, pronounced=pronounced.ref)
