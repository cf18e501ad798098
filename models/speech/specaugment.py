"""SpecAugment (Park et al., 2019): masks over mel bands and over time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpecAugment:
    """How many masks, and how wide at most; ``time_share`` bounds a time mask by a share of the utterance."""

    band_masks: int = 1
    bands: int = 8
    time_masks: int = 2
    frames: int = 10
    time_share: float = 0.1

    def __call__(self, features: Tensor, lengths: Tensor, generator: torch.Generator) -> Tensor:
        """Return features (B, T, n_mels) with masked values set to 0, the mean of a normalised band."""
        batch, frames, n_mels = features.shape
        keep = torch.ones(batch, frames, n_mels, dtype=torch.bool)
        long, mels = torch.arange(frames)[None], torch.arange(n_mels)[None]
        for count, most, size, axis in (
            (self.band_masks, torch.full((batch,), self.bands), torch.full((batch,), n_mels), mels),
            (
                self.time_masks,
                (lengths.cpu() * self.time_share).long().clamp(max=self.frames),
                lengths.cpu(),
                long,
            ),
        ):
            for _ in range(count):
                width = (torch.rand(batch, generator=generator) * (most + 1)).long()
                start = (torch.rand(batch, generator=generator) * (size - width + 1).clamp(min=1)).long()
                masked = (axis >= start[:, None]) & (axis < (start + width)[:, None])
                keep &= ~(masked[:, None, :] if axis is mels else masked[:, :, None])
        return features * keep.to(features.device, features.dtype)
