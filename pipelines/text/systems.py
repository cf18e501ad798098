"""The systems of the bootstrapping recipe: translators, their translations of in-domain text, language models of these.

Results that depend on the size of the in-domain text are made for each size and training seed, others for each seed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from pydantic import Field

from gristmill.actors.text import lm_tuning
from gristmill.actors.text.choose import ChoiceSettings, Choose
from gristmill.actors.text.confuse import Confuse
from gristmill.actors.text.language_model import ListScoreSettings, ScoreLists, ScoreText, TextScoreSettings
from gristmill.actors.text.lm_tuning import CHOICE, Choice, Rule, Tuning, TuningSettings, Way
from gristmill.actors.text.parts import DEV, TEST, TRAIN
from gristmill.actors.text.spoken import SpokenTranslations, SpokenTranslationsSettings
from gristmill.models.ngrams.estimate import NgramSettings
from gristmill.models.text.confusions import ChannelSettings
from gristmill.pipelines.inputs import refuse_empty
from gristmill.pipelines.run import Run
from gristmill.pipelines.text.domain_texts import DomainTexts, subset
from gristmill.pipelines.text.ngrams import LanguageModelSettings, mix_job
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
from gristmill.shards.plan import later
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step

NO_RULE = Rule(weight=0.0, least=None)  # the translator's best, whatever its in-domain score
Key = tuple[int, int]  # the factor by which the in-domain text is smaller, and the training seed


class FineTuningSettings(Settings):
    """Self-training on pairs of in-domain text and its chosen translations, in rounds."""

    rounds: int = Field(1, ge=1)
    """Rounds of translating and training."""
    replay: float = Field(0.5, ge=0)
    """General pairs per synthetic pair, against forgetting."""
    tune: TuneSettings = TuneSettings(epochs=4, lr=1e-3)
    """The training of each round."""


@dataclass(frozen=True)
class Translated:
    """Translators, their translations of in-domain text with the in-domain model's scores, and the tuned choices.

    ``tuned`` is empty if translations are neither rescored nor filtered.
    """

    translators: Mapping[Key, Artifact]
    lists: Mapping[Key, SealedSet]
    tuned: Mapping[Key, Artifact]


class Bootstrap:
    """Makes the components of the systems, named by purpose."""

    def __init__(
        self,
        run: Run,
        corpora: DomainTexts,
        sizes: Iterable[int],
        langs: tuple[str, str],
        translator: TranslatorSettings,
        translation: TranslateSettings,
        tuning: TuningSettings | None,
        ngrams: LanguageModelSettings,
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
        """All combinations of size and seed."""
        return [(size, seed) for size in self._sizes for seed in self._run.seeds]

    def base(self, name: str, own: Artifact | None = None) -> dict[Key, Artifact]:
        """Return the translator of all pairs for each key, or the user's ``own``, unchanged."""
        if own is not None:
            return dict.fromkeys(self.keys, own)
        made = self.translators(name, {(1, seed): [self._corpora.pairs] for seed in self._run.seeds})
        return {(size, seed): made[1, seed] for size, seed in self.keys}

    def translators(
        self,
        name: str,
        data: Mapping[Key, Sequence[SealedSet]],
        init: Mapping[Key, Artifact] | None = None,
        weights: Mapping[Key, Sequence[float]] | None = None,
        tune: TuneSettings | None = None,
    ) -> dict[Key, Artifact]:
        """Train a translator for each key, ``init`` being the initial ones."""
        own = self._translator if tune is None else self._translator.model_copy(update={"tune": tune})
        return {
            key: self._run.train(
                translator_job(
                    name,
                    sets,
                    own,
                    key[1],
                    init=init[key] if init else None,
                    weights=weights[key] if weights else None,
                    catalogue=self._corpora.catalogue,
                )
            )
            for key, sets in data.items()
        }

    def _lists(self, name: str, translators: Mapping[Key, Artifact]) -> dict[Key, SealedSet]:
        """Translate the in-domain source text: n-best, in spoken form; once per distinct translator."""
        made: dict[Artifact, SealedSet] = {}
        for key, translator in translators.items():
            if translator not in made:
                made[translator] = self._translate(f"translated_{name}_{_of(key)}", self._corpora.source, translator)
        return {key: made[translator] for key, translator in translators.items()}

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

    def _scored(self, name: str, lists: Mapping[Key, SealedSet]) -> dict[Key, SealedSet]:
        """Add each size's in-domain model scores to n-best lists."""
        made = {}
        for key, given in lists.items():
            stage = ScoreLists.stage(ListScoreSettings(), name="in_domain_lm", model=self.in_domain[key[0]].ref)
            made[key] = self._run.step(Step(f"scored_{name}_{_of(key)}", (stage,), given))
        return made

    def translated(self, name: str, translators: Mapping[Key, Artifact]) -> Translated:
        """Translate the in-domain text, and tune the choice from the lists on development text."""
        lists = self._scored(name, self._lists(name, translators))
        if self._tuning is None:
            return Translated(translators, lists, {})
        settings = Tuning(
            weights=self._tuning.weights,
            keeps=self._tuning.keeps,
            ngrams=NgramSettings(order=self._ngrams.order),
        )

        def job(size: int, given: SealedSet) -> TrainJob:
            return TrainJob(
                "tuned",
                loop=lm_tuning.tune,
                settings=settings,
                inputs={
                    "translations": given,
                    "lm": self.in_domain[size],
                    "dev": (self._dev, "text"),
                    "vocabulary": self.vocabulary,
                },
                stepwise=False,
            )

        tuned = {(size, seed): self._run.train(job(size, given)) for (size, seed), given in lists.items()}
        return Translated(translators, lists, tuned)

    def chosen(
        self, name: str, lists: Mapping[Key, SealedSet], tuned: Mapping[Key, Artifact], way: Way | None = None
    ) -> dict[Key, SealedSet]:
        """Choose one translation of each list: the translator's best, or by the tuned rule."""
        made = {}
        for key, given in lists.items():
            stage = later(self._chosen, tuned[key], way) if way else self._choose(NO_RULE)
            made[key] = self._run.step(Step(f"{name}_{_of(key)}", (stage,), given))
        return made

    def _chosen(self, tuned: Artifact, way: Way) -> Stage:
        return self._choose(read_choice(tuned)[way])

    def _choose(self, rule: Rule) -> Stage:
        source, target = self._langs
        return Choose.stage(ChoiceSettings(source_lang=source, target_lang=target, **rule))

    def fine_tuned(self, name: str, given: Translated, settings: FineTuningSettings, way: Way | None) -> Translated:
        """Fine-tune translators on their own chosen and filtered translations of in-domain text, in rounds."""
        for number in range(settings.rounds):
            pairs = self.chosen(f"synthetic_{name}_{number}", given.lists, given.tuned, way)
            data, weights = {}, {}
            for key, synthetic in pairs.items():
                refuse_empty(synthetic, f"{name}: kept translations")
                data[key] = [synthetic, self._corpora.pairs]
                weights[key] = later(partial(_replay, settings.replay), synthetic, self._corpora.pairs)
            made = self.translators("fine_tuned_translator", data, given.translators, weights, settings.tune)
            given = self.translated(f"{name}_{number}", made)
        return given

    def tested(
        self, name: str, given: Mapping[Key, Artifact], tuned: Mapping[Key, Artifact] | None = None
    ) -> dict[Key, SealedSet]:
        """Translate the references' texts: the translator's best, or rescored by the tuned rule."""
        made = {}
        for key, translator in given.items():
            score = ScoreLists.stage(ListScoreSettings(), name="in_domain_lm", model=self.in_domain[key[0]].ref)
            pick = later(self._rescored, tuned[key]) if tuned else self._choose(NO_RULE)
            texts = self._corpora.references
            made[key] = self._translate(f"tested_{name}_{_of(key)}", texts, translator, score, pick)
        return made

    def _rescored(self, tuned: Artifact) -> Stage:
        return self._choose(Rule(weight=read_choice(tuned)["together"]["weight"], least=None))

    def language_models(
        self, texts: Mapping[str, Mapping[Key, SealedSet]], beside: Mapping[str, Sequence[str]]
    ) -> dict[str, dict[Key, Artifact]]:
        """Return for each system the model of its translations, mixed with the in-domain model of each size.

        ``beside`` names, per system, others whose models are mixed in as well; equal ones count once.
        """
        keys = [(system, key) for system, sets in texts.items() for key in sets]
        sets = [[(texts[system][key], "target")] for system, key in keys]
        trained = train_ngrams(self._run, "translations_lm", sets, self.vocabulary, self._ngrams)
        alone = dict(zip(keys, trained, strict=True))
        found: dict[str, dict[Key, Artifact]] = {system: {} for system in texts}
        for system, key in keys:
            parts = [alone[name, key] for name in (system, *beside.get(system, ()))]
            own = later(_distinct, [self.in_domain[key[0]], *parts])
            found[system][key] = self._run.train(mix_job("bootstrapped_lm", own, (self._dev, "text")))
        return found

    def judged(self, channel: ChannelSettings, models: Mapping[str, Mapping[Key, Artifact]]) -> dict[Key, SealedSet]:
        """Score held-out texts and their n-best lists from a confusion channel with each system's model."""
        hear = Confuse.stage(channel, vocabulary=self.vocabulary.ref)
        confused = self._run.step(Step("heard", (hear,), subset(self._run, self._corpora.parts, DEV, TEST)))
        made = {}
        for key in self.keys:
            stages = []
            for system, own in models.items():
                text, lists = TextScoreSettings(prefix=system), ListScoreSettings(column="nbest", prefix=system)
                stages.append(ScoreText.stage(text, name=f"text_{system}", model=own[key].ref))
                stages.append(ScoreLists.stage(lists, name=f"lists_{system}", model=own[key].ref))
            made[key] = self._run.step(Step(f"judged_{_of(key)}", tuple(stages), confused))
        return made


def read_choice(tuned: Artifact) -> Choice:
    """Return the tuned rules of choosing a translation."""
    found: Choice = json.loads(tuned.read(CHOICE))
    return found


def _replay(share: float, synthetic: SealedSet, pairs: SealedSet) -> list[float]:
    """Return the weights of synthetic pairs and of general ones, ``share`` of these for each of those."""
    return [1.0, min(1.0, share * synthetic.records / pairs.records)]


def _distinct(models: Sequence[Artifact]) -> list[Artifact]:
    return list({model.digest: model for model in models}.values())


def _of(key: Key) -> str:
    return f"1-{key[0]}_{key[1]}"
