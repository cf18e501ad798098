"""The systems of the bootstrapping recipe: translators, what they make of the domain's text, and language models of it.

What depends on the size of the in-domain text is made for each size and training seed, what does not for each seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from gristmill.actors.text import choose, confuse, language_model
from gristmill.actors.text.choose import CHOICE
from gristmill.actors.text.parts import DEV, TEST, TRAIN
from gristmill.actors.text.spoken import SpokenTranslations, SpokenTranslationsSettings
from gristmill.pipelines.inputs import refuse_empty
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.domain_texts import DomainTexts, subset
from gristmill.pipelines.text.ngrams import NgramSettings, mix_job
from gristmill.pipelines.text.ngrams_distributed import build_vocabulary, train_ngrams
from gristmill.pipelines.text.translators import (
    TranslateSettings,
    TranslatorSettings,
    TuneSettings,
    translate,
    translator_job,
)
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

Share = Annotated[float, Field(gt=0, le=1)]
Key = tuple[int, int]  # how many times smaller the in-domain text is, and the training seed
Way = Literal["rescoring", "filtering", "together"]  # as a tuning names them


class TuningSettings(Settings):
    """What is tried for rescoring and filtering on development text (:mod:`gristmill.actors.text.lm_tuning`)."""

    # Of the in-domain model's score a word, and shares of the translations.
    weights: tuple[PositiveFloat, ...] = Field((0.25, 0.5, 1.0, 2.0, 4.0), min_length=1)
    keeps: tuple[Share, ...] = Field((1.0, 0.8, 0.6, 0.4, 0.2), min_length=1)


class FineTuningSettings(Settings):
    """Self-training: pairs of the domain's text and the translations that were chosen of it, in rounds."""

    rounds: int = Field(1, ge=1)
    replay: float = Field(0.5, ge=0)  # general pairs for each synthetic one, so that nothing is forgotten
    tune: TuneSettings = TuneSettings(epochs=4, lr=1e-3)


class ChannelSettings(Settings):
    """The confusion channel that stands for a recogniser (:mod:`gristmill.models.text.confusions`)."""

    candidates: int = Field(12, ge=1)
    width: float = Field(0.4, gt=0)
    noise: float = Field(1.5, ge=0)
    n: int = Field(50, ge=1)


@dataclass(frozen=True)
class Reading:
    """Translators, what they made of the domain's text, with the in-domain model's scores, and what was tuned on it.

    Nothing was tuned where translations are neither rescored nor filtered.
    """

    translators: Mapping[Key, Artifact]
    lists: Mapping[Key, SealedSet]
    tuned: Mapping[Key, Mapping[str, Any]]


class Bootstrap:
    """Makes the parts of the systems, each under the name of what it is for."""

    def __init__(
        self,
        run: Run,
        corpora: DomainTexts,
        sizes: Iterable[int],
        langs: tuple[str, str],
        translator: TranslatorSettings,
        translation: TranslateSettings,
        tuning: TuningSettings | None,
        ngrams: NgramSettings,
    ) -> None:
        self._run, self._corpora, self._langs, self._sizes = run, corpora, langs, list(sizes)
        self._translator, self._translation, self._tuning, self._ngrams = translator, translation, tuning, ngrams
        self.texts = {size: subset(run, corpora.parts, TRAIN, size=size) for size in self._sizes}
        self._dev = subset(run, corpora.parts, DEV)
        whole = subset(run, corpora.parts, TRAIN)
        known = [word for name in corpora.catalogue.values() for word in name.split()]
        texts = [(whole, "text"), (corpora.pairs, "target")]
        self.vocabulary = build_vocabulary(run, "vocabulary", texts, words=known, settings=ngrams)
        own = train_ngrams(
            run, "in_domain_lm", [[(text, "text")] for text in self.texts.values()], self.vocabulary, ngrams
        )
        self.in_domain = dict(zip(self._sizes, own, strict=True))

    @property
    def keys(self) -> list[Key]:
        """Every size with every seed."""
        return [(size, seed) for size in self._sizes for seed in self._run.seeds]

    def base(self, name: str, own: Artifact | None = None) -> dict[Key, Artifact]:
        """Return the translator of all pairs for each seed, or the user's ``own`` as it is."""
        if own is not None:
            return dict.fromkeys(self.keys, own)
        return self.translators(name, {key: [self._corpora.pairs] for key in self.keys})

    def translators(
        self,
        name: str,
        data: Mapping[Key, Sequence[SealedSet]],
        init: Mapping[Key, Artifact] | None = None,
        weights: Mapping[Key, Sequence[float]] | None = None,
        tune: TuneSettings | None = None,
    ) -> dict[Key, Artifact]:
        """Train a translator for each key; ``init`` are those that are trained on. Equal trainings are one."""
        own = self._translator if tune is None else self._translator.model_copy(update={"tune": tune})
        jobs = [
            translator_job(
                name,
                sets,
                own,
                key[1],
                init=init[key] if init else None,
                weights=weights[key] if weights else None,
                catalogue=self._corpora.catalogue,
            )
            for key, sets in data.items()
        ]
        return dict(zip(data, self._run.train(jobs), strict=True))

    def translated(self, name: str, translators: Mapping[Key, Artifact]) -> dict[Key, SealedSet]:
        """Translate the domain's source text: n best, in spoken form. Equal translators do it once."""
        by_digest: dict[str, SealedSet] = {}
        for key, translator in translators.items():
            if translator.digest not in by_digest:
                made = self._translate(f"translated_{name}_{_told(key)}", self._corpora.source, translator)
                by_digest[translator.digest] = made
        return {key: by_digest[translator.digest] for key, translator in translators.items()}

    def _translate(self, name: str, texts: SealedSet, translator: Artifact, *then: Stage) -> SealedSet:
        source, target = self._langs
        return translate(
            self._run,
            name,
            texts,
            translator,
            self._translation,
            source_lang=source,
            target_lang=target,
            column="text",
            catalogue=self._corpora.catalogue,
            then=(SpokenTranslations.stage(SpokenTranslationsSettings(lang=target)), *then),
        )

    def scored(self, name: str, lists: Mapping[Key, SealedSet]) -> dict[Key, SealedSet]:
        """Add what the in-domain model of each size says of n-best lists."""
        made = {}
        for key, given in lists.items():
            stage = language_model.lists_stage(self.in_domain[key[0]].ref, "in_domain_lm")
            made[key] = self._run.step(Step(f"scored_{name}_{_told(key)}", (stage,), given))
        return made

    def reading(self, name: str, translators: Mapping[Key, Artifact]) -> Reading:
        """Translate the domain's text, and tune on development text how to choose from the lists."""
        lists = self.scored(name, self.translated(name, translators))
        if self._tuning is None:
            return Reading(translators, lists, {})
        jobs = [
            TrainJob(
                "tuned",
                {
                    "translations": given,
                    "lm": self.in_domain[size],
                    "dev": [self._dev, "text"],
                    "vocabulary": self.vocabulary,
                    "order": self._ngrams.order,
                    "weights": list(self._tuning.weights),
                    "keeps": list(self._tuning.keeps),
                },
                loop="gristmill.actors.text.lm_tuning:tune",
                stepwise=False,
            )
            for (size, _), given in lists.items()
        ]
        tuned = [json.loads(made.read(CHOICE)) for made in self._run.train(jobs)]
        return Reading(translators, lists, dict(zip(lists, tuned, strict=True)))

    def chosen(
        self, name: str, lists: Mapping[Key, SealedSet], tuned: Mapping[Key, Mapping[str, Any]], way: Way | None = None
    ) -> dict[Key, SealedSet]:
        """Choose one translation of each list: the translator's first, or as it was tuned."""
        made = {}
        for key, given in lists.items():
            settings = tuned[key][way] if way else {}
            step = Step(f"{name}_{_told(key)}", (choose.stage(*self._langs, **settings),), given)
            made[key] = self._run.step(step)
        return made

    def fine_tuned(self, name: str, given: Reading, settings: FineTuningSettings, way: Way | None) -> Reading:
        """Train translators on with what they made of the domain's text, as it was chosen and filtered, in rounds."""
        for number in range(settings.rounds):
            pairs = self.chosen(f"synthetic_{name}_{number}", given.lists, given.tuned, way)
            data, weights = {}, {}
            for key, synthetic in pairs.items():
                refuse_empty(synthetic, f"{name}: translations that are kept")
                data[key] = [synthetic, self._corpora.pairs]
                weights[key] = [1.0, min(1.0, settings.replay * synthetic.records / self._corpora.pairs.records)]
            made = self.translators("fine_tuned_translator", data, given.translators, weights, settings.tune)
            given = self.reading(f"{name}_{number}", made)
        return given

    def tested(
        self, name: str, given: Mapping[Key, Artifact], tuned: Mapping[Key, Mapping[str, Any]] | None = None
    ) -> dict[Key, SealedSet]:
        """Translate the references' texts: the translator's first, or rescored as it was tuned."""
        made = {}
        for key, translator in given.items():
            weight = tuned[key]["together"]["weight"] if tuned else 0.0
            score = language_model.lists_stage(self.in_domain[key[0]].ref, "in_domain_lm")
            pick = choose.stage(*self._langs, weight=weight)
            texts = self._corpora.references
            made[key] = self._translate(f"tested_{name}_{_told(key)}", texts, translator, score, pick)
        return made

    def language_models(
        self, texts: Mapping[str, Mapping[Key, SealedSet]], beside: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[Key, Artifact]]:
        """Return for each system the model of its translations, mixed with the in-domain model of each size.

        ``beside`` names for a system others whose models are mixed in, too; equal ones count once.
        """
        keys = [(system, key) for system, sets in texts.items() for key in sets]
        sets = [[(texts[system][key], "target")] for system, key in keys]
        trained = train_ngrams(self._run, "translations_lm", sets, self.vocabulary, self._ngrams)
        alone = dict(zip(keys, trained, strict=True))
        mixing = []
        for system, key in keys:
            parts = [alone[name, key] for name in (system, *beside.get(system, ()))]
            own = {model.digest: model for model in (self.in_domain[key[0]], *parts)}
            mixing.append(mix_job("bootstrapped_lm", list(own.values()), (self._dev, "text")))
        mixed = iter(self._run.train(mixing))
        found: dict[str, dict[Key, Artifact]] = {system: {} for system in texts}
        for system, key in keys:
            found[system][key] = next(mixed)
        return found

    def judged(self, channel: ChannelSettings, models: Mapping[str, Mapping[Key, Artifact]]) -> dict[Key, SealedSet]:
        """Let each system's model score the texts kept apart, and lists of what a channel makes of them."""
        hear = confuse.stage(self.vocabulary.ref, **channel.model_dump())
        heard = self._run.step(Step("heard", (hear,), subset(self._run, self._corpora.parts, DEV, TEST)))
        made = {}
        for key in self.keys:
            stages = []
            for system, own in models.items():
                stages.append(language_model.stage(own[key].ref, f"text_{system}", "text", system))
                stages.append(language_model.lists_stage(own[key].ref, f"lists_{system}", "nbest", system))
            made[key] = self._run.step(Step(f"judged_{_told(key)}", tuple(stages), heard))
        return made


def _told(key: Key) -> str:
    return f"1-{key[0]}_{key[1]}"
