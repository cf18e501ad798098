"""How the ranks of a training learn from each other: averaged gradients, compressed ones, or averaged blocks of steps.

All are deterministic for a number of ranks. What a rank keeps for itself (gradients that it has not sent) is gathered
for a checkpoint; between two blocks the ranks have nothing of their own.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from gristmill.actors.training.settings import BlockSettings, CompressionSettings, LoopSettings
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext


class Gradients:
    """Gradients are averaged in each step, by torch's DistributedDataParallel if there are several ranks."""

    def __init__(self, module: nn.Module, ranks: int) -> None:
        self.network: nn.Module = module
        if ranks > 1:
            # After its first step DistributedDataParallel buckets the gradients anew, and the place of a value decides
            # in which order three ranks or more are summed: a resumed training would differ by a bit. It does not where
            # it must expect parameters without a gradient.
            warnings.filterwarnings("ignore", message="find_unused_parameters=True was specified")
            self.network = DistributedDataParallel(module, find_unused_parameters=ranks > 2)

    def held_back(self) -> AbstractContextManager[Any]:
        """Return a context in which gradients are summed and not exchanged."""
        network = self.network
        return network.no_sync() if isinstance(network, DistributedDataParallel) else nullcontext()

    def stepped(self, done: int, *, end: bool, counts: list[int]) -> bool:
        """Called after a step, of which ``done`` are done; return whether the ranks have equal weights.

        With ``end`` they have. ``counts`` of events are made the largest of all ranks.
        """
        return True

    def go_on(self) -> None:
        """Called before the step that follows one after which the ranks had equal weights."""

    def tensors(self) -> dict[str, Tensor]:
        """Return the state of all ranks, on rank 0; all ranks call it."""
        return {}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore the state of this rank from :meth:`tensors`."""


class CompressedGradients(Gradients):
    """A communication hook of DistributedDataParallel, see :class:`CompressionSettings`.

    A value is sent as a number of 32 bits: its place in the bucket, and its sign. What is sent of a tensor does not
    depend on the bucket that torch puts it into, which changes after the first step.
    """

    def __init__(self, module: nn.Module, ranks: int, rank: int, settings: CompressionSettings) -> None:
        super().__init__(module, ranks)
        assert isinstance(self.network, DistributedDataParallel)
        self.settings, self.rank, self.ranks = settings, rank, ranks
        self.names: dict[Tensor, str] = {
            value: name for name, value in module.named_parameters() if value.requires_grad
        }
        self.kept = {name: torch.zeros_like(value).view(-1) for value, name in self.names.items()}
        self.network.register_comm_hook(None, lambda _, bucket: self._reduce(bucket))

    def _reduce(self, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        """Replace the gradients of a bucket by the mean of what the ranks send of them."""
        buffer = bucket.buffer()
        parts = list(zip(bucket.parameters(), bucket.gradients(), strict=True))
        finite = bool(torch.isfinite(buffer).all())
        places, scales, begin = [], [], 0
        for parameter, gradient in parts if finite else ():
            kept = self.kept[self.names[parameter]]
            place, scale = self._chosen(kept.add_(gradient.reshape(-1)))
            up = kept[place] > 0
            kept[place] -= (2.0 * up - 1.0) * scale
            places.append((place + begin) * 2 + up)
            scales.append(scale)
            begin += gradient.numel()
        sent = torch.cat(places).to(torch.int32) if finite else buffer.new_zeros(0, dtype=torch.int32)
        # Where one rank has no finite gradient, none of them does, and the loop leaves the step out.
        scale = torch.stack(scales) if finite else buffer.new_full((len(parts),), torch.nan)
        sizes = torch.tensor([gradient.numel() for _, gradient in parts], device=buffer.device)
        buffer.zero_()
        for theirs, size in zip(self._gathered(sent), self._all(scale), strict=True):
            if bool(torch.isnan(size).any()):
                buffer.fill_(torch.nan)
            place = theirs.long() // 2
            buffer[place] += size.repeat_interleave(sizes)[place] * (theirs % 2 * 2 - 1)
        future: torch.futures.Future[Tensor] = torch.futures.Future(devices=[buffer.device] if buffer.is_cuda else None)
        future.set_result(buffer.div_(self.ranks))
        return future

    def _chosen(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return the places of the values to send, and the size that they are sent as."""
        sizes = values.abs()
        if self.settings.threshold is not None:
            return torch.nonzero(sizes > self.settings.threshold).view(-1), sizes.new_tensor(self.settings.threshold)
        largest = sizes.topk(max(1, round((self.settings.share or 0) * len(values))), sorted=False)
        return largest.indices, largest.values.mean()

    def _all(self, value: Tensor) -> list[Tensor]:
        found = [torch.empty_like(value) for _ in range(self.ranks)]
        dist.all_gather(found, value)
        return found

    def _gathered(self, sent: Tensor) -> list[Tensor]:
        """Return what each rank sends, which differs in length."""
        lengths = [int(length) for length in self._all(torch.tensor([len(sent)], device=sent.device))]
        padded = sent.new_zeros(max(lengths))
        padded[: len(sent)] = sent
        return [theirs[:length] for theirs, length in zip(self._all(padded), lengths, strict=True)]

    def tensors(self) -> dict[str, Tensor]:
        """Return what each rank keeps, by rank and name of the parameter, in the memory of the CPU."""
        found = {}
        for name, value in self.kept.items():
            for rank, theirs in enumerate(self._all(value)):
                if self.rank == 0:
                    found[f"{rank}.{name}"] = theirs.cpu()
        return found

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore what this rank keeps."""
        for name, value in self.kept.items():
            value.copy_(tensors[f"{self.rank}.{name}"])


class Blocks(Gradients):
    """Blockwise model-update filtering, see :class:`BlockSettings`."""

    def __init__(
        self, module: nn.Module, ranks: int, settings: BlockSettings, weights: Mapping[str, Tensor], moments: Optimizer
    ) -> None:
        super().__init__(module, 1)
        self.ranks, self.settings, self.optimiser = ranks, settings, moments
        self.momentum = 1 - 1 / ranks if settings.momentum is None else settings.momentum
        self.weights = {name: value for name, value in weights.items() if value.requires_grad}
        # Statistics of batches are averaged only: a momentum could make a variance negative.
        self.statistics = [value for value in weights.values() if not value.requires_grad]
        self.before = {name: value.detach().clone() for name, value in self.weights.items()}
        self.change = {name: torch.zeros_like(value) for name, value in self.before.items()}

    @torch.no_grad()
    def stepped(self, done: int, *, end: bool, counts: list[int]) -> bool:
        """End a block after its steps, or at the ``end``: the weights are then W(t)."""
        if done % self.settings.steps and not end:
            return False
        for name, value in self.weights.items():
            learnt = self._mean(value.detach().clone()) - self._begin(name)
            self.change[name].mul_(self.momentum).add_(learnt, alpha=self.settings.rate)
            value.copy_(self.before[name].add_(self.change[name]))
        for value in self.statistics:
            self._mean(value)
        counts[:] = [int(count) for count in self._most([float(count) for count in counts])]
        self._share_moments()
        return True

    @torch.no_grad()
    def go_on(self) -> None:
        """Begin a block."""
        for name, value in self.weights.items():
            value.copy_(self._begin(name))

    def _begin(self, name: str) -> Tensor:
        """Return the weights at which a block begins."""
        before, change = self.before[name], self.change[name]
        return before.add(change, alpha=self.momentum) if self.settings.nesterov else before

    def _share_moments(self) -> None:
        """Average the optimiser's moments. Of its steps the most count: ranks leave out some of them by themselves."""
        states = [self.optimiser.state[value] for value in self.weights.values()]
        steps = self._most([float(state["step"]) if state else -1.0 for state in states])
        for value, state, step in zip(self.weights.values(), states, steps, strict=True):
            if step < 0:  # no rank had a finite gradient yet
                continue
            if not state:
                place = value.device if self.optimiser.defaults.get("fused") else None
                state["step"] = torch.zeros((), device=place)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(value), torch.zeros_like(value)
            state["step"].fill_(step)
            for name in ("exp_avg", "exp_avg_sq"):
                self._mean(state[name])

    def _most(self, numbers: list[float]) -> list[float]:
        """Return the largest of all ranks, number by number."""
        most = torch.tensor(numbers, dtype=torch.float64, device=next(iter(self.before.values())).device)
        if self.ranks > 1:
            dist.all_reduce(most, dist.ReduceOp.MAX)
        return list(most.tolist())

    def _mean(self, value: Tensor) -> Tensor:
        if self.ranks > 1:
            dist.all_reduce(value)
        return value.div_(self.ranks)

    def tensors(self) -> dict[str, Tensor]:
        """Return W(t) and D(t) of the last block, which are those of all ranks."""
        return {f"{kind}.{n}": v for kind in ("before", "change") for n, v in getattr(self, kind).items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Restore them."""
        for kind in ("before", "change"):
            for name, value in getattr(self, kind).items():
                value.copy_(tensors[f"{kind}.{name}"])


def communication_of(
    settings: LoopSettings,
    context: TrainContext,
    module: nn.Module,
    weights: Mapping[str, Tensor],
    optimiser: Optimizer,
) -> Gradients:
    """Return the communication that the settings choose.

    Raises:
        UserError: it is one of several ranks, and there is one.
    """
    ranks = context.world_size
    if settings.blocks is not None:
        return Blocks(module, ranks, settings.blocks, weights, optimiser)
    if settings.compression is not None and context.trial_steps is None:
        if ranks == 1:
            raise UserError("compression: one rank exchanges no gradients; expected 2 ranks or more, or no compression")
        return CompressedGradients(module, ranks, context.rank, settings.compression)
    return Gradients(module, ranks)
