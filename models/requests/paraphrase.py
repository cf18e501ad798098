"""The paraphrase detector: the probability that two requests are paraphrases, with the same intent and the same values.

Cho, Xie and Campbell, "Semi-supervised NLU with diversity" (ASRU 2019): a neural classifier of pairs, trained on the
pairs of all other domains (:mod:`gristmill.models.requests.templates`), so that it can be applied to a function with
few annotated requests. What it sees are features by which domains do not differ
(:mod:`gristmill.models.requests.paraphrase_features`); the vectors themselves teach it the domains that it was trained
on, and are an option for comparison.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
import torch
from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from gristmill.models.requests.paraphrase_features import (
    FEATURES,
    PAIRS,
    EmbeddedRequests,
    ValueWords,
    pair_features,
)
from gristmill.models.requests.templates import FILLED_KINDS
from gristmill.shards import canonical
from gristmill.shards.errors import UserError
from gristmill.shards.settings import Batch, Settings, Size

PairKind = Literal["positive", "same", "other_value", "other_label", "same_values", "near_intent"]
# A request and itself: a network that sees paraphrases of another template only takes two copies for none.
SAME: PairKind = "same"
NEAR: PairKind = "near_intent"
POSITIVES: tuple[PairKind, ...] = ("positive", "same")
ARTICLE: tuple[PairKind, ...] = ("other_value", "other_label")  # the negatives of the article
NEGATIVES: tuple[PairKind, ...] = (*ARTICLE, "same_values", NEAR)
FORMAT = 1
TILE = int(PAIRS**0.5)  # requests of each side that are compared at once
MODEL, WEIGHTS = "paraphrase.json", "weights.safetensors"

assert {*POSITIVES, *NEGATIVES} == {*FILLED_KINDS, SAME, NEAR}


class DetectorSettings(Settings):
    """The network of a paraphrase detector, and its training."""

    hidden: Size = Field(32, ge=1)
    """Units of each of the two hidden layers."""
    vectors: Literal["cosine", "differences"] = "cosine"
    """What the network sees of the embeddings: their cosine, or also |u - v| and u v, which teach it the domains that
    it is trained on."""
    dropout: float = Field(0.2, ge=0, lt=1)
    """Dropout of the first hidden layer."""
    weights: dict[PairKind, NonNegativeFloat] = Field({"same": 0.2, "same_values": 0.5, "near_intent": 0.3})
    """Weight of the pairs of each kind, 1 if not named; positive ones are then weighted to balance the negatives."""
    epochs: PositiveInt = 8
    """Passes over the pairs."""
    steps: PositiveInt = 700
    """Least optimiser steps: over few pairs more passes are made."""
    batch: Batch = Field(128, ge=1)
    """Pairs per optimiser step."""
    lr: PositiveFloat = 3e-3
    """Peak learning rate of AdamW: linear warm-up over a tenth of the steps, then decay to 0."""
    weight_decay: NonNegativeFloat = 1e-2
    """Of AdamW."""


class PairNetwork(nn.Module):
    """Features of pairs (B, features) and, if it has a ``dim``, vectors of both (B, dim), to log-odds (B,)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, settings: DetectorSettings, dim: int) -> None:
        super().__init__()
        self.dim = dim if settings.vectors == "differences" else 0
        self.register_buffer("mean", torch.zeros(len(FEATURES)))
        self.register_buffer("scale", torch.ones(len(FEATURES)))
        self.layers = nn.Sequential(
            nn.Linear(len(FEATURES) + 2 * self.dim, settings.hidden),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(settings.hidden, settings.hidden),
            nn.GELU(),
            nn.Linear(settings.hidden, 1),
        )

    def standardise(self, features: Tensor) -> None:
        """Set the mean and the scale of features to those of a sample (pairs, features)."""
        self.mean.copy_(features.mean(0))
        self.scale.copy_(1 / features.std(0, correction=0).clamp(min=1e-3))

    def forward(self, features: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """Return the log-odds that pairs are paraphrases; the order of the two does not matter."""
        given = (features - self.mean) * self.scale
        if self.dim:
            # In the scale of the other inputs: a vector of length 1 has values of about dim ** -0.5.
            unit = self.dim**0.5
            given = torch.cat([given, (left - right).abs() * unit, left * right * self.dim], dim=1)
        return self.layers(given)[:, 0]


class ParaphraseDetector:
    """A network, and how value-like words are.

    Example:
        >>> from gristmill.models.requests.paraphrase_features import value_words
        >>> rows = EmbeddedRequests([["play", "seal"], ["stop"]], np.eye(2, dtype=np.float32))
        >>> untrained = ParaphraseDetector(DetectorSettings(), value_words([]), dim=2)
        >>> untrained.similarity(rows, rows).shape
        (2, 2)
    """

    def __init__(self, settings: DetectorSettings, values: ValueWords, dim: int) -> None:
        self.settings, self.values, self.dim = settings, values, dim
        self.network = PairNetwork(settings, dim)

    def similarity(self, rows: EmbeddedRequests, against: EmbeddedRequests) -> np.ndarray:
        """Return the probability that each of ``rows`` is a paraphrase of each of ``against``, (n, m) float32.

        Raises:
            UserError: not each request has a vector, or they are of another model than in the training.
        """
        n, m = len(rows.tokens), len(against.tokens)
        made = np.zeros((n, m), np.float32)
        for top in range(0, n, TILE):
            for left in range(0, m, TILE):
                part = made[top : top + TILE, left : left + TILE]  # a square has the fewest words for its pairs
                places = np.indices(part.shape).reshape(2, -1).T + np.array([top, left])
                part[:] = self.probabilities(rows, against, places).reshape(part.shape)
        return made

    def probabilities(self, left: EmbeddedRequests, right: EmbeddedRequests, pairs: np.ndarray) -> np.ndarray:
        """Return the probability that pairs are paraphrases, (pairs,) float32.

        ``pairs`` (pairs, 2) has the place of each pair's requests in ``left`` and in ``right``.

        Raises:
            UserError: as :meth:`similarity`.
        """
        for side in (left, right):
            if np.shape(side.vectors)[1:] != (self.dim,):
                raise UserError(
                    f"paraphrase: vectors of shape {np.shape(side.vectors)}; expected {self.dim} values each, those of "
                    "the embeddings that the detector was trained with"
                )
        features = torch.from_numpy(pair_features(left, right, pairs, self.values))
        self.network.eval()
        made = [np.zeros(0, np.float32)]
        with torch.no_grad():
            for start in range(0, len(pairs), PAIRS):
                rows = pairs[start : start + PAIRS]
                u, v = self.vectors(left, rows[:, 0]), self.vectors(right, rows[:, 1])
                made.append(self.network(features[start : start + PAIRS], u, v).sigmoid().numpy())
        return np.concatenate(made)

    def vectors(self, side: EmbeddedRequests, rows: np.ndarray) -> Tensor:
        """Return what the network takes of the vectors of rows, (rows, dim); nothing of them (rows, 0) by default."""
        found = np.asarray(side.vectors)[rows] if self.network.dim else np.zeros((len(rows), 0))
        return torch.from_numpy(found.astype(np.float32))

    def files(self) -> dict[str, bytes]:
        """Return ``paraphrase.json`` and ``weights.safetensors``; the same detector gives the same bytes."""
        from safetensors.torch import save

        described = {
            "format": FORMAT,
            "features": FEATURES,
            "dim": self.dim,
            "settings": self.settings.model_dump(mode="json"),
            "words": {word: list(pair) for word, pair in sorted(self.values.counts.items())},
            "shapes": dict(sorted(self.values.shapes.items())),
            "rest": self.values.rest,
        }
        tensors = {name: value.detach().cpu().contiguous() for name, value in self.network.state_dict().items()}
        return {MODEL: canonical.dumps(described), WEIGHTS: save(tensors)}

    @classmethod
    def from_files(cls, described: Mapping[str, Any], weights: bytes) -> Self:
        """Return the detector stored in files: what ``paraphrase.json`` holds, and the weights.

        Raises:
            ValueError: they are of another format, or damaged.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        if described.get("format") != FORMAT or tuple(described["features"]) != FEATURES:
            raise ValueError(f"{MODEL}: format {described.get('format')}; expected {FORMAT}, with the same features")
        words = {word: (inside, every) for word, (inside, every) in described["words"].items()}
        values = ValueWords(words, described["shapes"], described["rest"])
        made = cls(DetectorSettings.model_validate(described["settings"]), values, described["dim"])
        try:
            made.network.load_state_dict(load(weights))
        except (SafetensorError, RuntimeError) as error:
            raise ValueError(f"{WEIGHTS}: {str(error).splitlines()[0]}") from None
        made.network.eval()
        return made
