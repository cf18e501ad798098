"""Training of translators on sealed pairs, from scratch or by fine-tuning.

On a CPU the same settings and inputs give bit-identical files, also after a run was stopped and resumed from its last
checkpoint: every step seeds its own random draws, the order of an epoch depends only on seed and epoch, and a
checkpoint holds the weights, the optimiser's moments and the sum of the averaged weights.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from gristmill.actors.text.translator_data import Pairs, Texts, encode, read_pairs
from gristmill.actors.text.translator_files import FAST, check_languages, convert, reader
from gristmill.models.optimisers import load_state_tensors, state_tensors
from gristmill.models.text.placeholders import Catalogue
from gristmill.models.text.translator import (
    TranslatorSizes,
    available,
    cross_entropy,
    learning_rate,
    load_translator,
    new_model,
    save_translator,
    sizes_of,
)
from gristmill.models.text.translator_init import bilingual_start
from gristmill.models.text.translator_units import TranslatorUnits, TranslatorUnitSettings, fit_units
from gristmill.models.weights import read_metadata
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import HOW, Batch, Settings

Passes = Annotated[float, Field(gt=0)]
Rate = Annotated[float, Field(gt=0)]


class TranslatorSchedule(Settings):
    """Duration and learning rate of a training."""

    epochs: Passes | None = 10
    """Passes over the pairs; ``null`` if ``steps`` is given."""
    steps: int | None = Field(None, gt=0)
    """Optimiser steps in place of epochs: equal work whatever the number of pairs."""
    lr: Rate = 3e-3
    """The highest learning rate."""
    warmup: float = Field(0.1, ge=0, le=1)
    """The share of the steps with linear warmup; cosine decay to 0 follows."""

    @model_validator(mode="after")
    def _lasts(self) -> Self:
        if (self.epochs is None) == (self.steps is None):
            raise ValueError("epochs and steps: expected one of them, and null for the other")
        return self


class TuneSettings(TranslatorSchedule):
    """Fine-tuning: a few passes at a lower learning rate."""

    epochs: Passes | None = 2
    """Passes over the pairs; ``null`` if ``steps`` is given."""
    lr: Rate = 5e-4
    """The highest learning rate."""


class ScratchSettings(TranslatorUnitSettings):
    """A translator trained from scratch; not used in fine-tuning."""

    model: TranslatorSizes = TranslatorSizes()
    """Its sizes."""
    bilingual_start: bool = True
    """Whether to initialise it with a lexicon counted from its pairs (:mod:`gristmill.models.text.translator_init`)."""


class TranslatorTraining(ScratchSettings, TranslatorSchedule):
    """A translator and its training."""

    source_lang: str = Field("en", min_length=1)
    """The source language."""
    target_lang: str = Field("hi", min_length=1)
    """The target language."""
    prefix: str = ""
    """The token of the target language, if the initial translator is multilingual."""
    batch_units: Batch = Field(1000, ge=1)
    """Maximum units of a batch: rows x the longest row of the longer side."""
    most_units: Batch = Field(100, ge=2)
    """Maximum units of a side; longer pairs are left out."""
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    """Label smoothing: the share of probability spread over all units."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay."""
    grad_clip: float = Field(1.0, gt=0)
    """The maximum norm of the gradient, for clipping."""
    average: int = Field(1, ge=1)
    """The number of last epochs whose weights are averaged."""
    checkpoint_steps: int = Field(500, ge=1)
    """Steps between checkpoints."""
    report_steps: int = Field(50, ge=1)
    """Steps between reports of the loss."""
    threads: int = Field(1, ge=1, json_schema_extra=HOW)
    """CPU threads per rank."""
    gpus: float = Field(0.0, ge=0)
    """GPUs per rank; if not 0, the network runs there in bfloat16."""


def train(
    settings: TranslatorTraining,
    context: TrainContext,
    *,
    data: Sequence[tuple[str, float]],
    seed: int = 0,
    init: str | None = None,
    dev: str | None = None,
    catalogue: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train a translator; return its files (those of CTranslate2 with their prefix) and curves.

    ``data``: sealed pairs, each set with the number of times that its pairs occur in an epoch (2: twice, 0.5: every
    other epoch on average, drawn by epoch and id). ``init``: a translator's artifact or a Marian checkpoint's folder,
    whose weights, units and text normalisation are kept. ``dev``: pairs whose loss is reported after each epoch.
    ``catalogue``: values and their translations; those that occur on both sides of a pair become placeholders.

    Raises:
        UserError: no pair is left to train on, a set has other languages, or a package is missing.
    """
    available()
    return _Training(settings, context, data, seed, init, dev, Catalogue(catalogue or {})).work()


class _Loss(nn.Module):
    """The loss as a module, so that torch sums the gradients of several ranks."""

    def __init__(self, model: Any, smoothing: float) -> None:
        super().__init__()
        self.model, self.smoothing = model, smoothing

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return cross_entropy(self.model, source, target, self.smoothing if self.training else 0.0)


class _Training:
    def __init__(
        self,
        settings: TranslatorTraining,
        context: TrainContext,
        data: Sequence[tuple[str, float]],
        seed: int,
        init: str | None,
        dev: str | None,
        catalogue: Catalogue,
    ) -> None:
        self.settings, self.context, self.seed = settings, context, seed
        torch.set_num_threads(settings.threads)
        torch.manual_seed(seed)
        self.device = torch.device("cuda" if settings.gpus and torch.cuda.is_available() else "cpu")
        langs = (settings.source_lang, settings.target_lang)
        texts = read_pairs([url for url, _ in data], *langs, [weight for _, weight in data])
        model, self.units = self._load(init) if init is not None else self._new(texts, catalogue)
        most = min(settings.most_units, model.config.max_position_embeddings)
        self.pairs = encode(texts, self.units, catalogue, most)
        self.dev = None if dev is None else encode(read_pairs([dev], *langs), self.units, catalogue, most)
        if init is None and settings.bilingual_start:
            bilingual_start(model, self.pairs.source, self.pairs.target, seed)
        self.model = model.to(self.device)
        self.pad = model.config.pad_token_id
        self.parameters = [value for value in model.parameters() if value.requires_grad]
        decay = settings.weight_decay
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=settings.lr, betas=(0.9, 0.98), eps=1e-9, weight_decay=decay, fused=True
        )
        per_epoch = len(self._order(0))
        self.epoch_steps = -(-per_epoch // context.world_size)
        # All steps, and those to run: a trial ends early.
        self.whole = settings.steps or max(1, math.ceil(self.epoch_steps * (settings.epochs or 0)))
        self.steps = self.whole if context.trial_steps is None else min(self.whole, context.trial_steps)
        self.curves: list[dict[str, float]] = []
        self.done = self.averaged = 0
        self.sum: dict[str, Tensor] = {}
        self._resume()
        self.loss: nn.Module = _Loss(self.model, settings.label_smoothing)
        if context.world_size > 1:
            self.loss = nn.parallel.DistributedDataParallel(self.loss)

    def _load(self, init: str) -> tuple[Any, TranslatorUnits]:
        model, units = load_translator(reader(init), init, self.settings.prefix)
        check_languages(units, init, self.settings.source_lang, self.settings.target_lang)
        return model, units

    def _new(self, texts: Texts, catalogue: Catalogue) -> tuple[Any, TranslatorUnits]:
        settings = self.settings
        if settings.placeholders:
            texts = texts.protected(catalogue)
        langs = (settings.source_lang, settings.target_lang)
        units = fit_units(texts.source, texts.target, *langs, settings)
        return new_model(settings.model, units), units

    def work(self) -> dict[str, Any]:
        for step, epoch, rows in self._batches(self.done):
            loss = self._step(step, rows)
            self._report(step, epoch, loss)
        if self.context.rank != 0:
            return {"files": {}, "curves": self.curves}
        if self.averaged > 1:
            held = self.model.state_dict()
            self.model.load_state_dict(held | {name: value / self.averaged for name, value in self.sum.items()})
        files = save_translator(self.model, self.units)
        files |= {f"{FAST}{name}": data for name, data in convert(self.model, self.units).items()}
        described = {"pairs": len(self.pairs), "too_long": self.pairs.too_long, **sizes_of(self.model)}
        return {"files": files, "curves": self.curves, "model": described}

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch: rows of similar length, in random order."""
        draw = RecordRandom(self.seed, "translator order")(str(epoch))
        return self.pairs.batches(self.settings.batch_units, draw)

    def _batches(self, done: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (step, epoch, rows) for each step after ``done``."""
        order: list[np.ndarray] = []
        held = -1
        # An epoch for which fewer pairs are drawn has fewer batches, and wraps around.
        for step in range(done, self.steps):
            epoch = step // self.epoch_steps
            if epoch != held:
                order, held = self._order(epoch), epoch
            at = (step % self.epoch_steps) * self.context.world_size + self.context.rank
            yield step, epoch, order[at % len(order)]

    def _step(self, step: int, rows: np.ndarray) -> float:
        torch.manual_seed((self.seed * 1_000_003 + step) * 64 + self.context.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.steps, self.settings.warmup, self.settings.lr)
        self.loss.train()
        source, target = (t.to(self.device) for t in self.pairs.padded(rows, self.pad))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss(source, target)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.settings.grad_clip)
        if not torch.isfinite(norm):
            raise UserError(
                f"translator training: the gradient of step {step} is not finite; lower lr ({self.settings.lr:g})"
            )
        self.optimiser.step()
        return float(loss.detach())

    def _report(self, step: int, epoch: int, loss: float) -> None:
        self.done = step + 1
        average = self.settings.average
        ended = self.done % self.epoch_steps == 0 or self.done == self.steps
        if ended and average > 1 and (self.steps - self.done) // self.epoch_steps < average:
            for name, value in self.model.state_dict().items():
                held = self.sum.get(name)
                self.sum[name] = value.detach().clone() if held is None else held + value
            self.averaged += 1
        due = self.done % self.settings.checkpoint_steps == 0 and self.done < self.steps
        trial = self.context.trial_steps is not None
        if not (trial or step % self.settings.report_steps == 0 or ended or due):
            return
        rate = self.optimiser.param_groups[0]["lr"]
        metrics: dict[str, float] = {"step": step, "epoch": epoch, "lr": rate, "loss": loss}
        if ended and self.dev is not None:
            metrics["dev_loss"] = self._dev_loss(self.dev)
        self.curves.append(metrics)
        data = self._checkpoint() if due and self.context.rank == 0 else None
        self.context.report({**metrics, "steps": self.steps, **({"phase_steps": self.whole} if trial else {})}, data)

    @torch.no_grad()
    def _dev_loss(self, dev: Pairs) -> float:
        """Return the mean loss per unit of held-out pairs, without smoothing."""
        self.model.eval()
        total = units = 0.0
        for rows in dev.batches(self.settings.batch_units):
            source, target = (t.to(self.device) for t in dev.padded(rows, self.pad))
            count = int((target != self.pad).sum())
            total += count * float(cross_entropy(self.model, source, target))
            units += count
        return total / max(1.0, units)

    def _checkpoint(self) -> bytes:
        from safetensors.torch import save

        tensors = {f"model.{n}": v.detach().cpu().contiguous() for n, v in self._untied().items()}
        tensors |= {f"sum.{n}": v.cpu().contiguous().clone() for n, v in self.sum.items()}
        tensors |= state_tensors(self.optimiser)
        written = {"done": self.done, "averaged": self.averaged, "curves": self.curves, "sizes": sizes_of(self.model)}
        return save(tensors, metadata={"translator": json.dumps(written)})

    def _untied(self) -> dict[str, Tensor]:
        """Return each weight once."""
        return dict(self.model.named_parameters()) | dict(self.model.named_buffers())

    def _resume(self) -> None:
        data = self.context.resume()
        if data is None:
            return
        from safetensors.torch import load

        written = json.loads(read_metadata(data).get("translator", "null"))
        if written is None or written["sizes"] != sizes_of(self.model):
            raise UserError("checkpoint to resume from: belongs to another training")
        tensors = {n: v.to(self.device) for n, v in load(data).items()}
        with torch.no_grad():
            for name, value in self._untied().items():
                value.copy_(tensors[f"model.{name}"])
        self.sum = {n[4:]: v for n, v in tensors.items() if n.startswith("sum.")}
        load_state_tensors(self.optimiser, tensors)
        self.done, self.averaged, self.curves = written["done"], written["averaged"], written["curves"]
