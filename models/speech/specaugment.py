"""SpecAugment (Park et al., 2019): masks over mel bands and over time."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from gristmill.shards.settings import Settings


class SpecAugment(Settings):
    """Number of masks per utterance, and their largest widths."""

    band_masks: int = Field(1, ge=0)
    """Masks over mel bands."""
    bands: int = Field(8, ge=0)
    """Mel bands in a mask, at most."""
    time_masks: int = Field(2, ge=0)
    """Masks over time."""
    frames: int = Field(10, ge=0)
    """Frames in a time mask, at most."""
    time_share: float = Field(0.1, ge=0, le=1)
    """Share of an utterance in a time mask, at most."""

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
