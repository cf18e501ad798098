"""The compared systems as training jobs: the data and the objectives of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from gristmill.actors.speech.phases import AcousticLoopSettings, AcousticTraining, Phase
from gristmill.actors.speech.trainer import train
from gristmill.actors.speech.training_data import SourceInputs
from gristmill.actors.training.settings import Schedule
from gristmill.models.speech.losses import ExpectedErrorSettings, SoftTargetSettings
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.models.speech.topk import MAX_K
from gristmill.models.speech.units import UNITS_FILE, Units
from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.plan import later
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Resources


class HardSettings(Schedule):
    """Training on the teacher's transcripts."""

    specaugment: bool = True
    """Whether to use SpecAugment."""


class SoftSettings(Schedule, SoftTargetSettings):
    """Training on stored labels."""

    warmup: float = Field(0.15, ge=0, le=1)
    ctc_weight: float = Field(0.0, ge=0)
    """Weight of CTC on gold text, beside the soft targets times the square of their temperature."""
    transcripts: bool = False
    """Whether CTC is also on the teacher's transcripts of the unlabelled speech: soft and hard targets together
    (Hinton et al., 2015), of which the latter leave the student its own alignment."""
    specaugment: bool = False
    """Whether to use SpecAugment too: noise and rooms hide enough, while the teacher's labels are of clean speech."""


class GoldSettings(Schedule):
    """Training on the annotated part after all speech. Soft labels are kept in addition to the gold text: on gold text
    alone, the student would overfit to so small a part and forget the soft labels.
    """

    warmup: float = Field(0.15, ge=0, le=1)
    soft_weight: float = Field(1.0, ge=0)
    """Weight of the soft labels of the annotated part."""
    ctc_weight: float = Field(0.3, gt=0)
    """Weight of CTC on the gold text."""


class SequenceSettings(Schedule, ExpectedErrorSettings):
    """Minimum expected word error over an n-best list (Prabhavalkar et al., ICASSP 2018), with CTC mixed in."""

    ctc_weight: float = Field(0.1, ge=0)
    """Weight of CTC on the gold text, beside the expected errors."""


class SweepSettings(Settings):
    """The grid of k and T, trained on the stored labels; empty lists leave it out.

    Cells are trained on soft labels only, for ``epochs`` passes: they are compared with each other.
    """

    epochs: float = Field(4, gt=0)
    """Passes over the soft labels, in each cell."""
    k: tuple[Annotated[int, Field(ge=1, le=MAX_K)], ...] = (1, 5, 10, 20, 40)
    """Numbers of log-probabilities of a frame that a cell learns from."""
    temperature: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 2.0, 4.0)
    """Temperatures of the distributions."""


class SystemSettings(AcousticLoopSettings):
    """Sizes and schedules of all systems."""

    specaugment: SpecAugment | None = None
    """SpecAugment in all phases on text, but for ``hard_labels.specaugment``; on soft labels, if
    ``student.specaugment`` is set."""
    teacher: Schedule = Schedule(epochs=40)
    multicondition: Schedule = Schedule(epochs=40)
    hard_labels: HardSettings = HardSettings(epochs=8)
    student: SoftSettings = SoftSettings(epochs=8)
    gold: GoldSettings | None = GoldSettings(epochs=1, lr=3e-4)
    """Scheduled learning, after all speech; null leaves it out."""
    sequence: SequenceSettings = SequenceSettings(epochs=2, lr=1e-4)
    init: Literal["auto", "teacher", "random"] = "auto"
    """Initial weights of all systems trained on labels (Li et al., Interspeech 2017); auto: the teacher's, if it was
    trained here."""
    ranks: int = Field(1, ge=1)
    """Processes that train a model together."""
    gpus: float = Field(0.0, ge=0)
    """Per rank."""


@dataclass(frozen=True)
class Data:
    """Training data of the systems of one seed: sealed features, and the teacher's labels of the clean originals."""

    clean: SealedSet | None  # None with a teacher that is not trained here: nothing is trained on it
    noisy: SealedSet
    unlabelled: SealedSet  # noisy
    labels: SealedSet | None = None  # of the annotated part
    unlabelled_labels: SealedSet | None = None
    teacher: Artifact | None = None
    aligned: SealedSet | None = None  # noisy: utterances of recordings that came with the text of the whole
    aligned_labels: SealedSet | None = None

    @property
    def annotated(self) -> dict[str, SourceInputs]:
        """What students learn gold text from."""
        more = {} if self.aligned is None else {"aligned": _gold(self.aligned)}
        return {"gold": _gold(self.noisy), **more}


@dataclass(frozen=True)
class Systems:
    """Makes the jobs of one seed."""

    settings: SystemSettings
    units: Artifact
    seed: int

    def teacher(self, data: Data) -> TrainJob:
        """CTC on the annotated part, without noise."""
        assert data.clean is not None
        return self._job("teacher", {"gold": _gold(data.clean)}, [self._ctc(self.settings.teacher)])

    def multicondition(self, data: Data) -> TrainJob:
        """CTC on the annotated part alone, with noise: the effect of noise without unlabelled data."""
        return self._job("multicondition", {"gold": _gold(data.noisy)}, [self._ctc(self.settings.multicondition)])

    def hard_labels(self, data: Data) -> TrainJob:
        """CTC on the teacher's transcripts of noisy unlabelled speech, and on the gold text of the annotated part."""
        pseudo: SourceInputs = {
            "features": data.unlabelled,
            "labels": data.unlabelled_labels,
            "text": "hypothesis",
        }
        sources = {**data.annotated, "pseudo": pseudo}
        given = self.settings.hard_labels
        phase = self._ctc(given.part(Schedule), masked=given.specaugment)
        return self._job("hard_labels", sources, [phase], self._begin(data))

    def student(self, data: Data) -> TrainJob:
        """Soft targets on all speech with noise, with or without the transcripts, then the gold text of the annotated
        part (scheduled learning).
        """
        phases, gold = [self._soft(self.settings.student)], self.settings.gold
        if gold is not None:
            schedule, weights = gold.part(Schedule), {"soft_weight": gold.soft_weight, "ctc_weight": gold.ctc_weight}
            phases.append(phases[0].but(schedule=schedule, sources=tuple(data.annotated), **weights))
        sources = _soft_sources(data)
        if self.settings.student.transcripts:
            sources["soft"] = {**sources["soft"], "text": "hypothesis"}
        return self._job("student", sources, phases, self._begin(data))

    def sweep_cell(self, data: Data, k: int, temperature: float, epochs: float) -> TrainJob:
        """Soft targets alone, with another k and T."""
        soft = self.settings.student.but(k=k, temperature=temperature, epochs=epochs, steps=None, ctc_weight=0.0)
        return self._job("sweep_cell", _soft_sources(data), [self._soft(soft)], self._begin(data))

    def student_seq(self, data: Data, student: Artifact) -> TrainJob:
        """The student, trained further for minimum expected word error on the annotated part."""
        given = self.settings.sequence
        phase = Phase(
            schedule=given.part(Schedule),
            mwer_weight=1.0,
            ctc_weight=given.ctc_weight,
            mwer=given.part(ExpectedErrorSettings),
        )
        return self._job("student_seq", data.annotated, [phase], student)

    def _begin(self, data: Data) -> Artifact | None:
        return None if self.settings.init == "random" else data.teacher

    def _soft(self, given: SoftSettings) -> Phase:
        return Phase(
            schedule=given.part(Schedule),
            soft_weight=1.0,
            ctc_weight=given.ctc_weight,
            soft=given.part(SoftTargetSettings),
            specaugment=self.settings.specaugment if given.specaugment else None,
        )

    def _ctc(self, schedule: Schedule, *, masked: bool = True) -> Phase:
        return Phase(schedule=schedule, ctc_weight=1.0, specaugment=self.settings.specaugment if masked else None)

    def _job(
        self, name: str, sources: dict[str, SourceInputs], phases: list[Phase], init: Artifact | None = None
    ) -> TrainJob:
        """Return a training from random weights, or from the weights, units and sizes of a model."""
        given = self.settings
        settings = AcousticTraining(
            **dict(given.part(AcousticLoopSettings)),
            phases=tuple(phases),
            seed=self.seed,
            device="cuda" if given.gpus else "cpu",
        )
        inputs: dict[str, Any] = {"data": sources} | ({"units": self.units} if init is None else {"init": init})
        resources = Resources(gpus=given.gpus)
        return TrainJob(
            name,
            loop=train,
            settings=later(_within_vocabulary, settings, self.units),
            inputs=inputs,
            version=2,
            ranks=given.ranks,
            resources=resources,
        )


def _within_vocabulary(settings: AcousticTraining, units: Artifact) -> AcousticTraining:
    """Return a training whose soft targets have at most as many labels a frame as there are units: a larger k is the
    same training."""
    most = len(Units.from_json(units.read(UNITS_FILE).decode()))
    phases = [
        phase.but(soft=phase.soft.but(k=min(phase.soft.k, most))) if "soft" in phase.model_fields_set else phase
        for phase in settings.phases
    ]
    return settings.but(phases=tuple(phases))


def _gold(features: SealedSet) -> SourceInputs:
    return {"features": features, "text": "text"}


def _soft_sources(data: Data) -> dict[str, SourceInputs]:
    labels = {"gold": data.labels, "aligned": data.aligned_labels}
    gold: dict[str, SourceInputs] = {name: {**one, "labels": labels[name]} for name, one in data.annotated.items()}
    return {**gold, "soft": {"features": data.unlabelled, "labels": data.unlabelled_labels}}
