"""Several right skills of a request of which one is labelled: pseudo labels and negative feedback.

Kim and Kim, "Pseudo labeling and negative feedback learning for large-scale multi-label domain classification" (ICASSP
2020). A network is trained with a sigmoid for each skill. After each epoch the most probable of the skills that a
request is not labelled with is noted. One that stays it for several epochs, with a probability above a threshold,
becomes a pseudo label: its target is no longer 0, but what the network predicts, taken again after each epoch, so that
the loss neither lowers nor raises it. A label that falls below the threshold is withdrawn. A skill that was chosen and
got negative feedback is none; its probability is lowered by a term -w log(1 - p).

A request is three bags of hashed features: its word 1-2-grams, its character 3-4-grams and, where it has some, the
names of its context (slots that the dialogue has filled, a kind of device), each bag scaled as if it had length 1.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gristmill.models.nlu.linear import grams
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Batch, Settings, Size

FORMAT = 1
MODEL, WEIGHTS = "skills.json", "weights.safetensors"
KINDS = ("words", "characters", "context")
_NONE = -1


class SkillNetworkSettings(Settings):
    """Sizes of the network."""

    buckets: Batch = Field(1 << 14, ge=16)
    """Rows of each of the embedding tables, of words, characters and context."""
    dim: Size = Field(16, ge=1)
    """Width of an embedding."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout of a request's mean embeddings."""


class PseudoSettings(Settings):
    """When a skill becomes a pseudo label."""

    epochs: int = Field(3, ge=1)
    """Consecutive epochs after which it is the most probable of those that the request is not labelled with."""
    threshold: float = Field(0.25, ge=0, lt=1)
    """Least probability in each of them."""
    after: int = Field(4, ge=0)
    """Epochs before the first that counts: a network that has learnt little yet finds many skills probable."""
    most: Size = Field(4, ge=1)
    """Pseudo labels of a request, at most."""


Bag = tuple[Tensor, Tensor]  # rows of a table, and where those of each request begin


class FeatureRows:
    """The hashed features of many requests, from which batches are taken.

    Example:
        >>> rows = FeatureRows([["lights", "on"], ["stop"]], [None, ["room"]], 64)
        >>> [[len(bag) for bag in one] for one in rows.rows], len(rows.take([1])[0][0])
        ([[3, 17, 0], [1, 7, 1]], 1)
    """

    def __init__(self, tokens: Sequence[Sequence[str]], contexts: Sequence[Sequence[str] | None], buckets: int) -> None:
        known: dict[str, int] = {}

        def hashed(names: Sequence[str]) -> np.ndarray:
            for name in names:
                if name not in known:
                    known[name] = zlib.crc32(name.encode()) % buckets
            return np.array([known[name] for name in names], np.int32)

        given = zip(tokens, contexts, strict=True)
        self.rows = [tuple(map(hashed, (*grams(words), context or ()))) for words, context in given]

    def take(self, places: Sequence[int] | np.ndarray) -> list[Bag]:
        """Return the features of the requests at these places, a bag for each of ``KINDS``."""
        return [_bag([self.rows[place][kind] for place in places]) for kind in range(len(KINDS))]


def _bag(rows: Sequence[np.ndarray]) -> Bag:
    starts = np.cumsum([0, *(len(row) for row in rows)])[:-1]
    flat = np.concatenate(rows) if rows else np.zeros(0)
    return torch.from_numpy(flat.astype(np.int64)), torch.from_numpy(starts.astype(np.int64))


class SkillNetwork(nn.Module):
    """Bags of features to logits (B, skills)."""

    def __init__(self, settings: SkillNetworkSettings, skills: int) -> None:
        super().__init__()
        tables = [nn.EmbeddingBag(settings.buckets, settings.dim, mode="sum") for _ in KINDS]
        for table in tables:
            nn.init.normal_(table.weight, std=0.1)
        self.tables = nn.ModuleDict(dict(zip(KINDS, tables, strict=True)))
        self.drop = nn.Dropout(settings.dropout)
        self.out = nn.Linear(len(KINDS) * settings.dim, skills)

    def forward(self, bags: Sequence[Bag]) -> Tensor:
        """Return the logits of a batch."""
        return self.out(self.drop(self.pooled(bags)))

    def pooled(self, bags: Sequence[Bag]) -> Tensor:
        """Return the sums of each bag's rows divided by the square root of their number, (B, kinds dim)."""
        pooled = []
        for kind, (rows, starts) in zip(KINDS, bags, strict=True):
            counts = torch.diff(starts, append=starts.new_tensor([len(rows)])).clamp(min=1)
            pooled.append(self.tables[kind](rows, starts) / counts.sqrt()[:, None])
        return torch.cat(pooled, 1)


class PseudoLabels(nn.Module):
    """The pseudo labels of training requests, and which skill came first after the last epochs.

    It is a module whose buffers are whole numbers (floats by their bits), so that checkpoints have them and averages of
    weights do not. ``skills``, ``values`` and ``since`` (requests, most): the labels' skills (-1: none), values and the
    epochs, from 1 on, after which they were made.
    """

    skills: Tensor
    bits: Tensor
    since: Tensor
    top: Tensor
    streak: Tensor
    epoch: Tensor

    def __init__(self, settings: PseudoSettings | None, requests: int) -> None:
        super().__init__()
        self.settings = settings
        most = settings.most if settings else 0
        self.register_buffer("skills", torch.full((requests, most), _NONE, dtype=torch.int32))
        self.register_buffer("bits", torch.zeros((requests, most), dtype=torch.int32))
        self.register_buffer("since", torch.zeros((requests, most), dtype=torch.int32))
        self.register_buffer("top", torch.full((requests,), _NONE, dtype=torch.int32))
        self.register_buffer("streak", torch.zeros(requests, dtype=torch.int32))
        self.register_buffer("epoch", torch.zeros(requests, dtype=torch.int32))

    @property
    def values(self) -> Tensor:
        """The labels' values, (requests, most) float32."""
        return self.bits.view(torch.float32)

    def note(self, places: Tensor, probabilities: Tensor, labelled: Tensor) -> None:
        """Note what the network predicts after an epoch, (B, skills), for the requests at ``places`` (B,).

        ``labelled`` (B, skills) bool are the skills that cannot be pseudo labels: the labelled and the rejected ones.
        """
        settings = self.settings
        if settings is None:
            return
        self.epoch[places] += 1
        given = self.skills[places].long()  # (B, most)
        predicted = probabilities.gather(1, given.clamp(min=0))
        # Labels follow the network; one that it no longer finds probable is none, and the others move up.
        kept = (given >= 0) & (predicted > settings.threshold)
        order = torch.argsort(kept.int(), dim=1, descending=True, stable=True)
        own = given.masked_fill(~kept, _NONE).gather(1, order)
        values = predicted.masked_fill(~kept, 0.0).gather(1, order)
        since = self.since[places].masked_fill(~kept, 0).gather(1, order)
        free = ~(labelled | marked(own, probabilities.shape[1]))
        best, which = probabilities.masked_fill(~free, -1.0).max(1)
        sure = (best > settings.threshold) & (self.epoch[places] > settings.after)
        streak = torch.where(sure & (which == self.top[places]), self.streak[places] + 1, sure.int())
        count = kept.sum(1)
        made = (streak >= settings.epochs) & (count < settings.most)
        new = made[:, None] & (torch.arange(settings.most) == count[:, None])
        self.skills[places] = torch.where(new, which[:, None], own).int()
        self.bits[places] = torch.where(new, best[:, None], values).view(torch.int32)
        self.since[places] = torch.where(new, self.epoch[places][:, None], since)
        # The next of a request's skills starts from the beginning.
        self.top[places] = which.masked_fill(~sure | made, _NONE).int()
        self.streak[places] = streak.masked_fill(made, 0).int()

    def targets(self, places: Tensor, skills: int) -> Tensor:
        """Return the labels' values of requests as targets, (B, skills), 0 for all others."""
        own = self.skills[places].long()
        padded = torch.zeros(len(own), skills + 1)
        where = own.where(own >= 0, torch.full((), skills))
        return padded.scatter(1, where, self.values[places])[:, :skills]


def marked(own: Tensor, skills: int) -> Tensor:
    """Return (B, skills) bool: the skills whose numbers are in the rows of ``own``, of which -1 is none."""
    where = own.where(own >= 0, torch.full((), skills))
    return torch.zeros(len(own), skills + 1, dtype=torch.bool).scatter(1, where, True)[:, :skills]


def skill_loss(logits: Tensor, labels: Tensor, negatives: Tensor, pseudo: Tensor, negative_weight: float) -> Tensor:
    """Return the mean loss of a batch: the sum over skills of their cross-entropies.

    ``labels`` and ``negatives`` (B,) are numbers of skills, -1 for none; ``pseudo`` (B, skills) are the values of
    pseudo labels. A request without a label teaches by its negative feedback only.
    """
    skills = logits.shape[1]
    gold, wrong = marked(labels[:, None], skills), marked(negatives[:, None], skills)
    targets = torch.where(gold, torch.ones(()), pseudo).masked_fill(wrong, 0.0)
    weights = (labels >= 0).float()[:, None] + negative_weight * wrong
    losses = F.binary_cross_entropy_with_logits(logits, targets, weights, reduction="none")
    return losses.sum(1).mean()


class SkillModel:
    """A trained network with the names of its skills."""

    def __init__(self, skills: Sequence[str], settings: SkillNetworkSettings, network: SkillNetwork) -> None:
        self.skills, self.settings, self.network = tuple(skills), settings, network

    @torch.no_grad()
    def probabilities(
        self, tokens: Sequence[Sequence[str]], contexts: Sequence[Sequence[str] | None] | None = None
    ) -> np.ndarray:
        """Return the probability of each skill, (requests, skills) float32."""
        if not tokens:
            return np.zeros((0, len(self.skills)), np.float32)
        contexts = contexts if contexts is not None else [None] * len(tokens)
        rows = FeatureRows(tokens, contexts, self.settings.buckets)
        pooled = self.network.pooled(rows.take(range(len(tokens)))).numpy()
        weights, bias = (one.detach().numpy() for one in (self.network.out.weight, self.network.out.bias))
        # Row by row: the blocks of a matrix product, and so its last bits, depend on the number of rows.
        logits = np.stack([weights @ row for row in pooled]) + bias
        return (1 / (1 + np.exp(-logits.astype(np.float64)))).astype(np.float32)

    def files(self) -> dict[str, bytes]:
        """Return the files of an artifact."""
        from safetensors.torch import save

        described = {"format": FORMAT, "skills": list(self.skills), "network": self.settings.model_dump(mode="json")}
        weights = {name: value.contiguous() for name, value in self.network.state_dict().items()}
        return {MODEL: canonical.dumps(described), WEIGHTS: save(weights)}

    @classmethod
    def from_files(cls, described: bytes, weights: bytes) -> Self:
        """Return the model stored in files.

        Raises:
            UserError: they are of another format, or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        body: Mapping[str, Any] = json.loads(described)
        if body.get("format") != FORMAT:
            raise UserError(f"{MODEL}: format {body.get('format')}; expected {FORMAT}")
        settings = SkillNetworkSettings(**body["network"])
        network = SkillNetwork(settings, len(body["skills"]))
        try:
            network.load_state_dict(load(weights))
        except (SafetensorError, RuntimeError) as error:
            raise UserError(f"{WEIGHTS}: {error}; expected the weights of {len(body['skills'])} skills") from None
        return cls(body["skills"], settings, network)
