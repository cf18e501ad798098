"""The contextual adapter: a frozen CTC model hears a list of words (Dingliwal et al., SLT 2022).

Each entry of the list is encoded from its units, and each frame attends over the list with a query made of the base's
inner layers. What it attends to is added to the base's last hidden states, which the base's own head then classifies:
nothing of the base is changed, and a list made after training needs no training.

Where the article has one key and one value for an entry, each unit of an entry has its own here (``attend``), so that a
frame can be told which of the entry's units comes; an entry's attention is then the sum over its units.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gristmill.models.weights import read_metadata
from gristmill.shards.errors import UserError, one_line
from gristmill.shards.settings import Settings, Size

ADAPTER = "adapter.safetensors"  # of an artifact


class AdapterSettings(Settings):
    """Sizes of a contextual adapter."""

    layers: tuple[Size, ...] = ()
    """Layers of the base, from 1, whose weighted sum makes the queries; none: all of them."""
    dim: Size = Field(128, ge=2)
    """Width of queries, keys and values; even."""
    attend: Literal["units", "entries"] = "units"
    """What a frame attends to: the units of the entries, or the entries as in the article."""


class LayeredModel(Protocol):
    """A CTC model whose layers can be heard: an :class:`~gristmill.models.speech.acoustic.AcousticModel` or another."""

    vocab: int

    @property
    def width(self) -> int:
        """The width of the hidden states."""
        ...

    @property
    def depth(self) -> int:
        """The number of layers."""
        ...

    def layers(self, features: Tensor, lengths: Tensor) -> tuple[list[Tensor], Tensor]:
        """Return the hidden states (B, T', D) behind each layer, and the output lengths (B,)."""
        ...

    def classify(self, hidden: Tensor) -> Tensor:
        """Return the log-probabilities (B, T', V) of the last layer's hidden states."""
        ...


class Context(NamedTuple):
    """A list as the adapter attends to it: the first of its ``M`` keys is for no entry at all, with the value 0."""

    keys: Tensor
    """(M, D)."""
    values: Tensor
    """(M, D)."""
    entries: Tensor
    """int64 (M,): the entry of each key, from 1; 0: none."""
    size: int
    """Entries."""


def of_entries(attention: Tensor, context: Context) -> Tensor:
    """Return the attention (B, T', 1 + N) that no entry has and each of them, of the log-attention over the keys."""
    found = attention.new_zeros(*attention.shape[:2], context.size + 1)
    return found.index_add_(2, context.entries, attention.exp())


class ContextualAdapter(nn.Module):
    """Adds what a list of words says to the hidden states of a base with ``depth`` layers of ``width``.

    ``vocab`` counts the base's units with the blank. At first it adds nothing: its last weights are 0.

    Example:
        >>> adapter = ContextualAdapter(AdapterSettings(dim=8), vocab=5, width=16, depth=2)
        >>> context = adapter.context(torch.tensor([[1, 2, 0], [3, 4, 1]]))
        >>> states = [torch.zeros(1, 7, 16), torch.zeros(1, 7, 16)]
        >>> hidden, attention = adapter(states, context)
        >>> tuple(hidden.shape), tuple(attention.shape)
        ((1, 7, 16), (1, 7, 6))
        >>> tuple(of_entries(attention, context).shape)
        (1, 7, 3)
    """

    def __init__(self, settings: AdapterSettings, vocab: int, width: int, depth: int) -> None:
        super().__init__()
        self.settings, self.vocab, self.width = settings, vocab, width
        self.heard = [place - 1 for place in settings.layers] or list(range(depth))
        if max(self.heard) >= depth:
            raise UserError(f"adapter.layers: {max(self.heard) + 1}, and the base has {depth}; expected at most those")
        dim = settings.dim
        self.shares = nn.Parameter(torch.zeros(len(self.heard)))
        self.query = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, dim))
        self.units = nn.Embedding(vocab, dim)
        self.encoder = nn.LSTM(dim, dim // 2, bidirectional=True, batch_first=True)
        self.key, self.value = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.none = nn.Parameter(torch.zeros(dim))
        self.out = nn.Linear(dim, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def context(self, spelled: Tensor) -> Context:
        """Return the context of a list: entries (N, longest) in units, with 0 behind each."""
        lengths = (spelled > 0).sum(1)
        size = len(spelled)
        if not size:
            nothing = spelled.new_zeros(1)
            return Context(self.none[None], torch.zeros_like(self.none)[None], nothing, 0)
        packed = nn.utils.rnn.pack_padded_sequence(
            self.units(spelled), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        made, (last, _) = self.encoder(packed)
        if self.settings.attend == "entries":
            encoded, entries = torch.cat([last[0], last[1]], dim=-1), torch.arange(1, size + 1, device=spelled.device)
        else:
            of_units = nn.utils.rnn.pad_packed_sequence(made, batch_first=True, total_length=spelled.shape[1])[0]
            encoded, entries = of_units[spelled > 0], torch.nonzero(spelled)[:, 0] + 1
        return Context(
            torch.cat([self.none[None], self.key(encoded)]),
            torch.cat([torch.zeros_like(self.none)[None], self.value(encoded)]),
            torch.cat([entries.new_zeros(1), entries]),
            size,
        )

    def forward(
        self, states: Sequence[Tensor], context: Context, allowed: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the last hidden states (B, T', D) with the bias, and the log-attention (B, T', M) over the keys.

        ``allowed`` bool (B, N) are the entries of each utterance's own list; by default all.
        """
        shares = torch.softmax(self.shares, dim=0)
        heard = sum(share * states[place] for share, place in zip(shares, self.heard, strict=True))
        scores = self.query(heard) @ context.keys.T / math.sqrt(self.settings.dim)
        if allowed is not None:
            open_to = F.pad(allowed, (1, 0), value=True)[:, context.entries]
            scores = scores.masked_fill(~open_to[:, None], -math.inf)
        attention = F.log_softmax(scores, dim=-1)
        return states[-1] + self.out(attention.exp() @ context.values), attention


class AdaptedModel(nn.Module):
    """A frozen base with an adapter: features, a list and who may hear what of it to log-probabilities."""

    def __init__(self, base: nn.Module, adapter: ContextualAdapter) -> None:
        super().__init__()
        self.base, self.adapter = base.eval().requires_grad_(False), adapter

    def train(self, mode: bool = True) -> AdaptedModel:
        """Set the mode of the adapter; the base stays as it is used, without dropout."""
        super().train(mode)
        self.base.eval()
        return self

    def forward(
        self, features: Tensor, lengths: Tensor, spelled: Tensor, allowed: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probabilities (B, T', V), lengths (B,), and the log-attention (B, T', M)."""
        base: Any = self.base
        with torch.no_grad():
            states, lengths = base.layers(features, lengths)
        hidden, attention = self.adapter(states, self.adapter.context(spelled), allowed)
        return base.classify(hidden), lengths, attention


def save_adapter(adapter: ContextualAdapter, base: str) -> bytes:
    """Return a safetensors file of an adapter to the base of this digest."""
    from safetensors.torch import save

    tensors = {name: value.detach().cpu().contiguous() for name, value in adapter.state_dict().items()}
    described = {"adapter": adapter.settings.model_dump(mode="json"), "base": base}
    return save(tensors, metadata={"gristmill": json.dumps(described, sort_keys=True)})


def load_adapter(data: bytes, model: LayeredModel, base: str) -> ContextualAdapter:
    """Return the adapter, in eval mode, to the base with this model and digest.

    Raises:
        UserError: the file is another one, or the adapter was trained to another base.
    """
    from safetensors.torch import load

    described: Mapping[str, Any] = json.loads(read_metadata(data).get("gristmill", "null")) or {}
    if "adapter" not in described:
        raise UserError("adapter: a safetensors file, but not of a contextual adapter of this project")
    if described["base"] != base:
        raise UserError(
            f"adapter: trained to the base {described['base'][:12]}, and this one is {base[:12]}; expected its own base"
        )
    try:
        made = ContextualAdapter(
            AdapterSettings.model_validate(described["adapter"]), model.vocab, model.width, model.depth
        )
        made.load_state_dict(load(data))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise UserError(f"adapter: weights and description do not match: {one_line(error)}") from None
    return made.eval()
