"""Training of translators on sealed pairs, from scratch or by fine-tuning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from gristmill.actors.text.translator_data import Pairs, encode, read_pairs
from gristmill.actors.text.translator_files import FAST, check_languages, convert, reader
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, Training, TrainingObjective
from gristmill.models.text.placeholders import Catalogue
from gristmill.models.text.translator import (
    TranslatorSizes,
    available,
    load_translator,
    logits,
    new_model,
    save_translator,
    sizes_of,
)
from gristmill.models.text.translator_init import bilingual_start
from gristmill.models.text.translator_units import TranslatorUnits, TranslatorUnitSettings, fit_units
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import HOW, Batch

Item = tuple[Pairs, np.ndarray]  # pairs, and rows of them
Padded = tuple[Tensor, Tensor]  # units of source and target


class TranslatorSchedule(Schedule):
    """Duration and learning rate of a training."""

    epochs: float | None = Field(10, gt=0)
    """Passes over the pairs; ``null`` if ``steps`` is given."""
    lr: float = Field(3e-3, gt=0)
    """Peak learning rate."""
    final: float = Field(0.0, ge=0)
    """Final learning rate after the decay, as a share of the peak."""


class TuneSettings(TranslatorSchedule):
    """Fine-tuning: a few passes at a lower learning rate."""

    epochs: float | None = Field(2, gt=0)
    """Passes over the pairs; ``null`` if ``steps`` is given."""
    lr: float = Field(5e-4, gt=0)
    """Peak learning rate."""


class ScratchSettings(TranslatorUnitSettings):
    """A translator trained from scratch; not used in fine-tuning."""

    model: TranslatorSizes = TranslatorSizes()
    """Its sizes."""
    bilingual_start: bool = True
    """Whether to initialise it with a lexicon counted from its pairs (:mod:`gristmill.models.text.translator_init`)."""


class TranslatorTraining(ScratchSettings, TranslatorSchedule, LoopSettings):
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
    """Weight decay of matrices; biases and norms do not decay."""
    threads: int = Field(1, ge=1, json_schema_extra=HOW)
    """CPU threads per rank."""
    gpus: float = Field(0.0, ge=0)
    """GPUs per rank; if not 0, the network runs there, in bfloat16."""


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
    training = TranslatorTrainer(settings, data, seed, init, dev, Catalogue(catalogue or {}))
    made = run_training(training, settings, context)
    return {**made, "model": training.described()} if context.rank == 0 else made


class _Logits(nn.Module):
    """The network up to the scores of the target's real units, so that torch sums the gradients of several ranks."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores and the numbers of the target's units, padding left out."""
        return logits(self.model, source, target)


class CrossEntropy:
    """Mean negative log-probability of target units, smoothed (Szegedy et al., CVPR 2016)."""

    name = "cross_entropy"

    def __init__(self, smoothing: float) -> None:
        self.smoothing = smoothing

    def __call__(self, output: tuple[Tensor, Tensor], batch: object) -> Tensor:
        """Return the loss of a batch, in nats."""
        return functional.cross_entropy(*output, label_smoothing=self.smoothing)


class TranslatorTrainer(Training[Item, Padded]):
    """The training of a translator, for the loop."""

    eps = 1e-9  # of Vaswani et al.
    fused = True
    smaller = "batch_units"

    def __init__(
        self,
        settings: TranslatorTraining,
        data: Sequence[tuple[str, float]],
        seed: int,
        init: str | None,
        dev: str | None,
        catalogue: Catalogue,
    ) -> None:
        self.settings, self.start, self.catalogue = settings, init, catalogue
        self.seed, self.threads, self.weight_decay = seed, settings.threads, settings.weight_decay
        self.device = "auto" if settings.gpus else "cpu"
        self.langs = (settings.source_lang, settings.target_lang)
        self.texts = read_pairs([url for url, _ in data], *self.langs, [weight for _, weight in data])
        self.dev_texts = None if dev is None else read_pairs([dev], *self.langs)

    def build(self, device: torch.device) -> nn.Module:
        """Return the network, once the pairs are encoded by its units."""
        settings = self.settings
        self.model, self.units = self._new() if self.start is None else self._load(self.start)
        most = min(settings.most_units, self.model.config.max_position_embeddings)
        self.pairs = encode(self.texts, self.units, self.catalogue, most)
        self.dev = None if self.dev_texts is None else encode(self.dev_texts, self.units, self.catalogue, most)
        if self.start is None and settings.bilingual_start:
            bilingual_start(self.model, self.pairs.source, self.pairs.target, self.seed)
        del self.texts, self.dev_texts  # encoded now
        self.pad, self.place = self.model.config.pad_token_id, device
        return _Logits(self.model.to(device))

    def _load(self, init: str) -> tuple[Any, TranslatorUnits]:
        model, units = load_translator(reader(init), init, self.settings.prefix)
        check_languages(units, init, *self.langs)
        return model, units

    def _new(self) -> tuple[Any, TranslatorUnits]:
        texts = self.texts.protected(self.catalogue) if self.settings.placeholders else self.texts
        units = fit_units(texts.source, texts.target, *self.langs, self.settings)
        return new_model(self.settings.model, units), units

    def phases(self) -> list[LoopPhase]:
        """Return the only phase."""
        objectives: list[TrainingObjective] = [CrossEntropy(self.settings.label_smoothing)]
        return [LoopPhase(self.settings, objectives, "translator training", "the pairs")]

    def batches(self, phase: int, epoch: int) -> list[Item]:
        """Return the batches of an epoch: rows of similar length, in random order."""
        draw = RecordRandom(self.seed, "translator order")(str(epoch))
        return [(self.pairs, rows) for rows in self.pairs.batches(self.settings.batch_units, draw)]

    def load(self, item: Item) -> Padded:
        """Return source and target units of a batch."""
        pairs, rows = item
        return pairs.padded(rows, self.pad)

    def forward(self, network: nn.Module, batch: Padded, phase: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return the scores and the numbers of the target's units."""
        return network(*(side.to(self.place) for side in batch))

    def held_out(self) -> list[Item]:
        """Return the batches of held-out pairs."""
        return [] if self.dev is None else [(self.dev, rows) for rows in self.dev.batches(self.settings.batch_units)]

    def held_out_loss(self, batch: Padded) -> tuple[float, float]:
        """Return the mean loss per unit, without smoothing, and the number of units."""
        scores, units = logits(self.model, *(side.to(self.place) for side in batch))
        return float(functional.cross_entropy(scores, units)), len(units)

    def files(self) -> dict[str, bytes]:
        """Return the translator's files, and those of CTranslate2."""
        files = save_translator(self.model, self.units)
        return files | {f"{FAST}{name}": data for name, data in convert(self.model, self.units).items()}

    def described(self) -> dict[str, int]:
        """Return the numbers of pairs, and sizes of the network."""
        return {"pairs": len(self.pairs), "too_long": self.pairs.too_long, **sizes_of(self.model)}
