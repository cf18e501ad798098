"""Training of a contextual adapter to a frozen base: on speech with names, and lists drawn for each batch.

A batch's list has the names of its utterances among names that are drawn from all of the training data. Half of the
utterances do not have their own names on it, so that what is on no list is heard as the base hears it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gristmill.actors.speech.lexicon_files import load_lexicon
from gristmill.actors.speech.trainer import MODEL
from gristmill.actors.speech.training_data import Batch, Source, SourceInputs
from gristmill.actors.training.loop import run_training
from gristmill.actors.training.settings import LoopSettings, Schedule
from gristmill.actors.training.training import LoopPhase, PlainObjective, Training
from gristmill.models.speech.adapter import ADAPTER, AdaptedModel, AdapterSettings, ContextualAdapter, save_adapter
from gristmill.models.speech.checkpoint import load_acoustic
from gristmill.models.speech.losses import ctc_loss, pad_targets
from gristmill.models.speech.units import normalise
from gristmill.models.speech.words import forced
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError
from gristmill.shards.job import TrainContext
from gristmill.shards.random import RecordRandom
from gristmill.shards.settings import HOW, Size
from gristmill.shards.settings import Batch as BatchSize

Item = tuple[int, int, np.ndarray]  # an epoch, a batch's number in it, and rows of the source
AdapterOutput = tuple[Tensor, Tensor, Tensor, Tensor]
IGNORED = -1  # a frame that gives no unit may attend to anything


class AdapterTraining(LoopSettings, AdapterSettings):
    """Sizes and training of a contextual adapter."""

    schedule: Schedule = Schedule(epochs=12, lr=5e-3)
    most: Size = Field(60, ge=1)
    """Names drawn for a batch's list beside those of its utterances, at most; each number to it is as likely."""
    absent: float = Field(0.5, ge=0, le=1)
    """Share of the utterances that do not have their own names on the list."""
    attention_weight: float = Field(1.0, ge=0)
    """Weight of attention supervision (Sathyendra et al., 2023): where the base's best alignment of the text has a unit
    of a listed name, that unit of the entry is attended to, and none of the list where it has another word. 0 leaves it
    out."""
    batch_frames: BatchSize = Field(6000, ge=100)
    """Feature frames in a batch, including padding."""
    window: BatchSize = Field(16, ge=1)
    """Shards that are shuffled together."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay of matrices; biases and norms do not decay."""
    seed: int = 0
    """Of its weights and draws; a recipe gives that of the run's training."""
    device: str = "cpu"
    """``auto`` uses a GPU if there is one."""
    cache_bytes: int = Field(2 << 30, ge=0, json_schema_extra=HOW)
    """Memory for shards of the source; at least two are kept."""


@dataclass
class ListedBatch:
    """A batch with its list."""

    speech: Batch
    rows: np.ndarray  # of the source
    spelled: Tensor  # (N, longest) the entries in units
    allowed: Tensor  # bool (B, N): who may hear which
    keys: list[np.ndarray]  # of each utterance, of each unit of its text, the key that it is to attend to; 0: none


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
        self._aligned: dict[int, np.ndarray] = {}  # of rows that have been seen

    def build(self, device: torch.device) -> nn.Module:
        """Return the base with a new adapter, once the source is found to match the base."""
        base, self.units, features = load_acoustic(self.base)
        if self.units.kind == "phonemes" and (self.lexicon is None or self.lexicon.units.digest != self.units.digest):
            raise UserError("train: a base of phonemes; expected a lexicon in its units")
        self.source.check(self.units, features, 1.0 / features.hop_s / base.subsampling, 1)
        self.known = self.source.all_names()
        if not self.known:
            raise UserError(f"train.data: {self.source.sealed.url} has no name; expected some, to draw lists from")
        adapter = ContextualAdapter(self.settings.part(AdapterSettings), base.vocab, base.width, base.depth)
        self.model = AdaptedModel(base, adapter).to(device)
        return self.model

    def phases(self) -> list[LoopPhase]:
        """Return the one phase: CTC on the text, and the supervision of the attention."""
        weight = self.settings.attention_weight

        def ctc(output: tuple[Tensor, ...], batch: ListedBatch) -> Tensor:
            return ctc_loss(output[0], output[1], batch.speech.targets or [])

        def attention(output: tuple[Tensor, ...], batch: ListedBatch) -> Tensor:
            return weight * attention_loss(output[2], output[3])

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
        spellings = {word: spelled for word in words if (spelled := self._spelled(word))}
        mine = np.array([[word in names for word in spellings] for names in own], bool).reshape(len(own), -1)
        absent = draw.random(len(own)) < self.settings.absent
        keys = _first_keys(spellings, self.settings.attend)
        texts = [(text, {} if out else keys) for text, out in zip(speech.texts or (), absent, strict=True)]
        return ListedBatch(
            speech,
            rows,
            pad_targets(list(spellings.values()))[0],
            torch.from_numpy(~(mine & absent[:, None])),
            [self._keys(text, some) for text, some in texts],
        )

    def _keys(self, text: str, first: Mapping[str, tuple[int, int]]) -> np.ndarray:
        """Return the key of each unit of a text, by the first key of each listed word and the step to the next."""
        found: list[int] = []
        for word in normalise(text).split():
            if found and " " in self.units.tokens:
                found.append(0)
            count = len(self._spelled(word))
            begin, step = first.get(word, (0, 0))
            found += [begin + step * place for place in range(count)]
        return np.array(found, np.int64)

    def _spelled(self, word: str) -> list[int]:
        return self.units.encode(word) if self.lexicon is None else self.lexicon.pronounce(word)

    def forward(self, network: nn.Module, batch: ListedBatch, phase: int, seed: int) -> AdapterOutput:
        """Return log-probabilities, their lengths, the log-attention, and the key that each frame is to attend to."""
        device = self.model.adapter.none.device
        speech = batch.speech
        given = (speech.features, speech.lengths, batch.spelled, batch.allowed)
        log_probs, lengths, attention = network(*(one.to(device) for one in given))
        wanted = torch.full(attention.shape[:2], IGNORED)
        for place, row in enumerate(batch.rows.tolist() if self.settings.attention_weight else ()):
            targets, keys = (speech.targets or [])[place], batch.keys[place]
            of_frame = self._aligned_alone(row, speech.features[place, : speech.lengths[place]].to(device), targets)
            if len(keys) == len(targets) and len(of_frame):
                wanted[place, : len(of_frame)] = torch.from_numpy(np.where(of_frame >= 0, keys[of_frame], IGNORED))
        return log_probs, lengths, attention, wanted.to(device)

    @torch.no_grad()
    def _aligned_alone(self, row: int, features: Tensor, targets: list[int]) -> np.ndarray:
        """Return the alignment of a row, which is not its batch's, so that a training that resumes finds the same."""
        if row not in self._aligned:
            base: Any = self.model.base
            states, _ = base.layers(features[None], torch.tensor([len(features)], device=features.device))
            log_probs = base.classify(states[-1])[0].float().cpu().numpy()
            self._aligned[row] = aligned(log_probs, targets).astype(np.int16)
        return self._aligned[row]

    def files(self) -> dict[str, bytes]:
        """Return the adapter, which names its base by the digest."""
        return {ADAPTER: save_adapter(self.model.adapter, canonical.sha256(self.base))}


def _first_keys(spellings: Mapping[str, list[int]], attend: str) -> dict[str, tuple[int, int]]:
    """Return the first key of each entry, and the step from that of one of its units to the next."""
    if attend == "entries":
        return {word: (number, 0) for number, word in enumerate(spellings, start=1)}
    ends = np.cumsum([1, *map(len, spellings.values())]).tolist()
    return {word: (first, 1) for word, first in zip(spellings, ends, strict=False)}


def aligned(log_probs: np.ndarray, targets: list[int]) -> np.ndarray:
    """Return the place of the unit that each frame of log-probabilities (T, V) gives, or -1, by the best path."""
    if not targets or len(targets) > len(log_probs):
        return np.zeros(0, np.int64)
    return forced(log_probs, targets)


def attention_loss(attention: Tensor, wanted: Tensor) -> Tensor:
    """Return the cross entropy of the log-attention (B, T, M) with the keys wanted (B, T), per frame.

    It is the mean of that of frames with a listed name and that of others, so that few names weigh as much as the rest.
    """
    losses = F.nll_loss(attention.transpose(1, 2), wanted.clamp_min(0), reduction="none")
    found = [losses[some].mean() for some in (wanted > 0, wanted == 0) if some.any()]
    return sum(found[1:], start=found[0]) / len(found) if found else attention.sum() * 0.0
