"""Training of a contextual adapter to a frozen base: on speech with names, and lists drawn for each batch.

A batch's list has the names of its utterances among names that are drawn from all of the training data. Half of the
utterances do not have their own names on it, so that what is on no list is heard as the base hears it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from gristmill.actors.speech.lexicon_files import load_lexicon
from gristmill.actors.speech.trainer import MODEL
from gristmill.actors.speech.training_data import Batch, Source, SourceInputs
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, PlainObjective, Training
from gristmill.models.speech.adapter import AdaptedModel, AdapterSettings, ContextualAdapter, save_adapter
from gristmill.models.speech.checkpoint import load_acoustic
from gristmill.models.speech.losses import ctc_loss
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import HOW, Size
from gristmill.shards.settings import Batch as BatchSize

ADAPTER = "adapter.safetensors"
Item = tuple[int, int, np.ndarray]  # an epoch, a batch's number in it, and rows of the source
_TINY = 1e-6


class AdapterTraining(LoopSettings, AdapterSettings):
    """Sizes and training of a contextual adapter."""

    schedule: Schedule = Schedule(epochs=6, lr=2e-3)
    most: Size = Field(100, ge=1)
    """Names drawn for a batch's list beside those of its utterances, at most; each number to it is as likely."""
    absent: float = Field(0.5, ge=0, le=1)
    """Share of the utterances that do not have their own names on the list."""
    attention_weight: float = Field(0.3, ge=0)
    """Weight of attention supervision (Sathyendra et al., 2023): a name that is spoken is attended to in some frame,
    and no name is where none of the list is spoken. 0 leaves it out."""
    batch_frames: BatchSize = Field(6000, ge=100)
    """Feature frames in a batch, including padding."""
    window: BatchSize = Field(16, ge=1)
    """Shards that are shuffled together."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of matrices; biases and norms do not decay."""
    seed: int = 0
    device: str = "cpu"
    """``auto`` uses a GPU if there is one."""
    cache_bytes: int = Field(2 << 30, ge=0, json_schema_extra=HOW)
    """Memory for shards of the source; at least two are kept."""


@dataclass
class ListedBatch:
    """A batch with its list: entries (N, longest) in units, who may hear which (B, N), and which are spoken (B, N)."""

    speech: Batch
    spelled: Tensor
    allowed: Tensor
    spoken: Tensor


def train_adapter(
    settings: AdapterTraining, context: TrainContext, *, base: str, data: SourceInputs, lexicon: str | None = None
) -> dict[str, Any]:
    """Train and return ``{"files": {"adapter.safetensors": bytes}, "curves": [...]}``; only rank 0 returns files.

    ``base`` is the artifact of an acoustic model, ``data`` a source with text and names. A base of phonemes needs the
    artifact ``lexicon``, with the pronunciations of all words.
    """
    return run_training(AdapterTrainer(settings, base, data, lexicon), settings, context)


class AdapterTrainer(Training[Item, ListedBatch]):
    """The training of an adapter, for the loop."""

    smaller = "batch_frames"

    def __init__(self, settings: AdapterTraining, base: str, data: SourceInputs, lexicon: str | None = None) -> None:
        self.settings, self.seed, self.device = settings, settings.seed, settings.device
        self.weight_decay = settings.weight_decay
        self.source = Source("names", settings.cache_bytes, **data)
        if not self.source.text or not self.source.names:
            raise UserError("train.data: no text or no names; expected the columns of both")
        self.base = read_file(base, MODEL)
        self.lexicon = None if lexicon is None else load_lexicon(lexicon)

    def build(self, device: torch.device) -> nn.Module:
        """Return the base with a new adapter, once the source is found to match the base."""
        base, self.units, features = load_acoustic(self.base)
        if self.units.kind == "phonemes" and (self.lexicon is None or self.lexicon.units.digest != self.units.digest):
            raise UserError("train: a base of phonemes; expected a lexicon in its units")
        self.source.check(self.units, features, 1.0 / features.hop_s / base.subsampling, 1)
        self.known = self.source.all_names()
        if not self.known:
            raise UserError(
                f"train.data: {self.source.sealed.url} has no name at all; expected some to draw lists from"
            )
        adapter = ContextualAdapter(self.settings.part(AdapterSettings), base.vocab, base.width, base.depth)
        self.model = AdaptedModel(base, adapter).to(device)
        return self.model

    def phases(self) -> list[LoopPhase]:
        """Return the one phase: CTC on the text, and the supervision of the attention."""
        weight = self.settings.attention_weight

        def ctc(output: tuple[Tensor, ...], batch: ListedBatch) -> Tensor:
            return ctc_loss(output[0], output[1], batch.speech.targets or [])

        def attention(output: tuple[Tensor, ...], batch: ListedBatch) -> Tensor:
            return weight * attention_loss(output[1], output[2], batch.spoken)

        objectives = [PlainObjective("ctc", ctc), *([PlainObjective("attention", attention)] if weight else [])]
        return [LoopPhase(self.settings.schedule, objectives, "train", self.source.sealed.url)]

    def batches(self, phase: int, epoch: int) -> list[Item]:
        """Return the batches of an epoch."""
        given = self.settings
        made = self.source.batches(given.batch_frames, given.window, self.seed, epoch)
        return [(epoch, number, rows) for number, rows in enumerate(made)]

    def load(self, item: Item) -> ListedBatch:
        """Return the tensors of a batch with its list, which is drawn by its epoch and number."""
        epoch, number, rows = item
        speech = self.source.load(rows, self.units, self.model.base.output_lengths)
        draw = RecordRandom(self.seed, "lists")(f"{epoch}:{number}")
        if self.lexicon is not None:
            speech.targets = [self.lexicon.pronounce(text) for text in speech.texts or ()]
        own = [set(names) for names in speech.names or ()]
        others = draw.choice(self.known, min(int(draw.integers(1, self.settings.most + 1)), len(self.known)), False)
        words = sorted({str(word) for word in others}.union(*own))
        spellings = [(word, self._spelled(word)) for word in words]
        spellings = [(word, spelled) for word, spelled in spellings if spelled]
        table = np.zeros((len(spellings), max((len(spelled) for _, spelled in spellings), default=1)), np.int64)
        for row, (_, spelled) in zip(table, spellings, strict=True):
            row[: len(spelled)] = spelled
        mine = np.array([[word in names for word, _ in spellings] for names in own], bool)
        absent = draw.random(len(own)) < self.settings.absent
        allowed = ~(mine & absent[:, None])
        return ListedBatch(speech, *(torch.from_numpy(one) for one in (table, allowed, mine & allowed)))

    def _spelled(self, word: str) -> list[int]:
        return self.units.encode(word) if self.lexicon is None else self.lexicon.pronounce(word)

    def forward(self, network: nn.Module, batch: ListedBatch, phase: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities, their lengths, and the attention."""
        device = self.model.adapter.none.device
        speech = batch.speech
        given = (speech.features, speech.lengths, batch.spelled, batch.allowed)
        found: tuple[Tensor, Tensor, Tensor] = network(*(one.to(device) for one in given))
        return found

    def files(self) -> dict[str, bytes]:
        """Return the adapter, which names its base by the digest."""
        return {ADAPTER: save_adapter(self.model.adapter, canonical.sha256(self.base))}


def attention_loss(lengths: Tensor, attention: Tensor, spoken: Tensor) -> Tensor:
    """Return the supervision of the attention (B, T, 1 + N) by the entries that are spoken (B, N), per utterance.

    A spoken entry should have all attention in some frame; where none is spoken, no entry should have any in any frame.
    """
    frames = torch.arange(attention.shape[1], device=attention.device)[None] < lengths[:, None]
    spoken = spoken.to(attention.device)
    peaks = attention[:, :, 1:].masked_fill(~frames[:, :, None], 0.0).amax(1)
    heard = -(peaks.clamp_min(_TINY).log() * spoken).sum() / spoken.sum().clamp_min(1)
    quiet = (~spoken.any(1))[:, None] & frames
    unheard = -(attention[:, :, 0].clamp_min(_TINY).log() * quiet).sum() / quiet.sum().clamp_min(1)
    return heard + unheard
