"""Training of acoustic models on sealed sets: a schedule of phases, each with its sources and objectives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from gristmill.actors.speech.lexicon_files import load_lexicon
from gristmill.actors.speech.objectives import Output
from gristmill.actors.speech.phases import AcousticTraining
from gristmill.actors.speech.training_data import Batch, Source, SourceInputs
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.training import LoopPhase, Training
from gristmill.models.speech.acoustic import AcousticModel, InnerHeadSettings
from gristmill.models.speech.checkpoint import AcousticNetwork, load_acoustic, save_acoustic
from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.units import UNITS_FILE, Units
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom

MODEL = "model.safetensors"
Item = tuple[str, np.ndarray]  # a source's name, and rows of it


def train(
    settings: AcousticTraining,
    context: TrainContext,
    *,
    data: Mapping[str, SourceInputs],
    units: str | None = None,
    init: str | None = None,
    lexicon: str | None = None,
) -> dict[str, Any]:
    """Train and return ``{"files": {"model.safetensors": bytes}, "curves": [...]}``; only rank 0 returns files.

    ``data`` are the sources by name. Training starts from random weights, with the units of the artifact ``units``, or
    from the weights, units and sizes of the artifact ``init``. The artifact ``lexicon`` has the phones as its units and
    the pronunciations of all words, for inner heads of phones.
    """
    return run_training(AcousticTrainer(settings, data, units, init, lexicon), settings, context)


class AcousticTrainer(Training[Item, Batch]):
    """The training of an acoustic model, for the loop."""

    smaller = "batch_frames"

    def __init__(
        self,
        settings: AcousticTraining,
        data: Mapping[str, SourceInputs],
        units: str | None,
        init: str | None,
        lexicon: str | None = None,
    ) -> None:
        self.settings, self.start = settings, (units, init)
        self.seed, self.device, self.weight_decay = settings.seed, settings.device, settings.weight_decay
        self.lexicon = None if lexicon is None else load_lexicon(lexicon)
        self.sources = {name: Source(name, settings.cache_bytes, **given) for name, given in sorted(data.items())}
        for i, phase in enumerate(settings.phases):
            missing = sorted(set(phase.sources or ()) - set(self.sources))
            if missing:
                raise UserError(f"train.phases[{i}].sources: {missing} are not in the data: {sorted(self.sources)}")

    def build(self, device: torch.device) -> nn.Module:
        """Return the network, once the sources are found to match it."""
        model, self.units, self.features = self._begin(*self.start)
        self.model = model.to(device)
        rate = 1.0 / self.features.hop_s / model.subsampling
        for name, source in self.sources.items():
            phases = [phase for phase in self.settings.phases if name in (phase.sources or self.sources)]
            wanted = [phase.soft.k for phase in phases if phase.soft_weight]
            source.check(self.units, self.features, rate, max(wanted, default=1))
        return self.model

    def _begin(self, units: str | None, init: str | None) -> tuple[AcousticNetwork, Units, FeatureSettings]:
        if init is not None:
            model, known, features = load_acoustic(read_file(init, MODEL))
            return self._checked(model), known, features
        if units is None:
            raise UserError("train: units are missing; expected units, or a model to start from")
        known = Units.from_json(read_file(units, UNITS_FILE).decode())
        features = next(iter(self.sources.values())).settings
        phones = 0 if self.lexicon is None else len(self.lexicon.units)
        return self._checked(AcousticModel(self.settings.model, features.n_mels, len(known), phones)), known, features

    def _checked(self, model: AcousticNetwork) -> AcousticNetwork:
        """Return a model whose inner heads have what they learn from."""
        if any(head.of == "phones" for head in inner_heads(model)) and self.lexicon is None:
            raise UserError("train: an inner head of phones, and no lexicon; expected one with all words of the texts")
        return model

    def phases(self) -> list[LoopPhase]:
        """Return the phases; a source for no objective of its phase is a ``UserError``."""
        made = []
        for place, phase in enumerate(self.settings.phases):
            inner = inner_heads(self.model)
            objectives, where = phase.objectives(self.units, inner), f"train.phases[{place}]"
            if phase.inner_weight and not inner:
                raise UserError(f"{where}.inner_weight: the model has no inner head; expected 0, or model.inner")
            names = tuple(phase.sources or self.sources)
            for name in names:
                if not any(getattr(self.sources[name], one.needs) for one in objectives):
                    raise UserError(
                        f"{where}: source {name!r} has neither the text nor the labels that "
                        f"{sorted(one.name for one in objectives)} needs"
                    )
            made.append(LoopPhase(phase.schedule, objectives, where, ", ".join(names)))
        return made

    def batches(self, phase: int, epoch: int) -> list[Item]:
        """Return the batches of an epoch: each source's own order, evenly interleaved at random positions."""
        given = self.settings
        draw = RecordRandom(self.seed, "order")(f"{phase}:{epoch}")
        placed = []
        for name in given.phases[phase].sources or self.sources:
            # Phases have distinct numbers, so that two phases over one source do not repeat the same epochs.
            number = phase * 100_000 + epoch
            batches = self.sources[name].batches(given.batch_frames, given.window, self.seed, number)
            shift = draw.random()
            placed += [((i + shift) / len(batches), name, rows) for i, rows in enumerate(batches)]
        return [(name, rows) for _, name, rows in sorted(placed, key=lambda p: p[:2])]

    def load(self, item: Item) -> Batch:
        """Return the tensors of a batch."""
        name, rows = item
        batch = self.sources[name].load(rows, self.units, self.model.output_lengths)
        if self.lexicon is not None and batch.texts is not None:
            batch.phones = [self.lexicon.pronounce(text) for text in batch.texts]
        return batch

    def forward(self, network: nn.Module, batch: Batch, phase: int, seed: int) -> Output:
        """Return log-probabilities and their lengths."""
        features, augment = batch.features, self.settings.phases[phase].specaugment
        if augment is not None:
            features = augment(features, batch.lengths, torch.Generator().manual_seed(seed))
        device = next(network.parameters()).device
        inner = {"inner": True} if self.settings.phases[phase].inner_weight else {}
        return network(features.to(device), batch.lengths.to(device), **inner)

    def files(self) -> dict[str, bytes]:
        """Return the model with its units and feature settings."""
        of_phones = any(head.of == "phones" for head in inner_heads(self.model))
        phones = self.lexicon.units if self.lexicon is not None and of_phones else None
        return {MODEL: save_acoustic(self.model, self.units, self.features, phones)}


def inner_heads(model: AcousticNetwork) -> tuple[InnerHeadSettings, ...]:
    """Return the inner heads of a network."""
    return model.settings.inner if isinstance(model, AcousticModel) else ()
