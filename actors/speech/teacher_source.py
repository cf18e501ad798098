"""The interface of the three sources of teachers: a description, and a network over a batch of utterances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from gristmill.models.speech.features import FeatureSettings
from gristmill.models.speech.topk import TopKInfo, kept
from gristmill.models.speech.units import Units
from gristmill.shards.errors import UserError

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class TeacherInfo:
    """Description of a teacher, known without running it.

    ``features`` is ``None`` for a teacher over samples (at ``sampling_rate`` Hz). ``frame_rate`` is in output frames
    per second, ``digest`` that of its weights and description.
    """

    units: Units
    frame_rate: float
    sampling_rate: int
    features: FeatureSettings | None
    digest: str

    def labels(self, k: int, step: float = 0.0) -> TopKInfo:
        """Return the description of this teacher's labels."""
        features = None if self.features is None else self.features.described()
        size = kept(k, len(self.units))
        return TopKInfo(size, self.frame_rate, self.units.digest, self.digest, features, step)


class TeacherModel(Protocol):
    """A loaded teacher."""

    info: TeacherInfo
    shortest: int  # samples, or feature frames, needed for one output frame

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[int]]:
        """Return (log-softmax (B, T, V) float32 with the blank at 0, on the teacher's device; frames of each).

        ``inputs`` are samples (n,) float32, or features (frames, n_mels) where ``info.features`` is set. The
        output for an utterance does not depend on the others, but for float rounding.
        """
        ...


def device_of(device: str) -> torch.device:
    """Return a device by name; a missing one is a ``UserError``."""
    import torch

    if device.startswith("cuda") and not torch.cuda.is_available():
        raise UserError(f"teacher: the device {device!r} is requested, but torch sees no GPU here")
    return torch.device(device)


@contextmanager
def inference(device: torch.device, precision: Precision) -> Iterator[None]:
    """Run without gradients: on a CPU in one thread (law 1), on a GPU in half precision by default."""
    import torch

    if device.type == "cpu":
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            with torch.inference_mode(), _cast(device, "float32" if precision == "auto" else precision):
                yield
        finally:
            torch.set_num_threads(threads)
    else:
        with torch.inference_mode(), _cast(device, "float16" if precision == "auto" else precision):
            yield


def _cast(device: torch.device, precision: str) -> torch.autocast:
    import torch

    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(precision)
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


def pad(inputs: Sequence[np.ndarray], device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (inputs padded with zeros (B, longest, ...) float32, lengths (B,)) on a device.

    For a GPU the batch is assembled in pinned memory and copied asynchronously.
    """
    import torch

    gpu = device.type == "cuda"
    lengths = torch.tensor([len(one) for one in inputs], pin_memory=gpu)
    shape = (len(inputs), max(len(one) for one in inputs), *inputs[0].shape[1:])
    # For float16 features half the bytes cross the bus; the cast to float32 is done on the device.
    dtype = torch.from_numpy(np.zeros(0, inputs[0].dtype)).dtype
    out = torch.zeros(shape, dtype=dtype, pin_memory=gpu)
    values = out.numpy()
    for row, one in enumerate(inputs):
        values[row, : len(one)] = one
    return out.to(device, non_blocking=gpu).float(), lengths.to(device, non_blocking=gpu)
