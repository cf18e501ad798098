"""A compact CTC acoustic model: convolutional subsampling, then Conformer blocks or a recurrent network.

What an utterance gets does not depend, beyond float rounding, on the padding of its batch: every convolution sees
zeros beyond an utterance's end, attention does not look there, recurrence reaches it last in both directions, and
all norms are over features, never over the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gristmill.shards.errors import UserError

STRIDES = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 6: (3, 2), 8: (4, 2)}
ENCODERS = ("conformer", "lstm", "gru")


@dataclass(frozen=True)
class AcousticConfig:
    """Sizes of the network; ``vocab`` counts the blank, ``subsampling`` is feature frames to one output frame."""

    n_mels: int = 64
    vocab: int = 29
    subsampling: int = 4
    channels: int = 32  # of the two subsampling convolutions
    encoder: str = "conformer"
    dim: int = 144
    layers: int = 4
    heads: int = 4  # conformer
    ff_factor: int = 4  # conformer
    kernel: int = 15  # conformer, frames, odd
    bidirectional: bool = True  # recurrent
    dropout: float = 0.1

    def __post_init__(self) -> None:
        if self.subsampling not in STRIDES:
            raise UserError(f"model.subsampling: {self.subsampling}, expected one of {sorted(STRIDES)}")
        if self.encoder not in ENCODERS:
            raise UserError(f"model.encoder: {self.encoder!r}, expected one of {', '.join(ENCODERS)}")
        if self.encoder == "conformer" and (self.dim % (2 * self.heads) or self.kernel % 2 == 0):
            raise UserError(
                f"model: dim {self.dim} must be a multiple of twice the heads ({self.heads}) "
                f"and kernel {self.kernel} odd"
            )
        if self.encoder != "conformer" and self.bidirectional and self.dim % 2:
            raise UserError(f"model.dim: {self.dim}, expected an even number for a bidirectional network")


class AcousticModel(nn.Module):
    """Features (B, T, n_mels) to log-probabilities (B, T', vocab), T' = ceil(T / subsampling)."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.config = config
        self.subsampling = config.subsampling
        self.front = _Subsampling(config)
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList()
        if config.encoder == "conformer":
            self.blocks.extend(_Conformer(config) for _ in range(config.layers))
        else:
            self.blocks.extend(_Recurrent(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.dim)
        self.head = nn.Linear(config.dim, config.vocab)

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Return the output frames of utterances of so many feature frames."""
        for stride in STRIDES[self.subsampling]:
            lengths = (lengths + stride - 1) // stride
        return lengths

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (log-softmax (B, T', vocab) float32, output lengths (B,)); frames beyond a length mean nothing."""
        hidden, lengths = self.front(features, lengths)
        hidden = self.drop(hidden)
        for block in self.blocks:
            hidden = block(hidden, lengths)
        logits = self.head(self.norm(hidden))
        return F.log_softmax(logits.float(), dim=-1), lengths


def _valid(lengths: Tensor, frames: int) -> Tensor:
    """Return (B, frames) bool, true where an utterance has a frame."""
    return torch.arange(frames, device=lengths.device)[None] < lengths[:, None]


class _Subsampling(nn.Module):
    """Two convolutions over time and frequency, each halving the frequency axis, then a projection."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.strides = STRIDES[config.subsampling]
        width, channels = config.n_mels, 1
        self.convs = nn.ModuleList()
        for stride in self.strides:
            kernel = max(3, 2 * stride - 1)
            self.convs.append(nn.Conv2d(channels, config.channels, (kernel, 3), (stride, 2), (kernel // 2, 1)))
            width, channels = (width + 1) // 2, config.channels
        self.out = nn.Linear(width * channels, config.dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden = features[:, None]
        for stride, conv in zip(self.strides, self.convs, strict=True):
            hidden = hidden * _valid(lengths, hidden.shape[2])[:, None, :, None].to(hidden.dtype)
            hidden = F.relu(conv(hidden))
            lengths = (lengths + stride - 1) // stride
        return self.out(hidden.transpose(1, 2).flatten(2)), lengths


class _Conformer(nn.Module):
    """A Conformer block (Gulati et al., 2020), with rotary positions and a layer norm in the convolution module.

    Batch norm, as published, would mix the utterances of a batch with each other and with their padding.
    """

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.first, self.second = _FeedForward(config), _FeedForward(config)
        self.attention, self.convolution = _Attention(config), _Convolution(config)
        self.norm = nn.LayerNorm(config.dim)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        valid = _valid(lengths, hidden.shape[1])
        hidden = hidden + 0.5 * self.first(hidden)
        hidden = hidden + self.attention(hidden, valid)
        hidden = hidden + self.convolution(hidden, valid)
        hidden = hidden + 0.5 * self.second(hidden)
        return self.norm(hidden)


class _FeedForward(nn.Sequential):
    def __init__(self, config: AcousticConfig) -> None:
        wide = config.dim * config.ff_factor
        super().__init__(
            nn.LayerNorm(config.dim),
            nn.Linear(config.dim, wide),
            nn.SiLU(),
            nn.Dropout(config.dropout),
            nn.Linear(wide, config.dim),
            nn.Dropout(config.dropout),
        )


class _Attention(nn.Module):
    """Self-attention over an utterance with rotary positions (Su et al., 2021)."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        self.norm = nn.LayerNorm(config.dim)
        self.qkv = nn.Linear(config.dim, 3 * config.dim)
        self.out = nn.Linear(config.dim, config.dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        batch, frames, dim = hidden.shape
        parts = self.qkv(self.norm(hidden)).view(batch, frames, 3, self.heads, dim // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            _rotate(query),
            _rotate(key),
            value,
            attn_mask=valid[:, None, None, :],
            dropout_p=self.dropout if self.training else 0.0,
        )
        return self.drop(self.out(mixed.transpose(1, 2).reshape(batch, frames, dim)))


def _rotate(heads: Tensor) -> Tensor:
    """Turn each pair of components (i, i + half) by an angle that grows with the position."""
    frames, half = heads.shape[-2], heads.shape[-1] // 2
    steps = torch.arange(half, device=heads.device, dtype=torch.float32)
    angles = torch.outer(torch.arange(frames, device=heads.device).float(), 10000.0 ** (-steps / half))
    cos, sin = angles.cos().to(heads.dtype), angles.sin().to(heads.dtype)
    one, two = heads[..., :half], heads[..., half:]
    return torch.cat([one * cos - two * sin, two * cos + one * sin], dim=-1)


class _Convolution(nn.Module):
    """Pointwise gate, depthwise convolution over time, norm, pointwise."""

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        dim = config.dim
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, config.kernel, padding=config.kernel // 2, groups=dim)
        self.inner = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.drop = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        gated = F.glu(self.gate(self.norm(hidden)), dim=-1)
        gated = gated * valid[:, :, None].to(gated.dtype)
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.drop(self.out(F.silu(self.inner(mixed))))


class _Recurrent(nn.Module):
    """One recurrent layer, one or two directions, with a norm before it and a residual around it.

    The backward direction reads each utterance turned round within its own length, so that padding comes last for both.
    Packed sequences would do the same at a third of the speed on a CPU, where they miss the fused kernels.
    """

    def __init__(self, config: AcousticConfig) -> None:
        super().__init__()
        kind = nn.LSTM if config.encoder == "lstm" else nn.GRU
        directions = 2 if config.bidirectional else 1
        self.norm = nn.LayerNorm(config.dim)
        self.cells = nn.ModuleList(
            kind(config.dim, config.dim // directions, batch_first=True) for _ in range(directions)
        )
        self.drop = nn.Dropout(config.dropout)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        given = self.norm(hidden)
        out = self.cells[0](given)[0]
        if len(self.cells) == 2:
            places = torch.arange(hidden.shape[1], device=hidden.device)[None]
            turned = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)[..., None]
            back = self.cells[1](given.gather(1, turned.expand_as(given)))[0]
            out = torch.cat([out, back.gather(1, turned.expand_as(back))], dim=-1)
        return hidden + self.drop(out)
