"""Training of translators on sealed pairs, from scratch or from a translator that is there.

``train(config, context)`` takes JSON values only. On a CPU the same config gives the same files bit for bit, also when
a run was stopped and resumed from its last checkpoint: every step seeds its own draws, the order of an epoch depends
on seed and epoch alone, and a checkpoint holds the weights, the optimiser's moments and the sum of weights averaged.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from torch import Tensor, nn

from gristmill.actors.text.translator_data import Pairs, encode, read_pairs
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
from gristmill.models.text.translator_units import TranslatorUnits, fit_units
from gristmill.models.weights import read_metadata
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom


class TranslatorTraining(BaseModel):
    """What a training is given.

    ``data``: urls of sealed pairs; ``weights``: how often a pair of each counts in an epoch (2: twice, 0.5: every
    other epoch on average; which one is drawn by epoch and id). ``dev``: url of pairs whose loss is told as it goes.
    ``init``: a translator's artifact or a Marian checkpoint's folder, whose weights, units and form of text are kept;
    ``prefix`` is the token of the target language, where that has several.
    """

    model_config = ConfigDict(extra="forbid")
    data: list[str] = Field(min_length=1)
    weights: list[float] | None = None
    dev: str | None = None
    source_lang: str = "en"
    target_lang: str = "hi"
    model: dict[str, Any] = {}
    units: int = Field(4000, ge=50)
    lower: bool = True
    placeholders: bool = True
    catalogue: dict[str, str] = {}
    init: str | None = None
    prefix: str = ""
    bilingual_start: bool = True
    epochs: float | None = Field(None, gt=0)
    steps: int | None = Field(None, gt=0)
    lr: float = Field(2e-3, gt=0)
    warmup: float = Field(0.1, ge=0, le=1)
    batch_units: int = Field(1000, ge=1)
    most_units: int = Field(100, ge=2)
    label_smoothing: float = Field(0.1, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    grad_clip: float = Field(1.0, gt=0)
    average: int = Field(1, ge=1)
    seed: int = 0
    checkpoint_steps: int = Field(500, ge=1)
    report_steps: int = Field(50, ge=1)
    threads: int = Field(1, ge=1)
    device: str = "cpu"


def train(config: Mapping[str, Any], context: TrainContext) -> dict[str, Any]:
    """Train a translator; return its files (those of CTranslate2 with their prefix) and curves.

    Raises:
        UserError: a setting is wrong, no pair is left to train on, a set is of other languages, or a package is absent.
    """
    available()
    try:
        run = TranslatorTraining.model_validate(dict(config))
    except ValidationError as error:
        first = error.errors()[0]
        known = ", ".join(TranslatorTraining.model_fields)
        place = ".".join(map(str, first["loc"]))
        raise UserError(f"translator training: {place}: {first['msg']}; expected some of {known}") from None
    if (run.epochs is None) == (run.steps is None):
        raise UserError("translator training: expected either epochs or steps")
    if run.weights is not None and len(run.weights) != len(run.data):
        raise UserError(f"translator training: {len(run.weights)} weights for {len(run.data)} sets; expected as many")
    return _Training(run, context).work()


class _Loss(nn.Module):
    """The loss as a module, so that gradients of several ranks are summed by torch."""

    def __init__(self, model: Any, smoothing: float) -> None:
        super().__init__()
        self.model, self.smoothing = model, smoothing

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Return the mean loss of a batch."""
        return cross_entropy(self.model, source, target, self.smoothing if self.training else 0.0)


class _Training:
    def __init__(self, run: TranslatorTraining, context: TrainContext) -> None:
        self.run, self.context = run, context
        torch.set_num_threads(run.threads)
        torch.manual_seed(run.seed)
        device = "cuda" if run.device == "auto" and torch.cuda.is_available() else run.device
        self.device = torch.device("cpu" if device == "auto" else device)
        self.catalogue = Catalogue(run.catalogue)
        texts = read_pairs(run.data, run.source_lang, run.target_lang, run.weights)
        model, self.units = self._start(texts)
        most = min(run.most_units, model.config.max_position_embeddings)
        self.pairs = encode(texts, self.units, self.catalogue, most)
        self.dev = None
        if run.dev is not None:
            held = read_pairs([run.dev], run.source_lang, run.target_lang)
            self.dev = encode(held, self.units, self.catalogue, most)
        if run.init is None and run.bilingual_start:
            bilingual_start(model, self.pairs.source, self.pairs.target, run.seed)
        self.model = model.to(self.device)
        self.pad = model.config.pad_token_id
        self.parameters = [value for value in model.parameters() if value.requires_grad]
        self.optimiser = torch.optim.AdamW(
            self.parameters, lr=run.lr, betas=(0.9, 0.98), eps=1e-9, weight_decay=run.weight_decay, fused=True
        )
        per_epoch = len(self._order(0))
        self.epoch_steps = -(-per_epoch // context.world_size)
        self.steps = run.steps or max(1, math.ceil(self.epoch_steps * (run.epochs or 0)))
        self.curves: list[dict[str, Any]] = []
        self.done = self.averaged = 0
        self.sum: dict[str, Tensor] = {}
        self._resume()
        self.loss: nn.Module = _Loss(self.model, run.label_smoothing)
        if context.world_size > 1:
            self.loss = nn.parallel.DistributedDataParallel(self.loss)

    def _start(self, texts: Any) -> tuple[Any, TranslatorUnits]:
        run = self.run
        if run.init is not None:
            model, units = load_translator(reader(run.init), run.init, run.prefix)
            check_languages(units, run.init, run.source_lang, run.target_lang)
            return model, units
        try:
            sizes = TranslatorSizes(**run.model)
        except TypeError as error:
            raise UserError(f"translator training: model: {error}") from None
        protected = texts.protected(self.catalogue) if run.placeholders else texts
        units = fit_units(
            protected.source,
            protected.target,
            run.units,
            run.source_lang,
            run.target_lang,
            lower=run.lower,
            placeholders=run.placeholders,
        )
        return new_model(sizes, units), units

    def work(self) -> dict[str, Any]:
        for step, epoch, rows in self._batches(self.done):
            loss = self._step(step, rows)
            self._tell(step, epoch, loss)
        if self.context.rank != 0:
            return {"files": {}, "curves": self.curves}
        if self.averaged > 1:
            held = self.model.state_dict()
            self.model.load_state_dict(held | {name: value / self.averaged for name, value in self.sum.items()})
        files = save_translator(self.model, self.units)
        files |= {f"{FAST}{name}": data for name, data in convert(self.model, self.units).items()}
        told = {"pairs": len(self.pairs), "too_long": self.pairs.too_long, **sizes_of(self.model)}
        return {"files": files, "curves": self.curves, "model": told}

    def _order(self, epoch: int) -> list[np.ndarray]:
        """Return the batches of an epoch: rows of like length, in drawn order."""
        draw = RecordRandom(self.run.seed, "translator order")(str(epoch))
        return self.pairs.batches(self.run.batch_units, draw)

    def _batches(self, done: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (step, epoch, rows) of the steps after ``done``."""
        order: list[np.ndarray] = []
        held = -1
        # An epoch whose draw of weights takes fewer pairs has fewer batches, and begins again.
        for step in range(done, self.steps):
            epoch = step // self.epoch_steps
            if epoch != held:
                order, held = self._order(epoch), epoch
            at = (step % self.epoch_steps) * self.context.world_size + self.context.rank
            yield step, epoch, order[at % len(order)]

    def _step(self, step: int, rows: np.ndarray) -> float:
        torch.manual_seed((self.run.seed * 1_000_003 + step) * 64 + self.context.rank)
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(step, self.steps, self.run.warmup, self.run.lr)
        self.loss.train()
        source, target = (t.to(self.device) for t in self.pairs.padded(rows, self.pad))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss(source, target)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.parameters, self.run.grad_clip)
        if not torch.isfinite(norm):
            raise UserError(
                f"translator training: the gradient of step {step} is not finite; lower lr ({self.run.lr:g})"
            )
        self.optimiser.step()
        return float(loss.detach())

    def _tell(self, step: int, epoch: int, loss: float) -> None:
        self.done = step + 1
        ended = self.done % self.epoch_steps == 0 or self.done == self.steps
        if ended and self.run.average > 1 and (self.steps - self.done) // self.epoch_steps < self.run.average:
            for name, value in self.model.state_dict().items():
                held = self.sum.get(name)
                self.sum[name] = value.detach().clone() if held is None else held + value
            self.averaged += 1
        due = self.done % self.run.checkpoint_steps == 0 and self.done < self.steps
        if not (step % self.run.report_steps == 0 or ended or due):
            return
        told: dict[str, Any] = {"step": step, "epoch": epoch, "lr": self.optimiser.param_groups[0]["lr"], "loss": loss}
        if ended and self.dev is not None:
            told["dev_loss"] = self._dev_loss(self.dev)
        self.curves.append(told)
        data = self._checkpoint() if due and self.context.rank == 0 else None
        self.context.report({**told, "steps": self.steps}, data)

    @torch.no_grad()
    def _dev_loss(self, dev: Pairs) -> float:
        """Return the mean loss a unit of held-out pairs, without smoothing."""
        self.model.eval()
        total = units = 0.0
        for rows in dev.batches(self.run.batch_units):
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
            raise UserError("checkpoint to resume from: not of this training")
        tensors = {n: v.to(self.device) for n, v in load(data).items()}
        with torch.no_grad():
            for name, value in self._untied().items():
                value.copy_(tensors[f"model.{name}"])
        self.sum = {n[4:]: v for n, v in tensors.items() if n.startswith("sum.")}
        load_state_tensors(self.optimiser, tensors)
        self.done, self.averaged, self.curves = written["done"], written["averaged"], written["curves"]
