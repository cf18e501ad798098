"""Training of acoustic models on sealed sets: a schedule of phases, each with its sources and objectives.

On a CPU the same settings and inputs give the same weights bit for bit, also when a run is stopped and resumed from its
last checkpoint: every step seeds its own draws, batches come from :mod:`gristmill.actors.speech.training_data`, and a
checkpoint has the weights, the optimiser's moments and the averages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import torch
from torch import Tensor, nn

from gristmill.actors.speech.phases import AcousticTraining, Phase
from gristmill.actors.speech.training_data import Batch, Source, SourceInputs, ahead
from gristmill.models.measures.wer import CORRECT, align
from gristmill.models.optimisers import load_state_tensors, state_tensors
from gristmill.models.speech.acoustic import AcousticModel
from gristmill.models.speech.checkpoint import load_acoustic, save_acoustic
from gristmill.models.speech.decode import prefix_beam_search
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.losses import ctc_loss, expected_errors, soft_target_loss
from gristmill.models.speech.units import UNITS_FILE, Units
from gristmill.models.weights import read_metadata
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom

SKIPPED_IN_A_ROW = 10  # steps without a finite gradient that end a training
SKIPPED_SHARE = 0.05  # of all steps, the same


def train(
    settings: AcousticTraining,
    context: TrainContext,
    *,
    data: Mapping[str, SourceInputs],
    units: str | None = None,
    init: str | None = None,
) -> dict[str, Any]:
    """Train and return ``{"files": {"model.safetensors": bytes}, "curves": [...]}``; only rank 0 returns files.

    ``data`` are the sources by name. Training starts from random weights, with the units of the artifact ``units``, or
    from the weights, units and sizes of the artifact ``init``.

    A step whose gradient is not finite changes nothing; the curves have their number (``skipped``), and a ``UserError``
    ends a training with 10 in a row or more than 5 % of its steps.
    """
    return _Training(settings, context, data, units, init).work()


class _Training:
    def __init__(
        self,
        run: AcousticTraining,
        context: TrainContext,
        data: Mapping[str, SourceInputs],
        units: str | None,
        init: str | None,
    ) -> None:
        self.run, self.context, phases = run, context, run.phases
        torch.set_num_threads(1)  # the order of a sum changes its last bits (law 1)
        torch.manual_seed(run.seed)
        device = "cuda" if run.device == "auto" and torch.cuda.is_available() else run.device
        self.device = torch.device("cpu" if device == "auto" else device)
        self.sources = {name: Source(name, run.cache_bytes, **given) for name, given in sorted(data.items())}
        self._check_sources()
        self.model, self.units, self.settings = self._start(units, init)
        rate = 1.0 / self.settings.hop_s / self.model.subsampling
        for name, source in self.sources.items():
            wanted = [p.soft.k for p in phases if p.soft_weight and name in (p.sources or self.sources)]
            source.check(self.units, self.settings, rate, max(wanted, default=1))
        self.whole: list[int] = []  # steps of each full phase; a trial may take fewer
        self.plan = [self._plan(phase, i) for i, phase in enumerate(phases)]
        self.average = {n: v.detach().clone() for n, v in self.model.state_dict().items()} if run.ema else {}
        self.optimiser = torch.optim.AdamW(_groups(self.model, run.weight_decay), lr=1e-3, betas=(0.9, 0.98))
        self.curves: list[dict[str, Any]] = []
        self.done = self.skipped = self.in_a_row = 0
        self._resume()
        self.network: nn.Module = self.model
        if context.world_size > 1:
            self.network = nn.parallel.DistributedDataParallel(self.model)

    def _check_sources(self) -> None:
        for i, phase in enumerate(self.run.phases):
            missing = sorted(set(phase.sources or ()) - set(self.sources))
            if missing:
                raise UserError(f"train.phases[{i}].sources: {missing} are not in the data: {sorted(self.sources)}")

    def _start(self, units: str | None, init: str | None) -> tuple[AcousticModel, Units, FeatureSettings]:
        if init is not None:
            model, known, features = load_acoustic(read_file(init, "model.safetensors"))
            return model.to(self.device), known, features
        if units is None:
            raise UserError("train: units are missing; expected units, or a model to start from")
        known = Units.from_json(read_file(units, UNITS_FILE).decode())
        features = next(iter(self.sources.values())).settings
        return AcousticModel(self.run.model, features.n_mels, len(known)).to(self.device), known, features

    def _plan(self, phase: Phase, place: int) -> tuple[int, int]:
        """Return (steps of an epoch, steps of the phase); a source for no objective is a ``UserError``."""
        batches = 0
        for name in phase.sources or self.sources:
            source = self.sources[name]
            if not _served(phase.weights, source):
                raise UserError(
                    f"train.phases[{place}]: source {name!r} has neither the text nor the labels that "
                    f"{sorted(phase.weights)} needs"
                )
            batches += len(source.batches(self.run.batch_frames, self.run.window, self.run.seed, 0))
        epoch = -(-batches // self.context.world_size)
        schedule = phase.schedule
        steps = schedule.steps or max(1, math.ceil(epoch * (schedule.epochs or 0)))
        self.whole.append(steps)
        return epoch, steps if self.context.trial_steps is None else min(steps, self.context.trial_steps)

    def work(self) -> dict[str, Any]:
        with closing(ahead(self._batches(self.done))) as batches:
            for number, step, epoch, batch in batches:
                phase, (_, steps) = self.run.phases[number], self.plan[number]
                before = sum(count for _, count in self.plan[:number])
                losses = self._step(phase, batch, before + step, phase.schedule.rate(step, steps))
                self._endure(number, before + step)
                self._report(number, before + step, steps, epoch, losses, last=step + 1 == steps)
        if self.context.rank != 0:
            return {"files": {}, "curves": self.curves}
        if self.run.ema:
            self.model.load_state_dict(self.average)
        data = save_acoustic(self.model, self.units, self.settings)
        return {"files": {"model.safetensors": data}, "curves": self.curves}

    def _batches(self, done: int) -> Iterator[tuple[int, int, int, Batch]]:
        """Yield (phase, step of the phase, epoch, batch) of the steps after ``done``; runs in another thread."""
        start = 0
        for number, (phase, (epoch_steps, steps)) in enumerate(zip(self.run.phases, self.plan, strict=True)):
            order: list[tuple[str, Any]] = []
            held = -1
            for step in range(max(0, done - start), steps):
                epoch = step // epoch_steps
                if epoch != held:
                    order, held = self._order(phase, number, epoch), epoch
                at = (step % epoch_steps) * self.context.world_size + self.context.rank
                name, rows = order[at % len(order)]
                yield number, step, epoch, self.sources[name].load(rows, self.units, self.model.output_lengths)
            start += steps

    def _order(self, phase: Phase, number: int, epoch: int) -> list[tuple[str, Any]]:
        """Return the batches of an epoch: each source's own order, evenly interleaved at random positions."""
        draw = RecordRandom(self.run.seed, "order")(f"{number}:{epoch}")
        placed = []
        for name in phase.sources or self.sources:
            # Phases have distinct numbers, so that two phases over one source do not repeat the same epochs.
            batches = self.sources[name].batches(
                self.run.batch_frames, self.run.window, self.run.seed, number * 100_000 + epoch
            )
            shift = draw.random()
            placed += [((i + shift) / len(batches), name, rows) for i, rows in enumerate(batches)]
        return [(name, rows) for _, name, rows in sorted(placed, key=lambda p: p[:2])]

    def _step(self, phase: Phase, batch: Batch, step: int, rate: float) -> dict[str, float]:
        seed = (self.run.seed * 1_000_003 + step) * 64 + self.context.rank
        torch.manual_seed(seed)
        features = batch.features
        if phase.specaugment is not None:
            features = phase.specaugment(features, batch.lengths, torch.Generator().manual_seed(seed))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.network.train()
        # Weights, their moments and the log-probabilities stay in float32.
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            log_probs, lengths = self.network(features.to(self.device), batch.lengths.to(self.device))
        losses = self._losses(phase, batch, log_probs, lengths)
        total = sum(losses.values(), start=log_probs.new_zeros(()))
        self.optimiser.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.run.grad_clip)
        if torch.isfinite(norm):
            self.optimiser.step()
            self.in_a_row = 0
        else:
            self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        if self.run.ema:
            # A running mean at first, so that the average never includes much of the random initialisation.
            decay = min(self.run.ema, (step + 1) / (step + 10))
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1.0 - decay)
        return {"loss": float(total.detach()), **{n: float(v.detach()) for n, v in losses.items()}}

    def _losses(self, phase: Phase, batch: Batch, log_probs: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        weights, losses = phase.weights, {}
        if "soft" in weights and batch.topk_ids is not None:
            assert batch.topk_logprobs is not None
            assert batch.tail_logmass is not None
            soft = soft_target_loss(
                log_probs,
                lengths,
                batch.topk_ids.to(self.device),
                batch.topk_logprobs.to(self.device),
                batch.tail_logmass.to(self.device),
                phase.soft,
            )
            losses["soft"] = weights["soft"] * soft * (phase.soft.temperature**2 if len(weights) > 1 else 1.0)
        if "ctc" in weights and batch.targets is not None:
            losses["ctc"] = weights["ctc"] * ctc_loss(log_probs, lengths, batch.targets)
        if "mwer" in weights and batch.targets is not None:
            losses["mwer"] = weights["mwer"] * self._mwer(phase, batch.targets, log_probs, lengths)
        return losses

    def _mwer(self, phase: Phase, targets: list[list[int]], log_probs: Tensor, lengths: Tensor) -> Tensor:
        """Return expected word errors per reference word over n-best lists of the current model."""
        # The text as the units spell it: characters that no hypothesis can contain, such as capitals, are not errors.
        texts = [self.units.decode(target).split() for target in targets]
        scores = log_probs.detach().float().cpu().numpy()
        hypotheses, errors = [], []
        for row, count, words in zip(scores, lengths.tolist(), texts, strict=True):
            found = prefix_beam_search(row[:count], phase.mwer.beam, nbest=phase.mwer.nbest)
            hypotheses.append([h.units for h in found])
            letters = [align(words, self.units.decode(h.units).split()) for h in found]
            errors.append([float(len(aligned) - aligned.count(CORRECT)) for aligned in letters])
        spoken = max(1, sum(map(len, texts)))
        return expected_errors(log_probs, lengths, hypotheses, errors) * (len(texts) / spoken)

    def _endure(self, number: int, step: int) -> None:
        """Raise a ``UserError`` after too many steps without a finite gradient: they leave the model undertrained."""
        total = sum(steps for _, steps in self.plan)
        if self.in_a_row >= SKIPPED_IN_A_ROW:
            why = f"{self.in_a_row} steps in a row"
        elif self.skipped > SKIPPED_SHARE * total:
            why = f"{self.skipped} of {total} steps, more than {SKIPPED_SHARE:.0%}"
        else:
            return
        phase = self.run.phases[number]
        raise UserError(
            f"train.phases[{number}]: no finite gradient in {why}, the last one at step {step}; expected finite "
            f"losses: lower lr ({phase.schedule.lr:g}), or remove features and labels that are not finite from "
            f"{', '.join(phase.sources or self.sources)}"
        )

    def _report(self, phase: int, step: int, steps: int, epoch: int, losses: dict[str, float], *, last: bool) -> None:
        self.done = step + 1
        total = sum(s for _, s in self.plan)
        due = self.done % self.run.checkpoint_steps == 0 and self.done < total
        trial = self.context.trial_steps is not None
        shown = trial or step % self.run.report_steps == 0 or last
        losses = {name: loss for name, loss in losses.items() if math.isfinite(loss)}  # JSON has finite numbers only
        lost = {"skipped": self.skipped} if self.skipped else {}
        rate = self.optimiser.param_groups[0]["lr"]
        if shown:
            self.curves.append({"step": step, "phase": phase, "epoch": epoch, "lr": rate, **lost, **losses})
        if shown or due:
            data = self._checkpoint() if due and self.context.rank == 0 else None
            metrics = {"step": step, "steps": total, "phase": phase, "epoch": epoch, "lr": rate, **lost, **losses}
            metrics |= {"phase_steps": self.whole[phase]} if trial else {}
            self.context.report(metrics, data)

    def _checkpoint(self) -> bytes:
        from safetensors.torch import save

        tensors = {f"model.{n}": v.detach().cpu().contiguous() for n, v in self.model.state_dict().items()}
        tensors |= {f"average.{n}": v.cpu().contiguous() for n, v in self.average.items()}
        tensors |= state_tensors(self.optimiser)
        written = {
            "done": self.done,
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "curves": self.curves,
            "config": self.model.sizes,
        }
        return save(tensors, metadata={"training": json.dumps(written)})

    def _resume(self) -> None:
        data = self.context.resume()
        if data is None:
            return
        from safetensors.torch import load

        written = json.loads(read_metadata(data).get("training", "null"))
        if written is None or written["config"] != self.model.sizes:
            raise UserError("checkpoint to resume from: not of this training")
        tensors = {n: v.to(self.device) for n, v in load(data).items()}
        self.model.load_state_dict({n[6:]: v for n, v in tensors.items() if n.startswith("model.")})
        if self.run.ema:
            self.average = {n[8:]: v for n, v in tensors.items() if n.startswith("average.")}
        load_state_tensors(self.optimiser, tensors)
        self.done, self.curves = written["done"], written["curves"]
        self.skipped, self.in_a_row = written["skipped"], written["in_a_row"]


def _served(weights: dict[str, float], source: Source) -> bool:
    return bool(({"ctc", "mwer"} & set(weights) and source.text) or ("soft" in weights and source.labels))


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: matrices decay, biases and norms do not."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": wide, "weight_decay": weight_decay}, {"params": narrow, "weight_decay": 0.0}]
