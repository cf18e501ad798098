"""The systems that are compared, as training jobs: what each sees, and by which objectives it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from gristmill.actors.speech.phases import AcousticTraining, LoopSettings, Phase, Schedule
from gristmill.actors.speech.trainer import train
from gristmill.actors.speech.training_data import SourceInputs
from gristmill.models.speech.losses import ExpectedErrorSettings, SoftTargetSettings
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.models.speech.topk import MAX_K
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Resources


class SoftSettings(Schedule, SoftTargetSettings):
    """Learning from stored labels."""

    warmup: float = Field(0.15, ge=0, le=1)
    ctc_weight: float = Field(0.0, ge=0)
    """Of CTC on gold text, where there is some, mixed in."""
    specaugment: bool = False
    """Whether masks are drawn too: noise and rooms hide enough where a teacher's labels say what is there."""


class GoldSettings(Schedule):
    """The annotated part after all speech. The student keeps its soft labels beside the gold text: gold text alone,
    of so small a part, is learnt by heart at the cost of what the soft labels taught.
    """

    warmup: float = Field(0.15, ge=0, le=1)
    soft_weight: float = Field(1.0, ge=0)
    ctc_weight: float = Field(0.3, gt=0)


class SequenceSettings(Schedule, ExpectedErrorSettings):
    """Minimum expected word error over an n-best list (Prabhavalkar et al., ICASSP 2018), with CTC mixed in."""

    ctc_weight: float = Field(0.1, ge=0)


class SweepSettings(Settings):
    """The grid of k and T that is trained from the labels as they are stored; empty lists leave it out.

    Cells learn from soft labels alone, for ``epochs`` passes: they are compared with each other.
    """

    epochs: float = Field(4, gt=0)
    k: tuple[Annotated[int, Field(ge=1, le=MAX_K)], ...] = (1, 5, 10, 20, 40)
    temperature: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 2.0, 4.0)


class SystemSettings(LoopSettings):
    """Sizes and schedules of all systems."""

    specaugment: SpecAugment | None = None
    """Masks of all phases on text; of soft labels, where ``student.specaugment`` asks for them."""
    teacher: Schedule = Schedule(epochs=40)
    multicondition: Schedule = Schedule(epochs=40)
    hard_labels: Schedule = Schedule(epochs=8)
    student: SoftSettings = SoftSettings(epochs=8)
    gold: GoldSettings | None = GoldSettings(epochs=1, lr=3e-4)
    """Scheduled learning: after all speech; null leaves it out."""
    sequence: SequenceSettings = SequenceSettings(epochs=2, lr=1e-4)
    init: Literal["auto", "teacher", "random"] = "auto"
    """Weights that all who learn from labels begin with (Li et al., Interspeech 2017); auto: the teacher's, if it was
    trained here."""
    ranks: int = Field(1, ge=1)
    """Processes that train a model together."""
    gpus: float = Field(0.0, ge=0)
    """For each rank."""


@dataclass(frozen=True)
class Data:
    """Training data of the systems of one seed: sealed features, and the teacher's labels of the clean originals."""

    clean: SealedSet
    noisy: SealedSet
    unlabelled: SealedSet  # noisy
    labels: SealedSet | None = None  # of the annotated part
    unlabelled_labels: SealedSet | None = None
    teacher: Artifact | None = None


@dataclass(frozen=True)
class Systems:
    """Makes the jobs of one seed; ``vocabulary`` is how many units there are."""

    settings: SystemSettings
    units: Artifact
    vocabulary: int
    seed: int

    def teacher(self, data: Data) -> TrainJob:
        """CTC on the annotated part as it was recorded."""
        return self._job("teacher", {"gold": _gold(data.clean)}, [self._ctc(self.settings.teacher)])

    def multicondition(self, data: Data) -> TrainJob:
        """CTC on the annotated part alone, with noise added: what noise brings without unlabelled data."""
        return self._job("multicondition", {"gold": _gold(data.noisy)}, [self._ctc(self.settings.multicondition)])

    def hard_labels(self, data: Data) -> TrainJob:
        """CTC on the teacher's transcripts of noisy unlabelled speech, and on the gold text of the annotated part."""
        pseudo: SourceInputs = {
            "features": data.unlabelled,
            "labels": data.unlabelled_labels,
            "text": "hypothesis",
        }
        sources = {"gold": _gold(data.noisy), "pseudo": pseudo}
        return self._job("hard_labels", sources, [self._ctc(self.settings.hard_labels)], self._begin(data))

    def student(self, data: Data) -> TrainJob:
        """Soft targets on all speech with noise, then the gold text of the annotated part (scheduled learning)."""
        phases, gold = [self._soft(self.settings.student)], self.settings.gold
        if gold is not None:
            schedule, weights = gold.part(Schedule), {"soft_weight": gold.soft_weight, "ctc_weight": gold.ctc_weight}
            phases.append(phases[0].but(schedule=schedule, sources=("gold",), **weights))
        return self._job("student", _soft_sources(data), phases, self._begin(data))

    def sweep_cell(self, data: Data, k: int, temperature: float, epochs: float) -> TrainJob:
        """Soft targets alone, with another k and T."""
        soft = self.settings.student.but(k=k, temperature=temperature, epochs=epochs, steps=None)
        return self._job("sweep_cell", _soft_sources(data), [self._soft(soft)], self._begin(data))

    def student_seq(self, data: Data, student: Artifact) -> TrainJob:
        """The student, trained on to make fewer word errors on the annotated part."""
        given = self.settings.sequence
        phase = Phase(
            schedule=given.part(Schedule),
            mwer_weight=1.0,
            ctc_weight=given.ctc_weight,
            mwer=given.part(ExpectedErrorSettings),
        )
        return self._job("student_seq", {"gold": _gold(data.noisy)}, [phase], student)

    def _begin(self, data: Data) -> Artifact | None:
        return None if self.settings.init == "random" else data.teacher

    def _soft(self, given: SoftSettings) -> Phase:
        # Above the vocabulary there is nothing more to keep: such a k is the same training.
        soft = given.part(SoftTargetSettings).but(k=min(given.k, self.vocabulary))
        return Phase(
            schedule=given.part(Schedule),
            soft_weight=1.0,
            ctc_weight=given.ctc_weight,
            soft=soft,
            specaugment=self.settings.specaugment if given.specaugment else None,
        )

    def _ctc(self, schedule: Schedule) -> Phase:
        return Phase(schedule=schedule, ctc_weight=1.0, specaugment=self.settings.specaugment)

    def _job(
        self, name: str, sources: dict[str, SourceInputs], phases: list[Phase], init: Artifact | None = None
    ) -> TrainJob:
        """Return a training that begins at random, or with the weights, units and sizes of a model."""
        given = self.settings
        settings = AcousticTraining(
            **dict(given.part(LoopSettings)),
            phases=tuple(phases),
            seed=self.seed,
            device="cuda" if given.gpus else "cpu",
        )
        inputs: dict[str, Any] = {"data": sources} | ({"units": self.units} if init is None else {"init": init})
        resources = Resources(gpus=given.gpus)
        return TrainJob(
            name, loop=train, settings=settings, inputs=inputs, version=2, ranks=given.ranks, resources=resources
        )


def _gold(features: SealedSet) -> SourceInputs:
    return {"features": features, "text": "text"}


def _soft_sources(data: Data) -> dict[str, SourceInputs]:
    return {
        "gold": {"features": data.noisy, "labels": data.labels, "text": "text"},
        "soft": {"features": data.unlabelled, "labels": data.unlabelled_labels},
    }
