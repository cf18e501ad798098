"""Training of neural domain models, for the loop: three objectives over one encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.actors.training.settings import Schedule
from gristmill.actors.training.training import LoopPhase, Training, TrainingObjective
from gristmill.models.nlu.domain import OUTSIDE, Example
from gristmill.models.nlu.neural import Crf, Inputs, NeuralModel, NeuralSettings
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom

Scores = tuple[Tensor, Tensor, Tensor]  # domain (B,), intents (B, I), tags (B, T, K)


@dataclass
class Requests:
    """A batch of requests; intents and tags are those of the ``own`` ones, in their order."""

    inputs: Inputs
    own: Tensor  # (B,) bool
    intents: Tensor  # (own,)
    tags: Tensor  # (own, T)


class DomainLoss:
    """Binary cross entropy of whether a request is the domain's."""

    name = "domain"

    def __call__(self, output: Scores, batch: Requests) -> Tensor:
        """Return the mean loss of a batch."""
        return F.binary_cross_entropy_with_logits(output[0], batch.own.to(output[0]))


class IntentLoss:
    """Cross entropy of the intents of the domain's requests, per request of the batch."""

    name = "intent"

    def __call__(self, output: Scores, batch: Requests) -> Tensor:
        """Return the loss of a batch; without requests of the domain it is 0, with a gradient as ranks expect one."""
        scores = output[1][batch.own.to(output[1].device)]
        wanted = batch.intents.to(scores.device)
        return F.cross_entropy(scores, wanted, reduction="sum") / len(batch.own)


class SlotLoss:
    """Negative log-likelihood of the tags of the domain's requests, per request of the batch."""

    name = "slots"

    def __init__(self, crf: Crf) -> None:
        self.crf = crf

    def __call__(self, output: Scores, batch: Requests) -> Tensor:
        """Return the loss of a batch; without requests of the domain it is 0, with a gradient as ranks expect one."""
        scores, own = output[2], batch.own
        if not len(batch.tags):
            return 0.0 * (scores.sum() + sum(value.sum() for value in self.crf.parameters()))
        scores = scores[own.to(scores.device)][:, : batch.tags.shape[1]]
        return -self.crf.logprob(scores, batch.inputs.lengths[own], batch.tags.to(scores.device)).sum() / len(own)


class NeuralTrainer(Training[np.ndarray, Requests]):
    """The training of a domain's neural models; intents and slots are trained on its own requests only."""

    betas = (0.9, 0.999)
    smaller = "batch"

    def __init__(
        self,
        domain: str,
        examples: Sequence[Example],
        others: Sequence[Sequence[str]],
        settings: NeuralSettings,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        if not examples or not others:
            raise UserError(
                f"domain {domain!r}: {len(examples)} requests of it and {len(others)} of others; expected both"
            )
        self.domain, self.settings, self.draws = domain, settings, RecordRandom(seed, "domain_order")
        self.seed = int(RecordRandom(seed, "domain_neural")(domain).integers(1 << 30))
        self.device, self.weight_decay = device, settings.weight_decay
        self.intents = sorted({example.intent for example in examples})
        self.tags = [OUTSIDE, *sorted({tag for example in examples for tag in example.tags} - {OUTSIDE})]
        number = {tag: i for i, tag in enumerate(self.tags)}
        self.tokens = [*(example.tokens for example in examples), *others]
        self.which = torch.tensor([self.intents.index(example.intent) for example in examples])
        self.marks = [torch.tensor([number[tag] for tag in example.tags] or [0]) for example in examples]

    def build(self, device: torch.device) -> nn.Module:
        """Return the network with random weights."""
        self.model = NeuralModel(self.domain, self.intents, self.tags, self.settings)
        return self.model.network.to(device)

    def phases(self) -> list[LoopPhase]:
        """Return the only phase."""
        given = self.settings
        schedule = Schedule(epochs=given.epochs, lr=given.lr, final=0.0, decay="linear")
        objectives: list[TrainingObjective] = [DomainLoss(), IntentLoss(), SlotLoss(self.model.network.crf)]
        return [LoopPhase(schedule, objectives, f"domain {self.domain!r}", "the requests")]

    def batches(self, phase: int, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch, in random order."""
        order = self.draws(f"{self.domain}:{epoch}").permutation(len(self.tokens))
        return [order[start : start + self.settings.batch] for start in range(0, len(order), self.settings.batch)]

    def load(self, item: np.ndarray) -> Requests:
        """Return the inputs and labels of requests."""
        rows = item.tolist()
        mine = [row for row in rows if row < len(self.marks)]
        tags = [self.marks[row] for row in mine] or [torch.zeros(0, dtype=torch.int64)]
        padded = nn.utils.rnn.pad_sequence(tags, batch_first=True)[: len(mine)]
        own = torch.tensor([row < len(self.marks) for row in rows])
        inputs = Inputs([self.tokens[row] for row in rows], self.settings.buckets)
        return Requests(inputs, own, self.which[mine], padded)

    def forward(self, network: nn.Module, batch: Requests, phase: int, seed: int) -> Scores:
        """Return the scores of a batch."""
        device = self.model.network.domain.weight.device
        domain, intents, tags = network(batch.inputs.to(device))
        return domain.float(), intents.float(), tags.float()

    def files(self) -> dict[str, bytes]:
        """Return the files of the model."""
        return self.model.files()
