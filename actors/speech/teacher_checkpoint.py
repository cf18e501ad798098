"""A teacher from an acoustic checkpoint of this project, in an artifact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from gristmill.actors.speech.teacher_source import Precision, TeacherInfo, device_of, inference, pad
from gristmill.models.speech.checkpoint import load_acoustic, read_phones
from gristmill.shards import canonical
from gristmill.shards.artifact import read_file
from gristmill.shards.errors import UserError


class Checkpoint:
    """An acoustic network over log-mel features, of any kind that :func:`load_acoustic` makes."""

    shortest = 1

    def __init__(self, model: str, device: str = "cpu", precision: Precision = "auto") -> None:
        data = _read(model)
        self.network, units, features = load_acoustic(data)
        self.phones = read_phones(data)  # of inner heads
        rate = 1.0 / (features.hop_s * self.network.subsampling)
        self.info = TeacherInfo(units, rate, features.sampling_rate, features, canonical.sha256(data))
        self.device, self.precision = device_of(device), precision
        self.network.to(self.device)

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[int]]:
        """Return (log-softmax (B, T, V), frames of each) of features."""
        with inference(self.device, self.precision):
            log_probs, _ = self.network(*pad(inputs, self.device))
            # Output lengths follow from input lengths: reading them from the device would synchronise with it.
            frames = self.network.output_lengths(torch.tensor([len(one) for one in inputs]))
        return log_probs, frames.tolist()

    def layers(self, one: np.ndarray) -> list[torch.Tensor]:
        """Return the hidden states (1, T, D) behind each layer of an utterance's features."""
        with inference(self.device, self.precision):
            states, _ = self.network.layers(*pad([one], self.device))
        return states


def describe(model: str) -> TeacherInfo:
    """Return the description of an artifact's checkpoint."""
    return Checkpoint(model).info


def _read(model: str) -> bytes:
    try:
        return read_file(model, "model.safetensors")
    except FileNotFoundError:
        raise UserError(
            f"teacher.model: no checkpoint at {model}, expected an artifact or folder with model.safetensors"
        ) from None
