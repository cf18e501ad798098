"""Settings of acoustic training: the loop, and the phases with their schedules and objectives."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator

from gristmill.models.speech.acoustic import AcousticSettings
from gristmill.models.speech.losses import ExpectedErrorSettings, SoftTargetSettings
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.shards.settings import HOW, Batch, Settings


class Schedule(Settings):
    """Length of a phase, and its learning rate."""

    epochs: float | None = Field(None, gt=0)
    """Passes over all sources of the phase."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps, instead of epochs."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the phase in which the learning rate rises linearly to its peak."""
    final: float = Field(0.01, ge=0)
    """Final learning rate after a cosine decay, as a share of the peak."""

    @model_validator(mode="after")
    def _long(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("the length is not right; expected either epochs or steps")
        return self

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step of a phase of ``steps`` steps."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        way = (step - warm) / max(1, steps - warm)
        return self.lr * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * way)))


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
    mwer_weight: float = Field(0.0, ge=0)
    """Weight of expected word errors, for sources with text."""
    soft: SoftTargetSettings = SoftTargetSettings()
    mwer: ExpectedErrorSettings = ExpectedErrorSettings()
    specaugment: SpecAugment | None = None

    @model_validator(mode="after")
    def _aims(self) -> Self:
        if not self.weights:
            raise ValueError("all weights are 0; expected soft_weight, ctc_weight or mwer_weight above 0")
        return self

    @property
    def weights(self) -> dict[str, float]:
        """Weights above 0, by objective."""
        given = {"soft": self.soft_weight, "ctc": self.ctc_weight, "mwer": self.mwer_weight}
        return {name: weight for name, weight in given.items() if weight}


class LoopSettings(Settings):
    """Settings of the network and the training loop, independent of the phases."""

    model: AcousticSettings = AcousticSettings()
    """Sizes of a randomly initialised network; one trained further keeps its own."""
    batch_frames: Batch = Field(6000, ge=100)
    """Feature frames in a batch, including padding."""
    window: Batch = Field(16, ge=1)
    """Shards that are shuffled together."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of matrices; biases and norms do not decay."""
    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the averaged weights, which are the result; 0: the last weights."""
    report_steps: int = Field(20, ge=1)
    """Steps from one point of the curves to the next."""
    checkpoint_steps: int = Field(200, ge=1, json_schema_extra=HOW)
    """Steps from one checkpoint to the next."""
    cache_bytes: int = Field(2 << 30, ge=0, json_schema_extra=HOW)
    """Memory for shards of a source; at least two are kept."""


class AcousticTraining(LoopSettings):
    """One training of an acoustic model."""

    phases: tuple[Phase, ...] = Field(min_length=1)
    seed: int = 0
    device: str = "cpu"
    """``auto`` uses a GPU if there is one, and the network then runs in bfloat16."""
