"""Neural domain models: hashed words and character n-grams, a bidirectional GRU, and a head each for domain, intent
and slots.

There is no vocabulary: words and n-grams are hashed into rows of a table, so a request's inputs are computed once for
all domains of equal size. The slot head is a linear-chain CRF. The output for a request does not depend, beyond float
rounding, on the padding of its batch.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from gristmill.models.nlu.domain import FamilySettings, Slot, describe, from_iob, single
from gristmill.shards.settings import Batch, Size

CHARACTERS = (3, 4)


class NeuralSettings(FamilySettings):
    """Sizes of the network of a neural domain model, and its training."""

    family: ClassVar[str] = "neural"

    buckets: Batch = Field(default=4096, ge=16)
    """Rows of each of the two embedding tables, of words and of character n-grams."""
    dim: Size = Field(32, ge=1)
    """Width of a word's embedding, and of its n-grams'."""
    hidden: Size = Field(48, ge=1)
    """Units of the GRU, in each direction."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Dropout of embeddings and of the heads' inputs."""
    epochs: PositiveInt = 10
    """Passes over the domain's requests and the negatives."""
    batch: Batch = Field(64, ge=1)
    """Requests per optimiser step."""
    lr: PositiveFloat = 5e-3
    """Peak learning rate of AdamW: linear warm-up over a tenth of the steps, then decay to 0."""
    weight_decay: NonNegativeFloat = 1e-3
    """Of AdamW."""


@lru_cache(maxsize=1 << 16)
def hashed(token: str, buckets: int) -> tuple[int, tuple[int, ...]]:
    """Return the rows of a token's word and of its character n-grams, in lower case, with marked ends."""
    word = token.lower()
    marked = f"<{word}>"
    grams = [marked[i : i + size] for size in CHARACTERS for i in range(max(1, len(marked) - size + 1))]
    return zlib.crc32(word.encode()) % buckets, tuple(zlib.crc32(gram.encode()) % buckets for gram in grams)


class Inputs:
    """A batch of requests as input of the network; a request without tokens is one empty word."""

    def __init__(self, tokens: Sequence[Sequence[str]], buckets: int) -> None:
        rows = [[hashed(token, buckets) for token in one or [""]] for one in tokens]
        self.lengths = torch.tensor([len(row) for row in rows])
        flat = [pair for row in rows for pair in row]
        self.words = torch.tensor([word for word, _ in flat])
        self.grams = torch.tensor([gram for _, grams in flat for gram in grams])
        counts = np.array([0, *(len(grams) for _, grams in flat[:-1])])
        self.offsets = torch.from_numpy(np.cumsum(counts))

    def to(self, device: torch.device) -> Self:
        """Move it to a device; the lengths stay on the CPU, where torch packs sequences by them."""
        self.words, self.grams, self.offsets = (x.to(device) for x in (self.words, self.grams, self.offsets))
        return self


class Network(nn.Module):
    """Inputs to (domain logits (B,), intent logits (B, I), tag scores (B, T, K))."""

    def __init__(self, settings: NeuralSettings, intents: int, tags: int) -> None:
        super().__init__()
        self.words = nn.Embedding(settings.buckets, settings.dim)
        self.grams = nn.EmbeddingBag(settings.buckets, settings.dim, mode="mean")
        self.drop = nn.Dropout(settings.dropout)
        self.gru = nn.GRU(2 * settings.dim, settings.hidden, batch_first=True, bidirectional=True)
        self.domain = nn.Linear(4 * settings.hidden, 1)
        self.intents = nn.Linear(4 * settings.hidden, intents)
        self.tags = nn.Linear(2 * settings.hidden, tags)
        self.crf = Crf(tags)

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scores of a batch; those beyond a request's length are undefined."""
        embedded = torch.cat([self.words(inputs.words), self.grams(inputs.grams, inputs.offsets)], dim=1)
        rows = nn.utils.rnn.pad_sequence(list(self.drop(embedded).split(inputs.lengths.tolist())), batch_first=True)
        packed = nn.utils.rnn.pack_padded_sequence(rows, inputs.lengths, batch_first=True, enforce_sorted=False)
        hidden, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], batch_first=True)
        lengths = inputs.lengths.to(hidden.device)[:, None]
        beyond = (torch.arange(hidden.shape[1], device=hidden.device) >= lengths)[:, :, None]
        mean = hidden.sum(dim=1) / lengths
        most = hidden.masked_fill(beyond, -torch.inf).amax(dim=1)
        pooled = self.drop(torch.cat([mean, most], dim=1))
        return self.domain(pooled)[:, 0], self.intents(pooled), self.tags(self.drop(hidden))


class Crf(nn.Module):
    """A linear-chain conditional random field over tag scores (B, T, K) of requests with lengths (B,)."""

    def __init__(self, tags: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.zeros(tags))
        self.last = nn.Parameter(torch.zeros(tags))
        self.steps = nn.Parameter(torch.zeros(tags, tags))  # from row to column

    def logprob(self, scores: Tensor, lengths: Tensor, tags: Tensor) -> Tensor:
        """Return the log-probability (B,) of tags (B, T); those beyond a length are ignored."""
        lengths = lengths.to(scores.device)
        inside = torch.arange(scores.shape[1], device=scores.device) < lengths[:, None]
        along = scores.gather(2, tags[:, :, None])[:, :, 0].where(inside, scores.new_zeros(()))
        steps = self.steps[tags[:, :-1], tags[:, 1:]].where(inside[:, 1:], scores.new_zeros(()))
        ends = self.last[tags.gather(1, lengths[:, None] - 1)[:, 0]]
        return self.first[tags[:, 0]] + along.sum(dim=1) + steps.sum(dim=1) + ends - self._total(scores, lengths)

    def _total(self, scores: Tensor, lengths: Tensor) -> Tensor:
        reached = self.first + scores[:, 0]
        for place in range(1, scores.shape[1]):
            after = torch.logsumexp(reached[:, :, None] + self.steps, dim=1) + scores[:, place]
            reached = torch.where((place < lengths)[:, None], after, reached)
        return torch.logsumexp(reached + self.last, dim=1)

    def best(self, scores: Tensor, lengths: Tensor) -> Tensor:
        """Return the likeliest tags (B, T); the first of equals."""
        reached = self.first + scores[:, 0]
        origins = []
        for place in range(1, scores.shape[1]):
            most, origin = (reached[:, :, None] + self.steps).max(dim=1)
            inside = (place < lengths)[:, None]
            reached = torch.where(inside, most + scores[:, place], reached)
            origins.append(torch.where(inside, origin, torch.arange(scores.shape[2])))
        path = [(reached + self.last).argmax(dim=1)]
        for origin in reversed(origins):
            path.append(origin.gather(1, path[-1][:, None])[:, 0])
        return torch.stack(path[::-1], dim=1)


class NeuralModel:
    """The neural models of one domain, which share an encoder."""

    family: ClassVar[str] = NeuralSettings.family

    def __init__(self, domain: str, intents: Sequence[str], tags: Sequence[str], settings: NeuralSettings) -> None:
        self.domain, self.intents, self.tags, self.settings = domain, tuple(intents), tuple(tags), settings
        self.network = Network(settings, len(self.intents), len(self.tags))

    def files(self) -> dict[str, bytes]:
        """Return ``model.json`` and ``weights.safetensors``."""
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        return {
            "model.json": describe(self, tags=self.tags, settings=self.settings.model_dump(mode="json")),
            "weights.safetensors": save(tensors),
        }

    @classmethod
    def from_files(cls, described: Mapping[str, Any], files: Mapping[str, bytes]) -> NeuralModel:
        """Return the model stored in files."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        settings = NeuralSettings.model_validate(described["settings"])
        model = cls(described["domain"], described["intents"], described["tags"], settings)
        try:
            model.network.load_state_dict(load(files["weights.safetensors"]))
        except SafetensorError as error:
            raise ValueError(f"weights.safetensors: {error}") from None
        model.network.eval()
        return model

    @classmethod
    def together(cls, models: Sequence[NeuralModel]) -> NeuralScorer:
        """Return a scorer of several models."""
        return NeuralScorer(models)


class NeuralScorer:
    """Several neural models."""

    def __init__(self, models: Sequence[NeuralModel]) -> None:
        self.models = models

    def __call__(self, tokens: Sequence[Sequence[str]], vectors: np.ndarray | None = None) -> NeuralScores:
        """Return the scores of a batch of requests, token lists; their embeddings are not read."""
        return NeuralScores(self.models, tokens)


class NeuralScores:
    """Scores of a batch; a domain's slots are tagged for the whole batch on first access."""

    def __init__(self, models: Sequence[NeuralModel], tokens: Sequence[Sequence[str]]) -> None:
        self._models, self._tokens = models, tokens
        inputs = {size: Inputs(tokens, size) for size in sorted({model.settings.buckets for model in models})}
        self._lengths = next(iter(inputs.values())).lengths
        self._tagged: dict[int, tuple[list[list[int]], list[float]]] = {}
        self._scores: list[Tensor] = []
        domains, self.intents = [], []
        with torch.no_grad():
            for model in models:
                domain, intents, scores = model.network(inputs[model.settings.buckets])
                domains.append(F.logsigmoid(domain.double()).float().numpy())
                self.intents.append(intents.double().log_softmax(dim=1).float().numpy())
                self._scores.append(scores)
        self.domain = np.stack(domains, axis=1)

    def slots(self, row: int, place: int) -> tuple[tuple[Slot, ...], float]:
        """Return a domain's slots of a request and their log-probability."""
        model, tokens = self._models[place], self._tokens[row]
        if place not in self._tagged:
            with torch.no_grad():
                best = model.network.crf.best(self._scores[place], self._lengths)
                logprobs = model.network.crf.logprob(self._scores[place], self._lengths, best)
            self._tagged[place] = best.tolist(), logprobs.tolist()
        if not tokens:
            return (), 0.0
        tags, totals = self._tagged[place]
        return from_iob(tokens, [model.tags[tag] for tag in tags[row][: len(tokens)]]), single(totals[row])
