"""A training: softmax regression of the domain on a vector."""

from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.nn import functional

from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, Training
from gristmill.shards import canonical
from gristmill.shards.dataset import open_sealed
from gristmill.shards.job import TrainContext

Batch = tuple[Tensor, Tensor]  # vectors, numbers of their domains


class LinearTraining(LoopSettings):
    """Settings: those of the loop, and the training's own."""

    schedule: Schedule = Schedule(epochs=6, lr=0.05)
    batch: int = 16
    vector: str = "vector"
    seed: int = 0


class DomainError:
    """The objective."""

    name = "cross_entropy"

    def __call__(self, output: Tensor, batch: Batch) -> Tensor:
        """Return the mean loss of a batch."""
        return functional.cross_entropy(output, batch[1])


class _Linear(Training[np.ndarray, Batch]):
    def __init__(self, settings: LinearTraining, data: str) -> None:
        self.settings, self.seed, column = settings, settings.seed, settings.vector
        tables = [table.filter(pc.field("fold") >= 0) for table in open_sealed(data).tables([column, "domain", "fold"])]
        domains = [name for table in tables for name in table["domain"].to_pylist()]
        self.names = sorted(set(domains))
        self.given = torch.tensor([row for table in tables for row in table[column].to_pylist()])
        self.wanted = torch.tensor([self.names.index(name) for name in domains])

    def build(self, device: torch.device) -> nn.Module:
        self.network = nn.Linear(self.given.shape[1], len(self.names)).to(device)
        return self.network

    def phases(self) -> list[LoopPhase]:
        return [LoopPhase(self.settings.schedule, [DomainError()])]

    def batches(self, phase: int, epoch: int) -> list[np.ndarray]:
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.wanted))
        return [order[i : i + self.settings.batch] for i in range(0, len(order), self.settings.batch)]

    def load(self, item: np.ndarray) -> Batch:
        return self.given[item], self.wanted[item]

    def forward(self, network: nn.Module, batch: Batch, phase: int, seed: int) -> Tensor:
        return network(batch[0])

    def files(self) -> dict[str, bytes]:
        return {"names.json": canonical.dumps(self.names), "weights.safetensors": save(self.network.state_dict())}


def train(settings: LinearTraining, context: TrainContext, *, data: str) -> dict[str, Any]:
    """Train on the sealed set at ``data``, without fold -1, and return the names and weights of the model."""
    return run_training(_Linear(settings, data), settings, context)
