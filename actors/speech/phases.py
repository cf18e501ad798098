"""Settings of acoustic training: the network, and the phases with their schedules and objectives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import Field, model_validator

from gristmill.actors.speech.objectives import Ctc, InnerCtc, SoftTargets, SpeechObjective, WordErrors
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.models.speech.acoustic import AcousticSettings, InnerHeadSettings
from gristmill.models.speech.losses import ExpectedErrorSettings, SoftTargetSettings
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.models.speech.units import Units
from gristmill.shards.settings import HOW, Batch, Settings


class Phase(Settings):
    """A phase of training: a schedule, sources, and weights of objectives; a weight of 0 leaves one out.

    A batch uses the objectives that its source supports. Soft targets mixed with another objective are multiplied by
    the square of their temperature (Hinton et al., 2015).
    """

    schedule: Schedule
    sources: tuple[str, ...] | None = None
    """Names of the sources; null: all."""
    soft_weight: float = Field(0.0, ge=0)
    """Weight of soft targets, for sources with labels."""
    ctc_weight: float = Field(0.0, ge=0)
    """Weight of CTC, for sources with text."""
    inner_weight: float = Field(0.0, ge=0)
    """Weight of CTC on the inner heads, for sources with text."""
    mwer_weight: float = Field(0.0, ge=0)
    """Weight of expected word errors, for sources with text."""
    soft: SoftTargetSettings = SoftTargetSettings()
    mwer: ExpectedErrorSettings = ExpectedErrorSettings()
    specaugment: SpecAugment | None = None

    @model_validator(mode="after")
    def _aims(self) -> Self:
        if not (self.soft_weight or self.ctc_weight or self.inner_weight or self.mwer_weight):
            raise ValueError("all weights are 0; expected soft_weight, ctc_weight, inner_weight or mwer_weight above 0")
        return self

    def objectives(self, units: Units, inner: Sequence[InnerHeadSettings] = ()) -> list[SpeechObjective]:
        """Return the objectives with a weight above 0, of a model with ``inner`` heads."""
        soft = SoftTargets(self.soft_weight, self.soft, mixed=bool(self.ctc_weight or self.mwer_weight))
        made: tuple[SpeechObjective, ...] = (
            soft,
            Ctc(self.ctc_weight),
            InnerCtc(self.inner_weight, inner),
            WordErrors(self.mwer_weight, self.mwer, units),
        )
        return [one for one in made if one.weight]


class AcousticLoopSettings(LoopSettings):
    """Settings of the network and its training, independent of the phases."""

    model: AcousticSettings = AcousticSettings()
    """Sizes of a randomly initialised network; one trained further keeps its own."""
    batch_frames: Batch = Field(6000, ge=100)
    """Feature frames in a batch, including padding."""
    window: Batch = Field(16, ge=1)
    """Shards that are shuffled together."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of matrices; biases and norms do not decay."""
    cache_bytes: int = Field(2 << 30, ge=0, json_schema_extra=HOW)
    """Memory for shards of a source; at least two are kept."""

    @model_validator(mode="after")
    def _to_the_end(self) -> Self:
        if self.patience is not None:
            raise ValueError("patience: an acoustic model has no held-out data; expected null")
        return self


class AcousticTraining(AcousticLoopSettings):
    """One training of an acoustic model."""

    phases: tuple[Phase, ...] = Field(min_length=1)
    seed: int = 0
    device: str = "cpu"
    """``auto`` uses a GPU if there is one, and the network then runs in bfloat16."""
