"""The systems that are compared, as training jobs: what each sees, and by which objectives it learns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gristmill.shards.artifact import Artifact
from gristmill.shards.dataset import SealedSet
from gristmill.shards.job import TrainJob
from gristmill.shards.settings import Settings
from gristmill.shards.stage import Resources


class ModelSettings(Settings):
    """Sizes of ``models.speech.acoustic.AcousticConfig``; features and units give the widths of both ends."""

    subsampling: Literal[1, 2, 3, 4, 6, 8] = 4  # feature frames to an output frame
    channels: int = Field(32, ge=1)
    encoder: Literal["conformer", "lstm", "gru"] = "conformer"
    dim: int = Field(144, ge=1)
    layers: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    ff_factor: int = Field(4, ge=1)
    kernel: int = Field(15, ge=1)
    bidirectional: bool = True
    dropout: float = Field(0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.encoder == "conformer" and self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} is not right; expected a multiple of twice the heads, {2 * self.heads}")
        if self.encoder == "conformer" and self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is not right; expected an odd number")
        if self.encoder != "conformer" and self.bidirectional and self.dim % 2:
            raise ValueError(f"dim {self.dim} is not right; expected an even number, half for each direction")
        return self


class SpecAugmentSettings(Settings):
    """Masks of :class:`gristmill.models.speech.specaugment.SpecAugment`; widths are the most that is drawn."""

    band_masks: int = Field(1, ge=0)
    bands: int = Field(8, ge=0)
    time_masks: int = Field(2, ge=0)
    frames: int = Field(10, ge=0)
    time_share: float = Field(0.1, ge=0, le=1)  # of an utterance, in a time mask


class PhaseSettings(Settings):
    """A stretch of training: passes over its data, and the peak of the learning rate."""

    epochs: float = Field(gt=0)
    lr: float = Field(1e-3, gt=0)


class SoftSettings(PhaseSettings):
    """Learning from stored top-k labels at temperature T; ``tail`` says what stands for the mass not stored."""

    k: int = Field(20, ge=1, le=40)
    temperature: float = Field(2.0, gt=0)
    student_temperature: float | None = Field(None, gt=0)  # null: the same
    tail: Literal["renormalise", "bucket", "uniform"] = "renormalise"
    ctc_weight: float = Field(0.0, ge=0)  # of CTC on gold text, where there is some, mixed in
    specaugment: bool = False  # noise and rooms hide enough where a teacher says what is there


class GoldSettings(PhaseSettings):
    """The annotated part after all speech. The student keeps its soft labels beside the gold text: gold text alone,
    of so small a part, is learnt by heart at the cost of what the soft labels taught.
    """

    soft_weight: float = Field(1.0, ge=0)
    ctc_weight: float = Field(0.3, gt=0)


class SequenceSettings(PhaseSettings):
    """Minimum expected word error over an n-best list (Prabhavalkar et al., ICASSP 2018), with CTC mixed in."""

    nbest: int = Field(4, ge=2)
    beam: int = Field(8, ge=2)
    ctc_weight: float = Field(0.1, ge=0)


class SweepSettings(Settings):
    """The grid of k and T that is trained from the labels as they are stored; empty lists leave it out.

    Cells learn from soft labels alone, for ``epochs`` passes: they are compared with each other.
    """

    epochs: float = Field(4, gt=0)
    k: tuple[int, ...] = (1, 5, 10, 20, 40)
    temperature: tuple[float, ...] = (1.0, 2.0, 4.0)


class SystemSettings(Settings):
    """Sizes and schedules of all systems."""

    model: ModelSettings = ModelSettings()
    batch_frames: int = Field(6000, ge=100)
    ema: float = Field(0.0, ge=0, lt=1)
    weight_decay: float = Field(0.01, ge=0)
    specaugment: SpecAugmentSettings | None = None
    teacher: PhaseSettings = PhaseSettings(epochs=40)
    multicondition: PhaseSettings = PhaseSettings(epochs=40)
    hard_labels: PhaseSettings = PhaseSettings(epochs=8)
    student: SoftSettings = SoftSettings(epochs=8)
    gold: GoldSettings | None = GoldSettings(epochs=1, lr=3e-4)  # scheduled learning: after all speech
    sequence: SequenceSettings = SequenceSettings(epochs=2, lr=1e-4)
    # Weights that all who learn from labels begin with (Li et al., Interspeech 2017); auto: the teacher's, if it was
    # trained here.
    init: Literal["auto", "teacher", "random"] = "auto"
    ranks: int = Field(1, ge=1)
    gpus: float = Field(0.0, ge=0)  # for each rank


@dataclass(frozen=True)
class Data:
    """What systems of one seed learn from: sealed features, and the teacher's labels of the clean originals."""

    clean: SealedSet
    noisy: SealedSet
    unlabelled: SealedSet  # noisy
    labels: SealedSet | None = None  # of the annotated part
    unlabelled_labels: SealedSet | None = None
    teacher: Artifact | None = None


@dataclass(frozen=True)
class Systems:
    """Makes the jobs of one seed."""

    settings: SystemSettings
    units: Mapping[str, Any]
    seed: int

    def teacher(self, data: Data) -> TrainJob:
        """CTC on the annotated part as it was recorded."""
        return self._job("teacher", {"gold": _source(data.clean, text="text")}, [self._ctc(self.settings.teacher)])

    def multicondition(self, data: Data) -> TrainJob:
        """CTC on the annotated part alone, with noise added: what noise brings without unlabelled data."""
        sources = {"gold": _source(data.noisy, text="text")}
        return self._job("multicondition", sources, [self._ctc(self.settings.multicondition)])

    def hard_labels(self, data: Data) -> TrainJob:
        """CTC on the teacher's transcripts of noisy unlabelled speech, and on the gold text of the annotated part."""
        sources = {
            "gold": _source(data.noisy, text="text"),
            "pseudo": _source(data.unlabelled, data.unlabelled_labels, text="hypothesis"),
        }
        return self._learner("hard_labels", data, sources, [self._ctc(self.settings.hard_labels)])

    def student(self, data: Data) -> TrainJob:
        """Soft targets on all speech with noise, then the gold text of the annotated part (scheduled learning)."""
        soft, gold = self._phase(self.settings.student), self.settings.gold
        if gold is None:
            return self._soft("student", data, [soft])
        objective = {"soft": gold.soft_weight, "ctc": gold.ctc_weight}
        last = soft | {"objective": objective, "sources": ["gold"], "epochs": gold.epochs, "lr": gold.lr}
        return self._soft("student", data, [soft, last])

    def sweep_cell(self, data: Data, k: int, temperature: float, epochs: float) -> TrainJob:
        """Soft targets alone, with another k and T."""
        soft = self.settings.student.model_copy(update={"k": k, "temperature": temperature, "epochs": epochs})
        return self._soft("sweep_cell", data, [self._phase(soft)])

    def _soft(self, name: str, data: Data, phases: list[dict[str, Any]]) -> TrainJob:
        sources = {
            "gold": _source(data.noisy, data.labels, text="text"),
            "soft": _source(data.unlabelled, data.unlabelled_labels),
        }
        return self._learner(name, data, sources, phases)

    def _learner(self, name: str, data: Data, sources: dict[str, Any], phases: list[dict[str, Any]]) -> TrainJob:
        job = self._job(name, sources, phases)
        return job if self.settings.init == "random" or data.teacher is None else _started_from(data.teacher, job)

    def _phase(self, soft: SoftSettings) -> dict[str, Any]:
        return {
            "objective": {"soft": 1.0, "ctc": soft.ctc_weight} if soft.ctc_weight else "soft",
            "epochs": soft.epochs,
            "lr": soft.lr,
            "k": min(soft.k, len(self.units["tokens"])),  # above the vocabulary there is nothing more to keep
            "temperature": soft.temperature,
            "student_temperature": soft.student_temperature,
            "tail": soft.tail,
            "warmup": 0.15,
            "specaugment": self._masks() if soft.specaugment else None,
        }

    def student_seq(self, data: Data, student: Artifact) -> TrainJob:
        """The student, trained on to make fewer word errors on the annotated part."""
        given = self.settings.sequence
        phase = {
            "objective": {"mwer": 1.0, "ctc": given.ctc_weight},
            "epochs": given.epochs,
            "lr": given.lr,
            "nbest": given.nbest,
            "beam": given.beam,
        }
        return _started_from(student, self._job("student_seq", {"gold": _source(data.noisy, text="text")}, [phase]))

    def _ctc(self, phase: PhaseSettings) -> dict[str, Any]:
        return {"objective": "ctc", "epochs": phase.epochs, "lr": phase.lr, "specaugment": self._masks()}

    def _masks(self) -> dict[str, Any] | None:
        given = self.settings.specaugment
        return None if given is None else given.model_dump()

    def _job(self, name: str, sources: dict[str, Any], phases: list[dict[str, Any]]) -> TrainJob:
        given = self.settings
        config = {
            "data": sources,
            "phases": phases,
            "model": given.model.model_dump(),
            "units": self.units,
            "seed": self.seed,
            "batch_frames": given.batch_frames,
            "ema": given.ema,
            "weight_decay": given.weight_decay,
            "device": "cuda" if given.gpus else "cpu",
        }
        return TrainJob(name, config, version=2, ranks=given.ranks, resources=Resources(gpus=given.gpus))


def _source(features: SealedSet, labels: SealedSet | None = None, text: str | None = None) -> dict[str, Any]:
    return {"features": features, "labels": labels, "text": text}


def _started_from(model: Artifact, job: TrainJob) -> TrainJob:
    """Return the job with the weights, units and sizes of a model to begin with."""
    rest = {key: value for key, value in job.config.items() if key not in ("units", "model")}
    return replace(job, config=rest | {"init": model})
