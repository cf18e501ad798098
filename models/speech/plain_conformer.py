"""A Conformer behind one strided convolution, without position encodings: the shape of small published recognisers.

As in :mod:`~gristmill.models.speech.acoustic`, the output for an utterance does not depend, beyond float rounding, on
the padding of its batch: convolutions see zeros beyond an utterance's end, attention does not look there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from gristmill.models.speech.acoustic import valid_frames
from gristmill.shards.settings import Settings, Size

KIND = "plain_conformer"


class PlainConformerSettings(Settings):
    """Sizes of the network; features and units give the widths of its two ends."""

    dim: Size = Field(144, ge=1)
    """Width of the encoder."""
    layers: Size = Field(4, ge=1)
    """Blocks of the encoder."""
    heads: Size = Field(4, ge=1)
    """Attention heads of a block."""
    ff_factor: Size = Field(4, ge=1)
    """Width of the feed-forward modules, in multiples of ``dim``."""
    kernel: Size = Field(31, ge=1)
    """Width of the depthwise convolutions in frames, odd."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} is not right; expected a multiple of the heads, {self.heads}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is not right; expected an odd number")
        return self


class PlainConformer(nn.Module):
    """Features (B, T, n_mels) to log-probabilities (B, T', vocab), T' = ceil(T / 2).

    Conformer blocks (Gulati et al., 2020) with three differences: plain attention, to which the convolutions are all
    that tells the order of frames; no dropout; and a depthwise convolution whose batch norm is folded into its weights,
    as in a model that was exported for inference. ``vocab`` counts the blank.

    Example:
        >>> import torch
        >>> model = PlainConformer(PlainConformerSettings(dim=16, layers=2), n_mels=40, vocab=5).eval()
        >>> log_probs, lengths = model(torch.zeros(2, 100, 40), torch.tensor([100, 49]))
        >>> tuple(log_probs.shape), lengths.tolist()
        ((2, 50, 5), [50, 25])
        >>> hidden, _ = model.layers(torch.zeros(2, 100, 40), torch.tensor([100, 49]))
        >>> len(hidden), tuple(hidden[0].shape), torch.equal(model.classify(hidden[-1]), log_probs)
        (2, (2, 50, 16), True)
    """

    subsampling = 2
    """Feature frames per output frame."""

    def __init__(self, settings: PlainConformerSettings, n_mels: int, vocab: int) -> None:
        super().__init__()
        self.settings, self.n_mels, self.vocab = settings, n_mels, vocab
        self.front = nn.Conv1d(n_mels, settings.dim, 3, self.subsampling, 1)
        self.blocks = nn.ModuleList(_Block(settings) for _ in range(settings.layers))
        self.head = nn.Linear(settings.dim, vocab)

    @property
    def sizes(self) -> dict[str, Any]:
        """All sizes, as stored in a checkpoint."""
        return {"kind": KIND, "n_mels": self.n_mels, "vocab": self.vocab, **self.settings.model_dump()}

    @classmethod
    def of(cls, sizes: Mapping[str, Any]) -> PlainConformer:
        """Return a network from the sizes of :attr:`sizes`."""
        rest = {name: value for name, value in sizes.items() if name != "kind"}
        n_mels, vocab = rest.pop("n_mels"), rest.pop("vocab")
        return cls(PlainConformerSettings.model_validate(rest), n_mels, vocab)

    @property
    def width(self) -> int:
        """The width of the hidden states of :meth:`layers`."""
        return self.settings.dim

    @property
    def depth(self) -> int:
        """The number of layers."""
        return self.settings.layers

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the numbers of output frames (B,) for numbers of feature frames (B,)."""
        return (lengths + self.subsampling - 1) // self.subsampling

    def layers(self, features: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return (the outputs (B, T', dim) of each block, output lengths (B,)); frames beyond a length are undefined.

        The last is what the head reads.
        """
        given = features * valid_frames(lengths, features.shape[1])[:, :, None].to(features.dtype)
        hidden = F.gelu(self.front(given.transpose(1, 2))).transpose(1, 2)
        lengths = self.output_lengths(lengths)
        valid = valid_frames(lengths, hidden.shape[1])
        found = []
        for block in self.blocks:
            hidden = block(hidden, valid)
            found.append(hidden)
        return found, lengths

    def classify(self, hidden: Tensor) -> Tensor:
        """Return the log-softmax (B, T', vocab) float32 of the last block's output (B, T', dim)."""
        return F.log_softmax(self.head(hidden).float(), dim=-1)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (log-softmax (B, T', vocab) float32, output lengths (B,)); frames beyond a length are undefined."""
        hidden, lengths = self.layers(features, lengths)
        return self.classify(hidden[-1]), lengths


class _Block(nn.Module):
    def __init__(self, settings: PlainConformerSettings) -> None:
        super().__init__()
        self.first, self.second = _feed_forward(settings), _feed_forward(settings)
        self.attention, self.convolution = _Attention(settings), _Convolution(settings)
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        hidden = hidden + 0.5 * self.first(hidden)
        hidden = hidden + self.attention(hidden, valid)
        hidden = hidden + self.convolution(hidden, valid)
        hidden = hidden + 0.5 * self.second(hidden)
        return self.norm(hidden)


def _feed_forward(settings: PlainConformerSettings) -> nn.Sequential:
    dim, wide = settings.dim, settings.dim * settings.ff_factor
    return nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, wide), nn.SiLU(), nn.Linear(wide, dim))


class _Attention(nn.Module):
    """Self-attention over an utterance, as a set of frames."""

    def __init__(self, settings: PlainConformerSettings) -> None:
        super().__init__()
        self.heads = settings.heads
        self.norm = nn.LayerNorm(settings.dim)
        self.qkv = nn.Linear(settings.dim, 3 * settings.dim)
        self.out = nn.Linear(settings.dim, settings.dim)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        batch, frames, dim = hidden.shape
        parts = self.qkv(self.norm(hidden)).view(batch, frames, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=valid[:, None, None, :])
        return self.out(mixed.transpose(1, 2).reshape(batch, frames, dim))


class _Convolution(nn.Module):
    """Pointwise gate, depthwise convolution over time, SiLU, pointwise."""

    def __init__(self, settings: PlainConformerSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, settings.kernel, padding=settings.kernel // 2, groups=dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        gated = F.glu(self.gate(self.norm(hidden)), dim=-1)
        gated = gated * valid[:, :, None].to(gated.dtype)
        return self.out(F.silu(self.depthwise(gated.transpose(1, 2)).transpose(1, 2)))
