"""What a subject gives to the loop: a training's network, batches, objectives and files."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn

from gristmill.actors.training.settings import Schedule

Item = TypeVar("Item")
Batch = TypeVar("Batch")


class TrainingObjective(Protocol):
    """A loss with its settings and its weight."""

    name: str

    def __call__(self, output: Any, batch: Any) -> Tensor | None:
        """Return the weighted loss (scalar) of what the network made of a batch; ``None`` if it does not apply."""
        ...


@dataclass
class PlainObjective:
    """An objective that is a function of output and batch, without settings and weight."""

    name: str
    loss: Callable[[Any, Any], Tensor]

    def __call__(self, output: Any, batch: Any) -> Tensor:
        """Return the loss of a batch."""
        return self.loss(output, batch)


@dataclass(frozen=True)
class LoopPhase:
    """A phase of a training; ``where`` and ``data`` name its settings and its data in messages."""

    schedule: Schedule
    objectives: Sequence[TrainingObjective]
    where: str = "training"
    data: str = "the data"


class Training(ABC, Generic[Item, Batch]):
    """One training. The loop calls :meth:`build` first, with torch's generator seeded.

    An epoch's batches are listed as items, each made into a batch when its turn comes, in another thread. Ranks take
    turns: with W ranks and steps of one batch, step s of an epoch takes item s W + rank.
    """

    seed: int = 0
    device: str = "cpu"  # or cuda, or auto: a GPU if there is one
    threads: int = 1  # of torch: how sums are split among them changes their last bits (law 1)
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.98)  # of AdamW
    eps: float = 1e-8
    fused: bool = False  # whether all parameters are updated in one call; its last bits differ
    smaller: str = "the batches"  # the setting to lower if memory does not suffice

    @abstractmethod
    def build(self, device: torch.device) -> nn.Module:
        """Return the network, on the device. Its draws come from torch's generator."""

    @abstractmethod
    def phases(self) -> Sequence[LoopPhase]:
        """Return the phases, in their order."""

    @abstractmethod
    def batches(self, phase: int, epoch: int) -> Sequence[Item]:
        """Return the batches of all ranks in an epoch, in their order: a function of seed, phase and epoch alone."""

    @abstractmethod
    def load(self, item: Item) -> Batch:
        """Return a batch; called in another thread."""

    @abstractmethod
    def forward(self, network: nn.Module, batch: Batch, phase: int, seed: int) -> Any:
        """Return the network's output, in training; ``seed`` is that of the batch's own draws, if it has any."""

    @abstractmethod
    def files(self) -> dict[str, bytes]:
        """Return the files of the trained network."""

    def held_out(self) -> Sequence[Item]:
        """Return the batches of the held-out loss, which is taken after each epoch; none by default."""
        return ()

    def held_out_loss(self, batch: Batch) -> tuple[float, float]:
        """Return the loss of a held-out batch and its weight; the network is in eval mode."""
        raise TypeError(f"{type(self).__name__} has no held_out_loss: expected one, as it lists held-out data")


def groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameter groups of an optimiser: matrices decay, biases and norms do not."""
    trained = [value for value in module.parameters() if value.requires_grad]
    wide = [value for value in trained if value.ndim > 1]
    narrow = [value for value in trained if value.ndim <= 1]
    return [{"params": wide, "weight_decay": weight_decay}, {"params": narrow, "weight_decay": 0.0}]
