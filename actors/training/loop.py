"""The one training loop: of acoustic models, translators, domain models, and what else is trained by gradient descent.

On a CPU the same settings and inputs give the same bytes, with a fixed number of ranks, also when a training is stopped
and resumed from its last checkpoint: every batch seeds its own draws, an epoch's batches depend on seed and epoch only,
and a checkpoint has the weights, the optimiser's moments, the averages and what ranks keep of their gradients.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gristmill.actors.training.ahead import ahead
from gristmill.actors.training.averages import chosen_by
from gristmill.actors.training.checkpoint import buffers, pack, unpack
from gristmill.actors.training.communication import communication_of
from gristmill.actors.training.settings import LoopSettings
from gristmill.actors.training.training import Training, groups
from gristmill.models.optimisers import load_state_tensors, state_tensors
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext

SKIPPED_IN_A_ROW = 10  # steps without a finite gradient that end a training
ROW = ("step", "steps", "steps_per_second", "phase", "phase_steps", "epoch", "lr", "skipped", "loss", "dev_loss")
SKIPPED_SHARE = 0.05  # of all steps, the same


def run_training(training: Training, settings: LoopSettings, context: TrainContext) -> dict[str, Any]:
    """Train and return ``{"files": {name: bytes}, "curves": [...]}``; only rank 0 returns files.

    A step whose gradient is not finite changes nothing; the curves have their number (``skipped``).

    Raises:
        UserError: 10 steps in a row, or more than 5 % of all, had no finite gradient; memory does not suffice; or the
            settings do not fit the training.
    """
    return _Loop(training, settings, context).work()


class _Place(NamedTuple):
    """A batch's place: its phase, the step of the phase, the epoch, and its number in the step."""

    phase: int
    step: int
    epoch: int
    part: int


class _Loop:
    def __init__(self, training: Training, settings: LoopSettings, context: TrainContext) -> None:
        self.training, self.settings, self.context = training, settings, context
        torch.set_num_threads(training.threads)
        wanted = "cuda" if training.device == "auto" and torch.cuda.is_available() else training.device
        self.device = torch.device("cpu" if wanted == "auto" else wanted)
        half = settings.precision == "bfloat16" or (settings.precision == "auto" and self.device.type == "cuda")
        self.half = torch.autocast(self.device.type, torch.bfloat16) if half else nullcontext()
        _seed(training.seed, self.device)
        self.module = training.build(self.device)
        _freeze(self.module, settings.frozen)
        self.phases = training.phases()
        self.epochs = [self._epoch_steps(number) for number in range(len(self.phases))]
        self.whole = [phase.schedule.length(n) for phase, n in zip(self.phases, self.epochs, strict=True)]
        trial = context.trial_steps
        # What a step takes is seen between two of them, also where the whole training has one.
        self.steps = [steps if trial is None else min(max(steps, 2), trial) for steps in self.whole]
        self.total = sum(self.steps)
        self.trained = {n: v for n, v in self.module.named_parameters() if v.requires_grad}
        floats = {n: v for n, v in buffers(self.module).items() if v.is_floating_point()}
        self.weights: dict[str, Tensor] = {**self.trained, **floats}
        self.chosen = chosen_by(settings, self.weights)
        self.optimiser = torch.optim.AdamW(
            groups(self.module, training.weight_decay),
            lr=1e-3,
            betas=training.betas,
            eps=training.eps,
            fused=training.fused or None,
        )
        self.held_out = training.held_out()
        self._check()
        self.communication = communication_of(settings, context, self.module, self.weights, self.optimiser)
        self.network = self.communication.network.train()
        self.curves: list[dict[str, Any]] = []
        self.done = 0
        self.counts = [0, 0]  # steps without a finite gradient: all, and the last in a row
        self.due = self.over = False
        self._resume()
        self.since = time.monotonic(), self.done

    def _epoch_steps(self, phase: int) -> int:
        batches = len(self.training.batches(phase, 0))
        if not batches:
            raise UserError(
                f"{self.phases[phase].where}: there is no batch in {self.phases[phase].data}; expected some"
            )
        return -(-batches // (self.context.world_size * self.settings.accumulate))

    def _check(self) -> None:
        for phase in self.phases:
            names = [one.name for one in phase.objectives]
            wrong = [name for name in names if names.count(name) > 1 or name in ROW]
            if wrong:
                raise UserError(
                    f"{phase.where}: an objective is called {wrong[0]!r}; expected distinct names, and none of "
                    f"{', '.join(ROW)}"
                )
        if self.settings.patience is not None and (not self.held_out or len(self.phases) > 1):
            raise UserError(
                f"patience: there are {len(self.held_out)} held-out batches, and the phases are {len(self.phases)}; "
                "expected held-out data, and one phase"
            )

    def work(self) -> dict[str, Any]:
        try:
            self._descend()
        except (MemoryError, RuntimeError) as error:
            if not (isinstance(error, MemoryError | torch.OutOfMemoryError) or "allocate memory" in str(error)):
                raise
            raise UserError(
                f"training: the memory of the {self.device.type} does not suffice for step {self.done}; expected "
                f"smaller batches: lower {self.training.smaller}, and raise accumulate to make up for it"
            ) from error
        if self.context.rank != 0:
            return {"files": {}, "curves": self.curves}
        with torch.no_grad():
            for name, value in self.chosen.result().items():
                self.weights[name].copy_(value)
        return {"files": self.training.files(), "curves": self.curves}

    def _descend(self) -> None:
        losses: dict[str, float] = {}
        with closing(ahead(self._batches(self.done), self.settings.prefetch)) as batches:
            for place, batch in batches:
                found = self._backward(place, batch)
                losses = found if not place.part else {n: losses.get(n, 0.0) + v for n, v in found.items()}
                if place.part + 1 == self.settings.accumulate:
                    self._step(place)
                    self._end_step(place, losses)
                if self.over:
                    break

    def _batches(self, done: int) -> Iterator[tuple[_Place, Any]]:
        """Yield the batches of the steps after ``done``; runs in another thread."""
        begin, parts = 0, self.settings.accumulate
        for number, (epoch_steps, steps) in enumerate(zip(self.epochs, self.steps, strict=True)):
            order: Any = ()
            held = -1
            for step in range(max(0, done - begin), steps):
                epoch = step // epoch_steps
                if epoch != held:
                    order, held = self.training.batches(number, epoch), epoch
                for part in range(parts):
                    at = (step % epoch_steps * parts + part) * self.context.world_size + self.context.rank
                    # The last step of an epoch, and an epoch of fewer batches, wrap around.
                    yield _Place(number, step, epoch, part), self.training.load(order[at % len(order)])
            begin += steps

    def _backward(self, place: _Place, batch: Any) -> dict[str, float]:
        phase, parts = self.phases[place.phase], self.settings.accumulate
        number = (self._before(place.phase) + place.step) * parts + place.part
        seed = (self.training.seed * 1_000_003 + number) * 64 + self.context.rank
        _seed(seed, self.device)
        if not place.part:
            self.optimiser.zero_grad(set_to_none=True)
        with self.communication.held_back() if place.part + 1 < parts else nullcontext():
            with self.half:
                output = self.training.forward(self.network, batch, place.phase, seed)
            made = {one.name: one(output, batch) for one in phase.objectives}
            losses = {name: loss for name, loss in made.items() if loss is not None}
            total = sum(losses.values(), start=torch.zeros((), device=self.device))
            if parts > 1:
                losses, total = {name: loss / parts for name, loss in losses.items()}, total / parts
            total.backward()
        return {"loss": float(total.detach()), **{name: float(loss.detach()) for name, loss in losses.items()}}

    def _step(self, place: _Place) -> None:
        phase = self.phases[place.phase]
        for group in self.optimiser.param_groups:
            group["lr"] = phase.schedule.rate(place.step, self.steps[place.phase])
        norm = nn.utils.clip_grad_norm_(list(self.trained.values()), self.settings.grad_clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.counts[1] = 0
        else:
            self.counts = [count + 1 for count in self.counts]
        self.chosen.stepped(self.weights, self.done)
        self.done += 1

    def _end_step(self, place: _Place, losses: dict[str, float]) -> None:
        """Exchange, evaluate, report and store what is due after a step."""
        phase, steps = place.phase, self.steps[place.phase]
        step, epoch_steps = place.step + 1, self.epochs[place.phase]
        last = step == steps
        ended = last or step % epoch_steps == 0
        evaluated = ended and bool(self.held_out)
        equal = self.communication.stepped(self.done, end=ended, counts=self.counts)
        if equal:
            self._endure(place)
        if ended and phase + 1 == len(self.phases):
            self.chosen.ended(self.weights, -(-(steps - step) // epoch_steps))
        row: dict[str, Any] = {"step": self.done - 1, "phase": phase, "epoch": place.epoch}
        row["lr"] = self.optimiser.param_groups[0]["lr"]
        row |= {"skipped": self.counts[0]} if self.counts[0] else {}
        if evaluated:
            losses = {**losses, "dev_loss": self._held_out_loss()}
            self.over = self.chosen.measured(self.weights, losses["dev_loss"])
        row |= {name: loss for name, loss in losses.items() if math.isfinite(loss)}  # JSON has finite numbers only
        trial = self.context.trial_steps is not None
        shown = trial or last or evaluated or (self.done - 1) % self.settings.report_steps == 0
        if shown:
            self.curves.append(row)
        # Between two blocks the ranks differ: a checkpoint waits for the end of one.
        self.due |= self.done % self.settings.checkpoint_steps == 0 and self.done < self.total
        stored = self.due and equal and not self.over
        if shown or stored:
            metrics = {**row, "steps": self.total, "steps_per_second": self._pace()}
            metrics |= {"phase_steps": self.whole[phase]} if trial else {}
            self.context.report(metrics, self._checkpoint() if stored else None)
            self.due = self.due and not stored
        if equal and not self.over and self.done < self.total:
            self.communication.go_on()

    def _before(self, phase: int) -> int:
        return sum(self.steps[:phase])

    def _pace(self) -> float:
        """Return the steps per second since the last call."""
        (then, done), self.since = self.since, (time.monotonic(), self.done)
        return (self.done - done) / max(1e-6, self.since[0] - then)

    def _endure(self, place: _Place) -> None:
        """Raise a ``UserError`` after too many steps without a finite gradient: they leave the model undertrained."""
        skipped, in_a_row = self.counts
        if in_a_row >= SKIPPED_IN_A_ROW:
            why = f"{in_a_row} steps in a row"
        elif skipped > SKIPPED_SHARE * self.total:
            why = f"{skipped} of {self.total} steps, more than {SKIPPED_SHARE:.0%}"
        else:
            return
        phase = self.phases[place.phase]
        raise UserError(
            f"{phase.where}: no finite gradient in {why}, the last one at step {self.done - 1}; expected finite "
            f"losses: lower lr ({phase.schedule.lr:g}), or remove what is not finite from {phase.data}"
        )

    @torch.no_grad()
    def _held_out_loss(self) -> float:
        """Return the mean loss of the held-out data; ranks take turns at its batches."""
        self.module.eval()
        sums = torch.zeros(2, dtype=torch.float64, device=self.device)
        for item in self.held_out[self.context.rank :: self.context.world_size]:
            loss, weight = self.training.held_out_loss(self.training.load(item))
            sums += torch.tensor([loss * weight, weight], dtype=torch.float64, device=self.device)
        self.network.train()
        if self.context.world_size > 1:
            torch.distributed.all_reduce(sums)
        return float(sums[0]) / max(1.0, float(sums[1]))

    def _checkpoint(self) -> bytes | None:
        """Return the state of the training, on rank 0."""
        parts = {
            "model": {**self.trained, **buffers(self.module)},
            "chosen": self.chosen.held,
            "communication": self.communication.tensors(),
        }
        if self.context.rank != 0:
            return None
        written = {"done": self.done, "counts": self.counts, "chosen": self.chosen.state, "curves": self.curves}
        return pack(parts, state_tensors(self.optimiser), written)

    def _resume(self) -> None:
        data = self.context.resume()
        if data is None:
            return
        found = unpack(data, self.device, ("model", "chosen", "communication"))
        if found is None:
            print("a checkpoint of an earlier version is passed over: the training begins anew", file=sys.stderr)
            return
        parts, state, written = found
        held = {**self.trained, **buffers(self.module)}
        if {n: v.shape for n, v in held.items()} != {n: v.shape for n, v in parts["model"].items()}:
            raise UserError("checkpoint to resume from: belongs to another training")
        with torch.no_grad():
            for name, value in held.items():
                value.copy_(parts["model"][name])
        self.chosen.held, self.chosen.state = parts["chosen"], written["chosen"]
        self.communication.load(parts["communication"])
        load_state_tensors(self.optimiser, state)
        self.done, self.counts, self.curves = written["done"], written["counts"], written["curves"]
        self.communication.go_on()


def _seed(seed: int, device: torch.device) -> None:
    # Not torch.manual_seed, which keeps a stack of calls for each device that is not in use, and grows.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


def _freeze(module: nn.Module, beginnings: tuple[str, ...]) -> None:
    """Take parameters out of the training by the beginnings of their names."""
    names = [name for name, _ in module.named_parameters()]
    unknown = [one for one in beginnings if not any(name.startswith(one) for name in names)]
    if unknown:
        raise UserError(f"frozen: no parameter begins with {unknown[0]!r}; expected the beginning of one of {names}")
    for name, value in module.named_parameters():
        if name.startswith(beginnings):
            value.requires_grad_(False)
    if not any(value.requires_grad for value in module.parameters()):
        raise UserError("frozen: no parameter is left to train; expected at least one")
