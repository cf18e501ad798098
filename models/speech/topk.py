"""The top-k store of teacher labels: the part of each frame's distribution that is stored, and its encoding.

A frame keeps its k largest untempered log-probabilities (Mosner et al., ICASSP 2019; Parthasarathi and Strom, ICASSP
2019) in descending order of the stored values, equal values in the order of their ids, and the logarithm of the
remaining mass. So any temperature and any smaller k can be applied in training.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings

if TYPE_CHECKING:  # planning a step reads the settings below without the seconds that torch takes to load
    import torch

METADATA_KEY = "gristmill.topk"  # in the schema metadata of a set that holds labels
MAX_K = 40
MAX_VOCABULARY = 1 << 16  # ids are uint16
TAIL_FLOOR = -17.0  # e^-17 = 4e-8 is below what a float32 sum of probabilities resolves
_LEAST = -65504.0  # the least finite float16


class TopKSettings(Settings):
    """Precision of the stored labels of a frame."""

    k: int = Field(MAX_K, ge=1, le=MAX_K)
    """Number of log-probabilities, the largest ones; students may use fewer."""
    step: float = Field(0.0, ge=0)
    """Quantisation step of the stored log-probabilities in nats; 0: that of float16."""


@dataclass(frozen=True)
class TopKInfo:
    """Description of the labels of a set: written to its schema metadata, and checked by training.

    ``frame_rate`` is in labels per second, ``vocabulary`` the digest of the units, ``features`` the settings of the
    teacher's input (``None``: samples), ``teacher`` the digest of the model, ``step`` the quantisation step of the
    log-probabilities in nats (0: that of float16).
    """

    k: int
    frame_rate: float
    vocabulary: str
    teacher: str
    features: Mapping[str, Any] | None = None
    step: float = 0.0

    def to_json(self) -> str:
        """Return the description as canonical JSON."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> TopKInfo:
        """Return the description written by :meth:`to_json`."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise UserError(f"teacher labels: the description is not readable: {error}") from None

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> TopKInfo:
        """Return the description in a schema's metadata; a set without labels is a ``UserError``."""
        text = (metadata or {}).get(METADATA_KEY.encode())
        if text is None:
            raise UserError(f"teacher labels: the set has none (no {METADATA_KEY} in its schema metadata)")
        return cls.from_json(text.decode())

    def check(self, where: str, *, frame_rate: float, vocabulary: str, k: int = 1) -> None:
        """Raise a ``UserError`` unless a model of this frame rate and vocabulary can train on k of these labels."""
        if abs(self.frame_rate - frame_rate) > 1e-6 * frame_rate:
            raise UserError(
                f"{where}: {self.frame_rate:g} frames per second, the model has {frame_rate:g}; expected the same: "
                "set the hop of the features or model.subsampling"
            )
        if self.vocabulary != vocabulary:
            raise UserError(
                f"{where}: over the vocabulary {self.vocabulary[:12]}, the model's is {vocabulary[:12]}; expected the "
                "same: teacher and student share their units"
            )
        if k > self.k:
            raise UserError(f"{where}: k = {k} is requested, and only {self.k} are stored per frame")


class TopK(NamedTuple):
    """Labels of frames: ids (..., k) uint16, log-probabilities (..., k) float16, log tail mass (...) float16."""

    ids: np.ndarray
    logprobs: np.ndarray
    tail: np.ndarray

    @property
    def finite(self) -> bool:
        """Whether all frames are from finite log-probabilities: a value that is not shows in one of the parts."""
        return bool(np.isfinite(self.logprobs).all() and np.isfinite(self.tail).all())


def kept(k: int, vocabulary: int) -> int:
    """Return the number of stored values per frame, min(k, vocabulary); too large a vocabulary is a ``UserError``."""
    if vocabulary > MAX_VOCABULARY:
        raise UserError(f"teacher: a vocabulary of {vocabulary} units; at most {MAX_VOCABULARY} can be stored")
    return min(k, vocabulary)


def select(log_probs: torch.Tensor, k: int, step: float = 0.0) -> TopK:
    """Return the labels of log-softmax values (..., V), float32, on any device; one copy is made to the host.

    ``step`` > 0 rounds log-probabilities to multiples of it (nats) before the conversion to float16.
    """
    import torch

    size = log_probs.shape[-1]
    k = kept(k, size)
    rounded = torch.round(log_probs / step) * step if step else log_probs
    magnitude = rounded.clamp(_LEAST, 0.0).to(torch.float16).view(torch.int16).to(torch.int32) & 0x7FFF
    # One integer orders by stored value, then by id, so that ties do not depend on the device's sort: the bits of
    # float16 numbers of one sign are in the order of their values. Nothing else has to leave the device.
    reverse_id = MAX_VOCABULARY - 1 - torch.arange(size, dtype=torch.int32, device=log_probs.device)
    keys = torch.topk(reverse_id - (magnitude << 16), k, dim=-1, sorted=True).values
    chosen = (MAX_VOCABULARY - 1) - (keys & 0xFFFF)
    # The rest is summed, not subtracted from 1: the difference of nearly equal numbers has no digits left.
    rest = log_probs.scatter(-1, chosen.long(), float("-inf")).logsumexp(-1)
    tail = rest.clamp(TAIL_FLOOR, 0.0).to(torch.float16)
    return _split(keys.cpu().numpy(), tail.cpu().numpy())


def _split(keys: np.ndarray, tail: np.ndarray) -> TopK:
    halves = keys.astype("<i4", copy=False).view("<u2").reshape(*keys.shape, 2)
    ids = (MAX_VOCABULARY - 1 - halves[..., 0]).astype(np.uint16)
    magnitude = (-halves[..., 1].astype(np.int32)).astype(np.uint16)
    return TopK(ids, np.float16(0) - magnitude.view(np.float16), tail)  # no negative zero


def unflatten(ids: np.ndarray, logprobs: np.ndarray, tail: np.ndarray, k: int) -> TopK:
    """Return the labels (frames, k) of a record from its stored flat columns.

    Raises:
        UserError: the columns' lengths do not match each other and k.
    """
    frames = len(tail)
    if len(ids) != frames * k or len(logprobs) != frames * k:
        raise UserError(f"teacher labels: {len(ids)} ids and {len(logprobs)} values for {frames} frames of k = {k}")
    return TopK(ids.reshape(frames, k), logprobs.reshape(frames, k), tail)


def entropy(labels: TopK) -> np.ndarray:
    """Return each frame's entropy (...) in nats; the rest counts as one unit, so it is a lower bound."""
    logs = np.concatenate([labels.logprobs, labels.tail[..., None]], axis=-1).astype(np.float32)
    return -(np.exp(logs) * logs).sum(-1)


def confidence(best: np.ndarray) -> float:
    """Return the geometric mean of the frames' largest probabilities, from their logarithms (T,)."""
    return float(np.exp(best.astype(np.float64).mean())) if len(best) else 0.0
