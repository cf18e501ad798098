"""A compact CTC acoustic model: convolutional subsampling, then Conformer blocks or a recurrent network.

The output for an utterance does not depend, beyond float rounding, on the padding of its batch: every convolution sees
zeros beyond an utterance's end, attention does not look there, recurrence reaches it last in both directions, and
all norms are over features, never over the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from gristmill.shards.settings import Settings, Size

STRIDES = {1: (1, 1), 2: (2, 1), 3: (3, 1), 4: (2, 2), 6: (3, 2), 8: (4, 2)}  # of the two convolutions


class InnerHeadSettings(Settings):
    """A further head behind an inner layer, with a CTC loss of its own (Lee and Watanabe, ICASSP 2021)."""

    layer: Size = Field(ge=1)
    """The layer that it hears, from 1."""
    of: Literal["units", "phones"] = "units"
    """What it predicts: the model's own units, or the phones of the words."""
    condition: bool = False
    """Whether the next layer hears its prediction (self-conditioned CTC, Nozaki and Komatsu, Interspeech 2021)."""


class AcousticSettings(Settings):
    """Sizes of the network; features and units give the widths of its two ends."""

    subsampling: Literal[1, 2, 3, 4, 6, 8] = 4
    """Feature frames per output frame."""
    channels: Size = Field(32, ge=1)
    """Channels of the two subsampling convolutions."""
    encoder: Literal["conformer", "lstm", "gru"] = "conformer"
    """Conformer blocks, or a recurrent network of that kind."""
    dim: Size = Field(144, ge=1)
    """Width of the encoder."""
    layers: Size = Field(4, ge=1)
    """Layers of the encoder."""
    heads: Size = Field(4, ge=1)
    """Attention heads of a Conformer block."""
    ff_factor: Size = Field(4, ge=1)
    """Width of a Conformer's feed-forward modules, in multiples of ``dim``."""
    kernel: Size = Field(15, ge=1)
    """Width of a Conformer's depthwise convolution in frames, odd."""
    bidirectional: bool = True
    """Directions of a recurrent encoder: both, or forward only."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the values between layers that a training step leaves out."""
    inner: tuple[InnerHeadSettings, ...] = ()
    """Heads behind inner layers (intermediate CTC)."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        if self.encoder == "conformer" and self.dim % (2 * self.heads):
            raise ValueError(f"dim {self.dim} is not right; expected a multiple of twice the heads, {2 * self.heads}")
        if self.encoder == "conformer" and self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} is not right; expected an odd number")
        if self.encoder != "conformer" and self.bidirectional and self.dim % 2:
            raise ValueError(f"dim {self.dim} is not right; expected an even number, half for each direction")
        for head in self.inner:
            if head.layer >= self.layers:
                raise ValueError(f"inner: a head of layer {head.layer}; expected a layer below the last, {self.layers}")
        return self


class AcousticModel(nn.Module):
    """Features (B, T, n_mels) to log-probabilities (B, T', vocab), T' = ceil(T / subsampling).

    ``vocab`` counts the blank, and so does ``phones``, the vocabulary of inner heads of phones.

    Example:
        >>> model = AcousticModel(AcousticSettings(dim=16, layers=1, channels=4), n_mels=40, vocab=5).eval()
        >>> log_probs, lengths = model(torch.zeros(2, 100, 40), torch.tensor([100, 50]))
        >>> tuple(log_probs.shape), lengths.tolist()
        ((2, 25, 5), [25, 13])
    """

    def __init__(self, settings: AcousticSettings, n_mels: int, vocab: int, phones: int = 0) -> None:
        super().__init__()
        self.settings, self.n_mels, self.vocab, self.phones = settings, n_mels, vocab, phones
        self.subsampling = settings.subsampling
        self.front = _Subsampling(settings, n_mels)
        self.drop = nn.Dropout(settings.dropout)
        self.blocks = nn.ModuleList()
        if settings.encoder == "conformer":
            self.blocks.extend(_Conformer(settings) for _ in range(settings.layers))
        else:
            self.blocks.extend(_Recurrent(settings) for _ in range(settings.layers))
        self.norm = nn.LayerNorm(settings.dim)
        self.head = nn.Linear(settings.dim, vocab)
        self.inner = nn.ModuleList(
            _InnerHead(settings.dim, vocab if head.of == "units" else phones) for head in settings.inner
        )
        self.back = nn.ModuleDict(
            {
                str(place): nn.Linear(vocab if head.of == "units" else phones, settings.dim)
                for place, head in enumerate(settings.inner)
                if head.condition
            }
        )

    @property
    def sizes(self) -> dict[str, Any]:
        """All sizes, as stored in a checkpoint; of inner heads nothing where there are none."""
        found = {"n_mels": self.n_mels, "vocab": self.vocab, **self.settings.model_dump(mode="json")}
        if not found["inner"]:
            del found["inner"]
        return found | ({"phones": self.phones} if self.phones else {})

    @classmethod
    def of(cls, sizes: Mapping[str, Any]) -> AcousticModel:
        """Return a network from the sizes of :attr:`sizes`."""
        rest = dict(sizes)
        n_mels, vocab, phones = rest.pop("n_mels"), rest.pop("vocab"), rest.pop("phones", 0)
        return cls(AcousticSettings.model_validate(rest), n_mels, vocab, phones)

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
        for stride in STRIDES[self.subsampling]:
            lengths = (lengths + stride - 1) // stride
        return lengths

    def layers(self, features: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden states (B, T', D) behind each layer, and the output lengths (B,)."""
        hidden, lengths = self.front(features, lengths)
        hidden, states = self.drop(hidden), []
        for number, block in enumerate(self.blocks, start=1):
            hidden = block(hidden, lengths)
            states.append(hidden)
            for place, head in enumerate(self.settings.inner):
                if head.layer == number and head.condition:
                    hidden = hidden + self.back[str(place)](self.inner[place](hidden).exp().to(hidden.dtype))
        return states, lengths

    def classify(self, hidden: Tensor) -> Tensor:
        """Return the log-softmax (B, T', vocab) float32 of the last layer's hidden states (B, T', D)."""
        return F.log_softmax(self.head(self.norm(hidden)).float(), dim=-1)

    def classify_inner(self, states: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the log-softmax float32 of each inner head, of the hidden states of :meth:`layers`."""
        places = [head.layer - 1 for head in self.settings.inner]
        return tuple(head(states[place]) for place, head in zip(places, self.inner, strict=True))

    def forward(self, features: Tensor, lengths: Tensor, inner: bool = False) -> tuple[Tensor, ...]:
        """Return (log-probabilities (B, T', vocab) float32, output lengths (B,)); frames beyond a length are undefined.

        With ``inner`` the log-probabilities of the inner heads follow, in the order of the settings.
        """
        states, lengths = self.layers(features, lengths)
        return self.classify(states[-1]), lengths, *(self.classify_inner(states) if inner else ())


class _InnerHead(nn.Module):
    """A head behind an inner layer, with its own norm."""

    def __init__(self, dim: int, vocab: int) -> None:
        super().__init__()
        self.norm, self.out = nn.LayerNorm(dim), nn.Linear(dim, vocab)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.log_softmax(self.out(self.norm(hidden)).float(), dim=-1)


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """Return (B, frames) bool, true where an utterance has a frame."""
    return torch.arange(frames, device=lengths.device)[None] < lengths[:, None]


class _Subsampling(nn.Module):
    """Two convolutions over time and frequency, each halving the frequency axis, then a projection."""

    def __init__(self, settings: AcousticSettings, n_mels: int) -> None:
        super().__init__()
        self.strides = STRIDES[settings.subsampling]
        width, channels = n_mels, 1
        self.convs = nn.ModuleList()
        for stride in self.strides:
            kernel = max(3, 2 * stride - 1)
            self.convs.append(nn.Conv2d(channels, settings.channels, (kernel, 3), (stride, 2), (kernel // 2, 1)))
            width, channels = (width + 1) // 2, settings.channels
        self.out = nn.Linear(width * channels, settings.dim)

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        hidden = features[:, None]
        for stride, conv in zip(self.strides, self.convs, strict=True):
            hidden = hidden * valid_frames(lengths, hidden.shape[2])[:, None, :, None].to(hidden.dtype)
            hidden = F.relu(conv(hidden))
            lengths = (lengths + stride - 1) // stride
        return self.out(hidden.transpose(1, 2).flatten(2)), lengths


class _Conformer(nn.Module):
    """A Conformer block (Gulati et al., 2020), with rotary positions and a layer norm in the convolution module.

    Batch norm, as published, would mix the utterances of a batch with each other and with their padding.
    """

    def __init__(self, settings: AcousticSettings) -> None:
        super().__init__()
        self.first, self.second = _FeedForward(settings), _FeedForward(settings)
        self.attention, self.convolution = _Attention(settings), _Convolution(settings)
        self.norm = nn.LayerNorm(settings.dim)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        valid = valid_frames(lengths, hidden.shape[1])
        hidden = hidden + 0.5 * self.first(hidden)
        hidden = hidden + self.attention(hidden, valid)
        hidden = hidden + self.convolution(hidden, valid)
        hidden = hidden + 0.5 * self.second(hidden)
        return self.norm(hidden)


class _FeedForward(nn.Sequential):
    def __init__(self, settings: AcousticSettings) -> None:
        wide = settings.dim * settings.ff_factor
        super().__init__(
            nn.LayerNorm(settings.dim),
            nn.Linear(settings.dim, wide),
            nn.SiLU(),
            nn.Dropout(settings.dropout),
            nn.Linear(wide, settings.dim),
            nn.Dropout(settings.dropout),
        )


class _Attention(nn.Module):
    """Self-attention over an utterance with rotary positions (Su et al., 2021)."""

    def __init__(self, settings: AcousticSettings) -> None:
        super().__init__()
        self.heads, self.dropout = settings.heads, settings.dropout
        self.norm = nn.LayerNorm(settings.dim)
        self.qkv = nn.Linear(settings.dim, 3 * settings.dim)
        self.out = nn.Linear(settings.dim, settings.dim)
        self.drop = nn.Dropout(settings.dropout)

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

    def __init__(self, settings: AcousticSettings) -> None:
        super().__init__()
        dim = settings.dim
        self.norm = nn.LayerNorm(dim)
        self.gate = nn.Linear(dim, 2 * dim)
        self.depthwise = nn.Conv1d(dim, dim, settings.kernel, padding=settings.kernel // 2, groups=dim)
        self.inner = nn.LayerNorm(dim)
        self.out = nn.Linear(dim, dim)
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, hidden: Tensor, valid: Tensor) -> Tensor:
        gated = F.glu(self.gate(self.norm(hidden)), dim=-1)
        gated = gated * valid[:, :, None].to(gated.dtype)
        mixed = self.depthwise(gated.transpose(1, 2)).transpose(1, 2)
        return self.drop(self.out(F.silu(self.inner(mixed))))


class _Recurrent(nn.Module):
    """One recurrent layer, one or two directions, with a norm before it and a residual around it.

    The backward direction reads each utterance reversed within its own length, so that padding comes last for both.
    Packed sequences would give the same at a third of the speed on a CPU, where they miss the fused kernels.
    """

    def __init__(self, settings: AcousticSettings) -> None:
        super().__init__()
        kind = nn.LSTM if settings.encoder == "lstm" else nn.GRU
        directions = 2 if settings.bidirectional else 1
        self.norm = nn.LayerNorm(settings.dim)
        self.cells = nn.ModuleList(
            kind(settings.dim, settings.dim // directions, batch_first=True) for _ in range(directions)
        )
        self.drop = nn.Dropout(settings.dropout)

    def forward(self, hidden: Tensor, lengths: Tensor) -> Tensor:
        given = self.norm(hidden)
        out = self.cells[0](given)[0]
        if len(self.cells) == 2:
            places = torch.arange(hidden.shape[1], device=hidden.device)[None]
            turned = torch.where(places < lengths[:, None], lengths[:, None] - 1 - places, places)[..., None]
            back = self.cells[1](given.gather(1, turned.expand_as(given)))[0]
            out = torch.cat([out, back.gather(1, turned.expand_as(back))], dim=-1)
        return hidden + self.drop(out)
