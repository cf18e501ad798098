"""Weights that are the result of a training in place of the last ones: moving averages, or those of the lowest loss."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping

from torch import Tensor

from gristmill.actors.training.settings import LoopSettings

Weights = Mapping[str, Tensor]


class LastWeights:
    """The last weights; base of the others. :attr:`held` and :attr:`state` are what a checkpoint stores of it."""

    def __init__(self) -> None:
        self.held: dict[str, Tensor] = {}
        self.state: dict[str, float] = {}

    def stepped(self, weights: Weights, step: int) -> None:
        """Called after each step."""

    def ended(self, weights: Weights, epochs_left: int) -> None:
        """Called after each epoch."""

    def measured(self, weights: Weights, loss: float) -> bool:
        """Called after each held-out loss; return whether the training is over."""
        return False

    def result(self) -> Weights:
        """Return the chosen weights by name; none: the last ones."""
        return self.held


class MovingAverage(LastWeights):
    """An exponential moving average over all steps."""

    def __init__(self, decay: float, weights: Weights) -> None:
        super().__init__()
        self.decay = decay
        self.held = copied(weights)

    def stepped(self, weights: Weights, step: int) -> None:
        """Move the average towards the weights."""
        # A running mean at first, so that the average never includes much of the random initialisation.
        decay = min(self.decay, (step + 1) / (step + 10))
        for name, value in weights.items():
            self.held[name].lerp_(value.detach(), 1.0 - decay)


class LastEpochs(LastWeights):
    """The mean over the last epochs."""

    def __init__(self, epochs: int) -> None:
        super().__init__()
        self.epochs = epochs

    def ended(self, weights: Weights, epochs_left: int) -> None:
        """Add the weights, if the epoch is one of the last."""
        if epochs_left < self.epochs:
            self.held = {n: v.detach() + self.held[n] for n, v in weights.items()} if self.held else copied(weights)
            self.state["added"] = self.state.get("added", 0) + 1

    def result(self) -> Weights:
        """Return the mean."""
        added = self.state.get("added", 0)
        return {name: value / added for name, value in self.held.items()} if added > 1 else {}


class LowestLoss(LastWeights):
    """The weights of the lowest held-out loss; ``patience`` losses in a row that are not lower end the training."""

    def __init__(self, patience: int) -> None:
        super().__init__()
        self.patience = patience

    def measured(self, weights: Weights, loss: float) -> bool:
        """Keep the weights if the loss is the lowest so far."""
        loss = loss if math.isfinite(loss) else sys.float_info.max
        if not self.held or loss < self.state["lowest"]:
            self.held, self.state = copied(weights), {"lowest": loss, "worse": 0}
        else:
            self.state["worse"] += 1
        return self.state["worse"] >= self.patience


def chosen_by(settings: LoopSettings, weights: Weights) -> LastWeights:
    """Return what the settings choose."""
    if settings.ema:
        return MovingAverage(settings.ema, weights)
    if settings.patience is not None:
        return LowestLoss(settings.patience)
    return LastEpochs(settings.average) if settings.average > 1 else LastWeights()


def copied(weights: Weights) -> dict[str, Tensor]:
    """Return a copy."""
    return {name: value.detach().clone() for name, value in weights.items()}
