"""Settings that all trainings share: the loop's, the schedule of a phase, and how ranks exchange what they learn."""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import Field, model_validator

from gristmill.shards.settings import HOW, Settings


class Schedule(Settings):
    """Length of a phase, and its learning rate: linear warmup, then decay.

    Example:
        >>> schedule = Schedule(steps=10, lr=1.0, warmup=0.2, final=0.0)
        >>> [round(schedule.rate(step, 10), 2) for step in (0, 1, 2, 6, 9)]
        [0.5, 1.0, 1.0, 0.5, 0.04]
    """

    epochs: float | None = Field(None, gt=0)
    """Passes over the data of the phase; null if ``steps`` is given."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps in place of epochs: equal work whatever the amount of data."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the phase in which the learning rate rises linearly to its peak."""
    final: float = Field(0.01, ge=0)
    """Final learning rate after the decay, as a share of the peak."""
    decay: Literal["cosine", "linear"] = "cosine"
    """The course of the decay."""

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("epochs and steps: expected one of them, and null for the other")
        return self

    def length(self, epoch_steps: int) -> int:
        """Return the steps of the phase, if an epoch has so many."""
        return self.steps or max(1, math.ceil(epoch_steps * (self.epochs or 0)))

    def rate(self, step: int, steps: int) -> float:
        """Return the learning rate of a step of a phase of ``steps`` steps."""
        warm = max(1, round(self.warmup * steps))
        if step < warm:
            return self.lr * (step + 1) / warm
        way = (step - warm) / max(1, steps - warm)
        left = 1 - way if self.decay == "linear" else 0.5 * (1 + math.cos(math.pi * way))
        return self.lr * (self.final + (1 - self.final) * left)


class BlockSettings(Settings):
    """Blockwise model-update filtering (Chen & Huo, ICASSP 2016): ranks train apart for a block of steps, then average.

    What a block learnt, the distance of the ranks' average from the weights V(t-1) at which the block began, is
    filtered by a momentum: D(t) = momentum D(t-1) + rate (average - V(t-1)), W(t) = W(t-1) + D(t). The moments of the
    optimiser are averaged at the end of a block too. A block ends with its epoch.
    """

    steps: int = Field(50, ge=1)
    """Steps of a block."""
    momentum: float | None = Field(None, ge=0, lt=1)
    """Block momentum; null: 1 - 1 / ranks."""
    rate: float = Field(1.0, gt=0)
    """Block learning rate."""
    nesterov: bool = True
    """Whether the next block begins at V(t) = W(t) + momentum D(t), the paper's better variant, or at W(t)."""


class CompressionSettings(Settings):
    """Quantised gradients with error feedback (Strom, Interspeech 2015): ranks exchange the largest values only.

    What a rank has not sent yet is kept and added to its next gradient, so that it is late and not lost. What was sent
    in a step that is left out, since some gradient was not finite, is lost with the step.
    """

    share: float | None = Field(0.01, gt=0, le=1)
    """Share of each tensor's values that is sent, as their signs and mean size; null if ``threshold`` is given."""
    threshold: float | None = Field(None, gt=0)
    """Values above it are sent, as its size with their signs."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.share is None) == (self.threshold is None):
            raise ValueError("share and threshold: expected one of them, and null for the other")
        return self


class LoopSettings(Settings):
    """Settings of the training loop, the same in all trainings."""

    grad_clip: float = Field(1.0, gt=0)
    """Largest norm of the gradient."""
    accumulate: int = Field(1, ge=1)
    """Batches per rank whose gradients are averaged in one step."""
    ema: float = Field(0.0, ge=0, lt=1)
    """Decay of the averaged weights, which are the result; 0: the last weights."""
    average: int = Field(1, ge=1)
    """Number of last epochs whose weights are averaged."""
    patience: int | None = Field(None, ge=1)
    """Epochs without a lower held-out loss that end the training; the result is the weights of the lowest. Null: none
    do."""
    frozen: tuple[str, ...] = ()
    """Beginnings of the names of parameters that are not trained."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the network; weights, moments and losses are float32. Auto: bfloat16 on a GPU."""
    blocks: BlockSettings | None = None
    """Blockwise model-update filtering in place of averaged gradients; null: off."""
    compression: CompressionSettings | None = None
    """Compression of gradients that ranks exchange; null: off."""
    report_steps: int = Field(20, ge=1)
    """Steps from one point of the curves to the next."""
    checkpoint_steps: int = Field(200, ge=1, json_schema_extra=HOW)
    """Steps from one checkpoint to the next."""
    prefetch: int = Field(2, ge=0, json_schema_extra=HOW)
    """Batches made ahead, in another thread."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if sum((self.ema > 0, self.average > 1, self.patience is not None)) > 1:
            raise ValueError("ema, average and patience: each chooses the resulting weights; expected one of them")
        if self.blocks is not None and self.ema:
            raise ValueError("blocks and ema: within a block the ranks differ; expected one of them")
        if self.blocks is not None and self.compression is not None:
            raise ValueError("blocks and compression: within a block no gradients are exchanged; expected one of them")
        return self
