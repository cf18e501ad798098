"""Training of acoustic models on sealed sets: a schedule of phases, each with its sources and objectives.

``train(config, context)`` takes JSON values only. On a CPU the same config gives the same weights bit for bit, also
when a run was stopped and resumed from its last checkpoint: every step seeds its own draws, batches come from
:mod:`gristmill.actors.speech.training_data`, and a checkpoint holds the weights, the optimiser's moments and the
averages.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from torch import Tensor, nn

from gristmill.actors.speech.training_data import Batch, Source, ahead
from gristmill.models.measures.wer import CORRECT, align
from gristmill.models.optimisers import load_state_tensors, state_tensors
from gristmill.models.speech.acoustic import AcousticConfig, AcousticModel
from gristmill.models.speech.checkpoint import load_acoustic, save_acoustic
from gristmill.models.speech.decode import prefix_beam_search
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.losses import ctc_loss, expected_errors, soft_target_loss
from gristmill.models.speech.specaugment import SpecAugment
from gristmill.models.speech.units import Units
from gristmill.models.weights import read_metadata
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom

OBJECTIVES = ("ctc", "soft", "mwer")
SKIPPED_IN_A_ROW = 10  # steps without a finite gradient that end a training
SKIPPED_SHARE = 0.05  # of all steps, the same


@dataclass(frozen=True)
class Phase:
    """A stretch of training. ``objective`` is a name or weights by name; a batch takes those its source can serve.

    ``epochs`` (over all sources of the phase) or ``steps``. The learning rate rises over ``warmup`` of the phase and
    falls along a cosine to ``final`` of its peak. Soft targets mixed with another objective are multiplied by T^2.
    """

    objective: str | dict[str, float] = "ctc"
    sources: tuple[str, ...] | None = None  # None: all
    epochs: float | None = None
    steps: int | None = None
    lr: float = 1e-3
    warmup: float = 0.1
    final: float = 0.01
    temperature: float = 2.0
    student_temperature: float | None = None
    k: int | None = 20
    tail: str = "renormalise"
    nbest: int = 4
    beam: int = 8
    specaugment: dict[str, Any] | None = None

    @property
    def weights(self) -> dict[str, float]:
        """Weights of the objectives by name."""
        return {self.objective: 1.0} if isinstance(self.objective, str) else dict(self.objective)


@dataclass(frozen=True)
class TrainConfig:
    """What :func:`train` understands; ``units`` is :meth:`Units.to_json`'s text or the object it holds.

    ``init`` is an artifact's URL: its weights, units and sizes are where training starts.
    ``ema`` is the decay of the averaged weights that are returned, 0 for the last weights.
    """

    data: dict[str, dict[str, Any]]
    phases: list[dict[str, Any]]
    model: dict[str, Any] = field(default_factory=dict)
    units: Any = None
    init: str | None = None
    seed: int = 0
    batch_frames: int = 6000  # feature frames in a batch, padding counted
    window: int = 16  # shards that are shuffled together and held
    cache_bytes: int = 2 << 30
    weight_decay: float = 1e-2
    grad_clip: float = 1.0
    ema: float = 0.0
    checkpoint_steps: int = 200
    report_steps: int = 20
    threads: int = 1
    device: str = "cpu"  # "auto" takes a GPU if there is one; there the network runs in bfloat16


def parse(config: dict[str, Any]) -> tuple[TrainConfig, list[Phase]]:
    """Return a checked config; what is wrong is told by its path."""
    run = _typed(TrainConfig, config, "train")
    phases = [_typed(Phase, phase, f"train.phases[{i}]") for i, phase in enumerate(run.phases)]
    for i, phase in enumerate(phases):
        unknown = sorted(set(phase.weights) - set(OBJECTIVES))
        if unknown:
            raise UserError(f"train.phases[{i}].objective: {unknown}, expected some of {', '.join(OBJECTIVES)}")
        missing = sorted(set(phase.sources or ()) - set(run.data))
        if missing:
            raise UserError(f"train.phases[{i}].sources: {missing} are not in train.data: {sorted(run.data)}")
        if (phase.epochs is None) == (phase.steps is None):
            raise UserError(f"train.phases[{i}]: expected either epochs or steps")
    return run, phases


def _typed(kind: Any, values: dict[str, Any], path: str) -> Any:
    known = {f.name for f in fields(kind)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise UserError(f"{path}: unknown {unknown}, expected some of {sorted(known)}")
    try:
        return kind(**values)
    except TypeError as error:
        raise UserError(f"{path}: {error}") from None


def train(config: dict[str, Any], context: TrainContext) -> dict[str, Any]:
    """Train and return ``{"files": {"model.safetensors": bytes}, "curves": [...]}``; other ranks give no files.

    A step whose gradient is not finite changes nothing; the curves tell how many there were (``skipped``), and a
    ``UserError`` ends a training with 10 in a row or more than 5 % of its steps.
    """
    run, phases = parse(config)
    return _Training(run, phases, context).work()


class _Training:
    def __init__(self, run: TrainConfig, phases: list[Phase], context: TrainContext) -> None:
        self.run, self.phases, self.context = run, phases, context
        torch.set_num_threads(run.threads)
        torch.manual_seed(run.seed)
        device = "cuda" if run.device == "auto" and torch.cuda.is_available() else run.device
        self.device = torch.device("cpu" if device == "auto" else device)
        self.sources = {name: Source(name, given, run.cache_bytes) for name, given in sorted(run.data.items())}
        self.model, self.units, self.settings = self._start()
        rate = 1.0 / self.settings.hop_s / self.model.subsampling
        for name, source in self.sources.items():
            wanted = [p.k for p in phases if "soft" in p.weights and name in (p.sources or self.sources)]
            source.check(self.units, self.settings, rate, max((k for k in wanted if k), default=1))
        self.whole: list[int] = []  # steps of each phase, also where a trial takes fewer
        self.plan = [self._plan(phase, i) for i, phase in enumerate(phases)]
        self.average = {n: v.detach().clone() for n, v in self.model.state_dict().items()} if run.ema else {}
        self.optimiser = torch.optim.AdamW(_groups(self.model, run.weight_decay), lr=1e-3, betas=(0.9, 0.98))
        self.curves: list[dict[str, Any]] = []
        self.done = self.skipped = self.in_a_row = 0
        self._resume()
        self.network: nn.Module = self.model
        if context.world_size > 1:
            self.network = nn.parallel.DistributedDataParallel(self.model)

    def _start(self) -> tuple[AcousticModel, Units, FeatureSettings]:
        run = self.run
        settings = next(iter(self.sources.values())).settings
        if run.init:
            model, units, settings = load_acoustic(read_file(run.init, "model.safetensors"))
            return model.to(self.device), units, settings
        if run.units is None:
            raise UserError("train.units: missing; expected units, or train.init to take them from")
        units = Units.from_json(run.units if isinstance(run.units, str) else json.dumps(run.units))
        sizes = _typed(AcousticConfig, {**run.model, "n_mels": settings.n_mels, "vocab": len(units)}, "train.model")
        return AcousticModel(sizes).to(self.device), units, settings

    def _plan(self, phase: Phase, place: int) -> tuple[int, int]:
        """Return (steps of an epoch, steps of the phase), and refuse sources that serve no objective."""
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
        steps = phase.steps if phase.steps is not None else max(1, math.ceil(epoch * (phase.epochs or 0)))
        self.whole.append(steps)
        return epoch, steps if self.context.trial_steps is None else min(steps, self.context.trial_steps)

    def work(self) -> dict[str, Any]:
        with closing(ahead(self._batches(self.done))) as batches:
            for number, step, epoch, batch in batches:
                phase, (_, steps) = self.phases[number], self.plan[number]
                before = sum(count for _, count in self.plan[:number])
                losses = self._step(phase, batch, before + step, _rate(phase, step, steps))
                self._endure(number, before + step)
                self._tell(number, before + step, steps, epoch, losses, last=step + 1 == steps)
        if self.context.rank != 0:
            return {"files": {}, "curves": self.curves}
        if self.run.ema:
            self.model.load_state_dict(self.average)
        data = save_acoustic(self.model, self.units, self.settings)
        return {"files": {"model.safetensors": data}, "curves": self.curves}

    def _batches(self, done: int) -> Iterator[tuple[int, int, int, Batch]]:
        """Yield (phase, step of the phase, epoch, batch) of the steps after ``done``: run by another thread."""
        start = 0
        for number, (phase, (epoch_steps, steps)) in enumerate(zip(self.phases, self.plan, strict=True)):
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
        """Return the batches of an epoch: each source's own order, interleaved evenly at drawn places."""
        draw = RecordRandom(self.run.seed, "order")(f"{number}:{epoch}")
        placed = []
        for name in phase.sources or self.sources:
            # Phases are numbered apart, so that two phases over one source do not repeat the same epochs.
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
            features = SpecAugment(**phase.specaugment)(features, batch.lengths, torch.Generator().manual_seed(seed))
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
            # A running mean at first, so that the average never holds much of the random start.
            decay = min(self.run.ema, (step + 1) / (step + 10))
            for name, value in self.model.state_dict().items():
                self.average[name].lerp_(value, 1.0 - decay)
        return {"loss": float(total.detach()), **{n: float(v.detach()) for n, v in losses.items()}}

    def _losses(self, phase: Phase, batch: Batch, log_probs: Tensor, lengths: Tensor) -> dict[str, Tensor]:
        weights, losses = phase.weights, {}
        if weights.get("soft") and batch.topk_ids is not None:
            assert batch.topk_logprobs is not None
            assert batch.tail_logmass is not None
            soft = soft_target_loss(
                log_probs,
                lengths,
                batch.topk_ids.to(self.device),
                batch.topk_logprobs.to(self.device),
                batch.tail_logmass.to(self.device),
                temperature=phase.temperature,
                k=phase.k,
                tail=phase.tail,
                student_temperature=phase.student_temperature,
            )
            losses["soft"] = weights["soft"] * soft * (phase.temperature**2 if len(weights) > 1 else 1.0)
        if weights.get("ctc") and batch.targets is not None:
            losses["ctc"] = weights["ctc"] * ctc_loss(log_probs, lengths, batch.targets)
        if weights.get("mwer") and batch.targets is not None:
            losses["mwer"] = weights["mwer"] * self._mwer(phase, batch.targets, log_probs, lengths)
        return losses

    def _mwer(self, phase: Phase, targets: list[list[int]], log_probs: Tensor, lengths: Tensor) -> Tensor:
        """Return expected word errors a reference word over n-best lists of the model as it is."""
        # The text as the units spell it: what no hypothesis can write, such as capitals, is no error.
        texts = [self.units.decode(target).split() for target in targets]
        scores = log_probs.detach().float().cpu().numpy()
        hypotheses, errors = [], []
        for row, count, words in zip(scores, lengths.tolist(), texts, strict=True):
            found = prefix_beam_search(row[:count], phase.beam, nbest=phase.nbest)
            hypotheses.append([h.units for h in found])
            letters = [align(words, self.units.decode(h.units).split()) for h in found]
            errors.append([float(len(aligned) - aligned.count(CORRECT)) for aligned in letters])
        spoken = max(1, sum(map(len, texts)))
        return expected_errors(log_probs, lengths, hypotheses, errors) * (len(texts) / spoken)

    def _endure(self, number: int, step: int) -> None:
        """Give up where too many steps had no finite gradient: what comes out would not be what was asked for."""
        total = sum(steps for _, steps in self.plan)
        if self.in_a_row >= SKIPPED_IN_A_ROW:
            why = f"{self.in_a_row} steps in a row"
        elif self.skipped > SKIPPED_SHARE * total:
            why = f"{self.skipped} of {total} steps, more than {SKIPPED_SHARE:.0%}"
        else:
            return
        phase = self.phases[number]
        raise UserError(
            f"train.phases[{number}]: no finite gradient in {why}, the last one at step {step}; expected finite "
            f"losses: lower lr ({phase.lr:g}), or remove features and labels that are not finite from "
            f"{', '.join(phase.sources or self.sources)}"
        )

    def _tell(self, phase: int, step: int, steps: int, epoch: int, losses: dict[str, float], *, last: bool) -> None:
        self.done = step + 1
        total = sum(s for _, s in self.plan)
        due = self.done % self.run.checkpoint_steps == 0 and self.done < total
        trial = self.context.trial_steps is not None
        shown = trial or step % self.run.report_steps == 0 or last
        losses = {name: loss for name, loss in losses.items() if math.isfinite(loss)}  # JSON has no other numbers
        lost = {"skipped": self.skipped} if self.skipped else {}
        rate = self.optimiser.param_groups[0]["lr"]
        if shown:
            self.curves.append({"step": step, "phase": phase, "epoch": epoch, "lr": rate, **lost, **losses})
        if shown or due:
            data = self._checkpoint() if due and self.context.rank == 0 else None
            told = {"step": step, "steps": total, "phase": phase, "epoch": epoch, "lr": rate, **lost, **losses}
            told |= {"phase_steps": self.whole[phase]} if trial else {}
            self.context.report(told, data)

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
            "config": asdict(self.model.config),
        }
        return save(tensors, metadata={"training": json.dumps(written)})

    def _resume(self) -> None:
        data = self.context.resume()
        if data is None:
            return
        from safetensors.torch import load

        written = json.loads(read_metadata(data).get("training", "null"))
        if written is None or written["config"] != asdict(self.model.config):
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


def _rate(phase: Phase, step: int, steps: int) -> float:
    warm = max(1, round(phase.warmup * steps))
    if step < warm:
        return phase.lr * (step + 1) / warm
    way = (step - warm) / max(1, steps - warm)
    return phase.lr * (phase.final + (1 - phase.final) * 0.5 * (1 + math.cos(math.pi * way)))


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return parameter groups: matrices decay, biases and norms do not."""
    wide = [p for p in model.parameters() if p.ndim > 1]
    narrow = [p for p in model.parameters() if p.ndim <= 1]
    return [{"params": wide, "weight_decay": weight_decay}, {"params": narrow, "weight_decay": 0.0}]
