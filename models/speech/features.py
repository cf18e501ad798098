"""Log-mel filter-bank features, and the settings that a model and its data must share."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

METADATA_KEY = "gristmill.features"  # in the schema metadata of a set that holds features


class FilterBankSettings(Settings):
    """Log-mel features independent of the sampling rate; :meth:`at` returns the settings for one rate."""

    n_mels: Size = Field(64, ge=8)
    """Mel bands."""
    window_s: float = Field(0.025, gt=0)
    """Length of a window, s."""
    hop_s: float = Field(0.01, gt=0)
    """Hop from one frame to the next, s."""
    low_hz: float = Field(60.0, ge=0)
    """Lower edge of the band, Hz."""
    high_hz: float | None = None
    """Upper edge of the band, Hz; null: half the sampling rate."""
    preemphasis: float = Field(0.97, ge=0, le=1)
    """Pre-emphasis: the weight of the previous sample, which is subtracted from each sample."""
    floor: float = Field(1e-6, gt=0)
    """Added to the mel power (full scale = 1) before the logarithm: the floor of the features in silence."""
    normalise: Literal["none", "mean", "mean_variance"] = "mean"
    """Normalisation of each mel band over the frames of one utterance.

    A noisy copy is normalised by its own statistics as a clean utterance is by its own, so that no statistics of a
    corpus can differ between teacher and student.
    """

    def at(self, sampling_rate: int) -> FeatureSettings:
        """Return the settings at a sampling rate (Hz); a band that does not fit it is a ``UserError``."""
        return FeatureSettings(**dict(self) | {"sampling_rate": sampling_rate})


class FeatureSettings(FilterBankSettings):
    """Settings of feature extraction at one sampling rate: a model and its data must share all of them."""

    sampling_rate: int = Field(16000, ge=1)
    """Hz."""

    @model_validator(mode="after")
    def _band_fits(self) -> Self:
        high = self.sampling_rate / 2 if self.high_hz is None else self.high_hz
        if not self.low_hz < high <= self.sampling_rate / 2:
            # A UserError, not a validation error: the sampling rate is known only after the recipe's settings are read.
            raise UserError(
                f"features: band {self.low_hz} to {high} Hz does not fit a sampling rate of {self.sampling_rate} Hz"
            )
        return self

    @property
    def window(self) -> int:
        """Samples in a window."""
        return round(self.window_s * self.sampling_rate)

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return round(self.hop_s * self.sampling_rate)

    def frames(self, samples: int) -> int:
        """Return the number of frames of an utterance: a function of its sample count alone."""
        return max(1, -(-samples // self.hop))

    def to_json(self) -> str:
        """Return the settings as canonical JSON."""
        return json.dumps(self.model_dump(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FeatureSettings:
        """Return the settings written by :meth:`to_json`."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise UserError(f"feature settings are not readable: {error}") from None


def log_mel(samples: np.ndarray, settings: FeatureSettings) -> np.ndarray:
    """Return features (frames, n_mels) float16 of samples (n,) at ``settings.sampling_rate``.

    Frame t is centred on sample (t + 1/2) hop; the signal is padded with zeros.

    Example:
        >>> settings = FeatureSettings(n_mels=40, sampling_rate=8000)
        >>> log_mel(np.zeros(8000, np.float32), settings).shape, settings.frames(8000)
        ((100, 40), 100)
    """
    samples = np.asarray(samples, dtype=np.float32)
    window, hop, count = settings.window, settings.hop, settings.frames(len(samples))
    emphasised = samples.copy()
    emphasised[1:] -= settings.preemphasis * samples[:-1]
    before = max(0, (window - hop) // 2)
    padded = np.zeros(max(before + len(samples), (count - 1) * hop + window), dtype=np.float32)
    padded[before : before + len(samples)] = emphasised
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: (count - 1) * hop + 1 : hop]
    size = 1 << (window - 1).bit_length()
    spectrum = np.fft.rfft(frames * _taper(window), n=size, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) / np.float32(window)
    mel = np.log(power @ _filters(settings, size) + np.float32(settings.floor))
    if settings.normalise != "none":
        mel = mel - mel.mean(axis=0, keepdims=True)
    if settings.normalise == "mean_variance":
        mel = mel / np.maximum(mel.std(axis=0, keepdims=True), 0.1)
    return mel.astype(np.float16)


@lru_cache(maxsize=4)
def _taper(window: int) -> np.ndarray:
    return np.hanning(window + 2)[1:-1].astype(np.float32)


@lru_cache(maxsize=4)
def _filters(settings: FeatureSettings, size: int) -> np.ndarray:
    """Return triangular filters (bins, n_mels), spaced evenly on the mel scale (O'Shaughnessy 1987)."""
    high = settings.sampling_rate / 2 if settings.high_hz is None else settings.high_hz

    def mel(hz: np.ndarray | float) -> np.ndarray:
        return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)

    edges = np.linspace(mel(settings.low_hz), mel(high), settings.n_mels + 2)
    bins = mel(np.fft.rfftfreq(size, 1.0 / settings.sampling_rate))[:, None]
    rise = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    fall = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return np.maximum(0.0, np.minimum(rise, fall)).astype(np.float32)
