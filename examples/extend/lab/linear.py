"""A training: softmax regression of the domain on a vector."""

from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, PlainObjective, Training
from gristmill.shards import canonical
from gristmill.shards.dataset import open_sealed
from gristmill.shards.job import TrainContext

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn


class LinearTraining(LoopSettings):
    """Settings: those of the loop, and the training's own."""

    schedule: Schedule = Schedule(epochs=6, lr=0.05)
    batch: int = 16
    vector: str = "vector"
    seed: int = 0


class _Linear(Training[np.ndarray, tuple[Tensor, Tensor]]):  # an item: rows; a batch: vectors, numbers of their domains
    def __init__(self, settings: LinearTraining, data: str) -> None:
        self.settings, self.seed = settings, settings.seed
        tables = open_sealed(data).tables([settings.vector, "domain", "fold"])
        rows = [row for table in tables for row in table.to_pylist() if row["fold"] >= 0]
        self.names = sorted({row["domain"] for row in rows})
        self.given = torch.tensor([row[settings.vector] for row in rows])
        self.wanted = torch.tensor([self.names.index(row["domain"]) for row in rows])

    def build(self, device: torch.device) -> nn.Module:
        self.network = nn.Linear(self.given.shape[1], len(self.names)).to(device)
        return self.network

    def phases(self) -> list[LoopPhase]:
        error = PlainObjective("cross_entropy", lambda output, batch: nn.functional.cross_entropy(output, batch[1]))
        return [LoopPhase(self.settings.schedule, [error])]

    def batches(self, phase: int, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.wanted))
        return [order[i : i + self.settings.batch] for i in range(0, len(order), self.settings.batch)]

    def load(self, item: np.ndarray) -> tuple[Tensor, Tensor]:
        return self.given[item], self.wanted[item]

    def forward(self, network: nn.Module, batch: tuple[Tensor, Tensor], phase: int, seed: int) -> Tensor:
        return network(batch[0])

    def files(self) -> dict[str, bytes]:
        return {"names.json": canonical.dumps(self.names), "weights.safetensors": save(self.network.state_dict())}


def train(settings: LinearTraining, context: TrainContext, *, data: str) -> dict[str, object]:
    """Train on the sealed set at ``data``, without fold -1, and return the names and weights of the model."""
    return run_training(_Linear(settings, data), settings, context)
