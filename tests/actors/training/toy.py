"""A toy training: a linear map with noise, learnt by a small network with dropout."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, Training
from tests.actors.ranks import RankContext

SIZE = 96
Pair = tuple[Tensor, Tensor]


class Square:
    """Mean squared error."""

    name = "square"

    def __call__(self, output: Tensor, batch: Pair) -> Tensor:
        return ((output - batch[1]) ** 2).mean()


class Toy(Training[np.ndarray, Pair]):
    """Learns y = Wx from ``SIZE`` pairs, 8 a batch."""

    smaller = "size"

    def __init__(self, schedule: Schedule, *, seed: int = 0, bad: int | None = None, size: int = 8) -> None:
        self.seed, self.schedule, self.bad, self.size = seed, schedule, bad, size
        draw = np.random.default_rng(0)
        self.x = torch.from_numpy(draw.normal(size=(SIZE, 6)).astype(np.float32))
        self.y = self.x @ torch.from_numpy(draw.normal(size=(6, 3)).astype(np.float32))
        self.loaded = 0

    def build(self, device: torch.device) -> nn.Module:
        self.network = nn.Sequential(nn.Linear(6, 16), nn.Dropout(0.1), nn.BatchNorm1d(16), nn.Linear(16, 3))
        return self.network

    def phases(self) -> list[LoopPhase]:
        return [LoopPhase(self.schedule, [Square()], "toy")]

    def batches(self, phase: int, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self.seed, epoch]).permutation(SIZE)
        return [order[i : i + self.size] for i in range(0, SIZE, self.size)]

    def load(self, item: np.ndarray) -> Pair:
        self.loaded += 1
        x = self.x[item]
        return (x * np.nan if self.loaded - 1 == self.bad else x), self.y[item]

    def forward(self, network: nn.Module, batch: Pair, phase: int, seed: int) -> Tensor:
        return network(batch[0])

    def held_out(self) -> list[np.ndarray]:
        return [np.arange(16), np.arange(16, 40)]

    def held_out_loss(self, batch: Pair) -> tuple[float, float]:
        return float(((self.network(batch[0]) - batch[1]) ** 2).mean()), len(batch[0])

    def files(self) -> dict[str, bytes]:
        from safetensors.torch import save

        return {"toy.safetensors": save(dict(self.network.state_dict()))}


def toy(rank: int, count: int, url: str, settings: dict[str, Any], steps: int = 60, **more: Any) -> dict[str, Any]:
    """Train the toy on one rank of ``count``."""
    context = RankContext(url, rank, count, **more)
    return run_training(Toy(Schedule(steps=steps, lr=3e-2)), LoopSettings(**settings), context)
