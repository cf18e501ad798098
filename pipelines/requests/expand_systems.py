"""The systems of the expansion recipe: recognisers of a new function, by what they are trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from pydantic import Field

from gristmill.actors.embed import EmbedderSettings, embedder_ref, embedder_stage
from gristmill.actors.nearest import DrawnDistance, DrawSettings, Keep, ThresholdSettings
from gristmill.actors.nlu import domain_trainer
from gristmill.actors.nlu.domain_trainer import DomainTraining
from gristmill.actors.requests import paraphrase_trainer, relevance, slot_teacher
from gristmill.actors.requests.function_reader import Label
from gristmill.actors.requests.functions import FunctionSettings, Reveal
from gristmill.actors.requests.paraphrase_trainer import ParaphraseTraining
from gristmill.actors.requests.paraphrases import Paraphrases, collect
from gristmill.actors.requests.propagation import PropagationSettings, accept
from gristmill.actors.requests.relevance import KeepDrawn, KeepRelevant, Relevance, RelevanceFitSettings
from gristmill.actors.requests.slot_teacher import SlotTeacherSettings, SlotTeacherTraining, TeachSlots
from gristmill.models.nlu.linear import LinearSettings
from gristmill.pipelines.nearest import nearest_limit
from gristmill.pipelines.requests.expand_parts import FunctionCell, embedded
from gristmill.pipelines.run import Run
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import later
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Stage
from gristmill.shards.step import Step


class FunctionRecogniserSettings(Settings):
    """A recogniser of a new function: its model, how its threshold is tuned, and the filter that self-trains it."""

    model: LinearSettings = LinearSettings(negatives=None)
    """The domain model."""
    same_slots: int = Field(0, ge=0)
    """Requests of other functions with slots of the same names, at most, that the slot tagger is trained on too."""
    slot_teacher: SlotTeacherSettings | None = None
    """A tagger on encoder states, which tags the slots of self-labelled requests (``null``: the recogniser does)."""
    relevance: RelevanceFitSettings = RelevanceFitSettings()
    """The relevance model of the filter."""
    folds: int = Field(4, ge=2)
    """Folds of the cross-validation of the threshold."""
    prior: float = Field(0.03, gt=0, lt=1)
    """The share of traffic that a new function is expected to have; the threshold has the best F1 at it."""


# The recogniser of the whole system.
FUSED = FunctionRecogniserSettings(
    model=LinearSettings(negatives=None, balanced=True, embedding=2.0),
    same_slots=600,
    slot_teacher=SlotTeacherSettings(),
)


class SelfTrainingSettings(Settings):
    """The filter and self-training."""

    first_cut: int = Field(20_000, ge=1)
    """The most relevant requests of a pool without embeddings, by n-grams: they alone are embedded."""
    count: int = Field(400, ge=1)
    """The most relevant requests of these that are labelled."""
    rounds: int = Field(3, ge=1)
    """Rounds: in each, filter and recogniser are trained on the seeds and what was accepted before."""
    weight: float = Field(1.0, gt=0)
    """Weight of a self-labelled request; that of an annotated one is 1."""


@dataclass(frozen=True)
class SelfTrained:
    """A recogniser, and the self-labelled requests that it was trained on."""

    model: Artifact
    added: SealedSet
    filtered: SealedSet


@dataclass
class Expansion:
    """The recognisers of one cell, the labelled requests that each was trained on, and those proposed to annotators."""

    cell: FunctionCell
    models: dict[str, Artifact] = field(default_factory=dict)
    added: dict[str, SealedSet] = field(default_factory=dict)
    trained: dict[str, SelfTrained] = field(default_factory=dict)
    proposed: SealedSet | None = None


class CellSystems:
    """Declares the recognisers of one cell."""

    def __init__(
        self,
        run: Run,
        cell: FunctionCell,
        training: SelfTrainingSettings,
        embedder: EmbedderSettings,
        first_cut: RelevanceFitSettings,
    ) -> None:
        self._run, self._cell, self._training, self._embedder = run, cell, training, embedder
        # What is fitted to the seeds alone is one for all systems of equal settings.
        self._of_seeds: dict[RelevanceFitSettings, Artifact] = {}
        self._first: dict[RelevanceFitSettings, SealedSet] = {}
        self._candidates = cell.pool if cell.embedded else self._first_cut(first_cut)

    def recogniser(self, name: str, settings: FunctionRecogniserSettings, *added: SealedSet) -> Artifact:
        """Train a recogniser on the seeds, others' requests and sets of labelled ones."""
        cell = self._cell
        training = DomainTraining(
            domain=cell.function,
            model=settings.model,
            same_slots=settings.same_slots,
            threshold_folds=settings.folds,
            prior=settings.prior,
            added_weight=self._training.weight,
        )
        inputs = {"data": [cell.seeds, cell.others]} | ({"added": list(added)} if added else {})
        loop = domain_trainer.train
        # Version 2: with the classifiers of the folds.
        return self._run.train(TrainJob(f"model_{name}", loop, training, inputs, version=2, stepwise=False))

    def _first_cut(self, settings: RelevanceFitSettings) -> SealedSet:
        """Embed the most relevant requests of a large pool by n-grams, among which all rounds filter."""
        scored = self._scored("first_cut", settings.but(embedding=0.0), self._cell.pool)
        kept = self._kept("first_cut", scored, ThresholdSettings(count=self._training.first_cut))
        return embedded(self._run, f"candidates_{self._cell.name}", kept, self._embedder)

    def filtered(self, name: str, settings: RelevanceFitSettings, labelled: Sequence[SealedSet] = ()) -> SealedSet:
        """Keep the most relevant requests of the pool: fitted, scored on all workers, and cut exactly."""
        if not labelled and settings in self._first:
            return self._first[settings]
        scored = self._scored(name, settings, self._candidates, labelled)
        kept = self._kept(f"filtered_{name}", scored, ThresholdSettings(count=self._training.count))
        return kept if labelled else self._first.setdefault(settings, kept)

    def _scored(
        self, name: str, settings: RelevanceFitSettings, requests: SealedSet, labelled: Sequence[SealedSet] = ()
    ) -> SealedSet:
        fitted = self._fitted(name, settings, labelled)
        stage = Relevance.stage(relevance=fitted.ref)
        return self._run.step(Step(f"scored_{name}_{self._cell.name}", (stage,), requests))

    def _fitted(self, name: str, settings: RelevanceFitSettings, labelled: Sequence[SealedSet]) -> Artifact:
        if not labelled and settings in self._of_seeds:
            return self._of_seeds[settings]
        inputs = {"seeds": [self._cell.seeds, *labelled], "others": self._cell.others}
        fitted = self._run.train(TrainJob(f"relevance_{name}", relevance.train, settings, inputs, stepwise=False))
        return fitted if labelled else self._of_seeds.setdefault(settings, fitted)

    def self_trained(
        self,
        name: str,
        settings: FunctionRecogniserSettings,
        teacher: Artifact,
        propagation: PropagationSettings | None = None,
    ) -> SelfTrained:
        """Label the most relevant requests by the recogniser and train it on those that are accepted, in rounds."""
        labelled: list[SealedSet] = []
        slots = [self._taught(name, settings.slot_teacher, settings.same_slots)] if settings.slot_teacher else []
        for number in range(1, self._training.rounds + 1):
            end = f"{name}_{number}"
            filtered = self.filtered(end, settings.relevance, labelled)
            added = self.labelled(end, filtered, teacher, propagation, slots)
            teacher, labelled = self.recogniser(end, settings, added), [added]
        return SelfTrained(teacher, added, filtered)

    def _taught(self, name: str, settings: SlotTeacherSettings, same_slots: int) -> Stage:
        """Train a tagger on encoder states, and return the stage that tags self-labelled requests with it."""
        encoder, cell = embedder_ref(self._embedder), self._cell
        training = SlotTeacherTraining(domain=cell.function, same_slots=same_slots, **dict(settings))
        inputs = {"seeds": cell.seeds, "others": cell.others, "encoder": encoder}
        made = self._run.train(TrainJob(f"slots_{name}", slot_teacher.train, training, inputs, stepwise=False))
        return TeachSlots.stage(teacher=made.ref, encoder=encoder)

    def labelled(
        self,
        name: str,
        requests: SealedSet,
        teacher: Artifact,
        propagation: PropagationSettings | None = None,
        slots: Sequence[Stage] = (),
    ) -> SealedSet:
        """Return the requests that a recogniser accepts, by itself or with label propagation, with its labels.

        ``slots`` are stages that tag their slots in its place.
        """
        accepted = None
        if propagation is not None:
            known = {"seeds": self._cell.seeds, "others": self._cell.others}
            inputs = {**known, "requests": requests, "model": teacher}
            job = TrainJob(f"accepted_{name}", accept, propagation, inputs, stepwise=False)
            accepted = self._run.train(job).ref
        stage = Label.stage(model=teacher.ref, accepted=accepted)
        return self._run.step(Step(f"labelled_{name}_{self._cell.name}", (stage, *slots), requests))

    def drawn(self, name: str, requests: SealedSet, like: SealedSet) -> SealedSet:
        """Return as many random requests as another set has."""
        stage = DrawnDistance.stage(DrawSettings(seed=self._cell.draw))
        far = self._run.step(Step(f"drawn_{name}_{self._cell.name}", (stage,), requests))
        found = self._kept(f"random_{name}", far, later(_as_many, like), KeepDrawn)
        name = f"embedded_{name}_{self._cell.name}"
        return found if self._cell.embedded else embedded(self._run, name, found, self._embedder)

    def gold(self, name: str, requests: SealedSet, function: FunctionSettings) -> SealedSet:
        """Return the function's requests of a set of the pool with their annotation, as an annotator would give it."""
        return self._run.step(Step(f"gold_{name}_{self._cell.name}", (Reveal.stage(function),), requests))

    def detector(self, settings: ParaphraseTraining) -> Artifact:
        """Train a paraphrase detector on the templates of other functions, filled with values."""
        others, name = self._cell.others, f"{self._cell.function}_{self._cell.draw}"
        templates = self._run.train(TrainJob("templates", collect, inputs={"data": others}, stepwise=False))
        filled = self._run.step(Step(f"filled_{name}", (Paraphrases.stage(templates=templates.ref),), others))
        pairs = self._run.step(Step(f"pairs_{name}", (embedder_stage(self._embedder),), filled))
        return self._run.train(TrainJob("detector", paraphrase_trainer.train, settings, {"data": pairs}))

    def _kept(
        self, name: str, scored: SealedSet, settings: ThresholdSettings, by: type[Keep] = KeepRelevant
    ) -> SealedSet:
        limit = nearest_limit(self._run, name, scored, settings)
        return self._run.step(Step(f"{name}_{self._cell.name}", (by.stage(threshold=limit.ref),), scored))


def _as_many(like: SealedSet) -> ThresholdSettings:
    return ThresholdSettings(count=max(1, like.records))
