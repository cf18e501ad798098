"""Log-mel filter-bank features, and the settings that a model and its data must share."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field, model_validator

from gristmill.shards.errors import UserError
from gristmill.shards.settings import Settings, Size

METADATA_KEY = "gristmill.features"  # in the schema metadata of a set that holds features
_LATER = ("style", "whole_bins")
"""Settings added since features, labels and checkpoints were first written, whose bytes stay as they were."""


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
    style: Literal["htk", "slaney"] = "htk"
    """The convention that frames, filters and floor follow.

    "htk": as described above and at ``log_mel``; filters are of equal height, triangles on HTK's mel scale. "slaney":
    what librosa, torchaudio and Whisper make after Slaney's Auditory Toolbox (1998): frames centred on multiples of the
    hop, the signal reflected at its ends, a periodic window, a spectrum of the window's length, filters of equal area
    that are triangles in Hz at distances of Slaney's mel scale, and the floor as the least mel power.
    """
    whole_bins: bool = False
    """Whether the corners of the filters are rounded down to bins of the spectrum, between which they are straight."""

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

    @property
    def spectrum(self) -> int:
        """Samples in the Fourier transform of a window."""
        return self.window if self.style == "slaney" else 1 << (self.window - 1).bit_length()

    def frames(self, samples: int) -> int:
        """Return the number of frames of an utterance: a function of its sample count alone."""
        if self.style == "slaney":
            return 1 + max(0, samples - self.window % 2) // self.hop
        return max(1, -(-samples // self.hop))

    def described(self) -> dict[str, Any]:
        """Return the settings as JSON values; those of :data:`_LATER` only where they are not at their default."""
        return self.model_dump(exclude={name for name in _LATER if name not in self.identity()})

    def to_json(self) -> str:
        """Return the settings of :meth:`described` as canonical JSON."""
        return json.dumps(self.described(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FeatureSettings:
        """Return the settings written by :meth:`to_json`."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise UserError(f"feature settings are not readable: {error}") from None


def log_mel(samples: np.ndarray, settings: FeatureSettings) -> np.ndarray:
    """Return features (frames, n_mels) float16 of samples (n,) at ``settings.sampling_rate``.

    Frame t is centred on sample (t + 1/2) hop and the signal is padded with zeros; in the style "slaney" it is centred
    on sample t hop, and the signal is reflected at its ends.

    Example:
        >>> settings = FeatureSettings(n_mels=40, sampling_rate=8000)
        >>> log_mel(np.zeros(8000, np.float32), settings).shape, settings.frames(8000)
        ((100, 40), 100)
        >>> log_mel(np.zeros(8000, np.float32), settings.but(style="slaney")).shape
        (101, 40)
    """
    samples = np.asarray(samples, dtype=np.float32)
    window, hop, count = settings.window, settings.hop, settings.frames(len(samples))
    emphasised = samples.copy()
    emphasised[1:] -= settings.preemphasis * samples[:-1]
    if settings.style == "slaney":
        padded = np.pad(emphasised, window // 2, mode="reflect")
    else:
        before = max(0, (window - hop) // 2)
        padded = np.zeros(max(before + len(samples), (count - 1) * hop + window), dtype=np.float32)
        padded[before : before + len(samples)] = emphasised
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[: (count - 1) * hop + 1 : hop]
    spectrum = np.fft.rfft(frames * taper(window, settings.style), n=settings.spectrum, axis=1)
    power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32)
    if settings.style == "slaney":
        mel = np.log(np.maximum(power @ filters(settings), np.float32(settings.floor)))
    else:
        mel = np.log((power / np.float32(window)) @ filters(settings) + np.float32(settings.floor))
    if settings.normalise != "none":
        mel = mel - mel.mean(axis=0, keepdims=True)
    if settings.normalise == "mean_variance":
        mel = mel / np.maximum(mel.std(axis=0, keepdims=True), 0.1)
    return mel.astype(np.float16)


@lru_cache(maxsize=4)
def taper(window: int, style: str) -> np.ndarray:
    """Return Hann's window of a number of samples, float32: without its zeros, or periodic in the style "slaney"."""
    if style == "slaney":
        return np.hanning(window + 1)[:-1].astype(np.float32)
    return np.hanning(window + 2)[1:-1].astype(np.float32)


@lru_cache(maxsize=4)
def filters(settings: FeatureSettings) -> np.ndarray:
    """Return triangular filters (bins, n_mels) float32, spaced evenly on the mel scale of the settings' style."""
    high = settings.sampling_rate / 2 if settings.high_hz is None else settings.high_hz
    mel, hertz = (_slaney, _hertz_slaney) if settings.style == "slaney" else (_htk, _hertz_htk)
    edges = np.linspace(mel(settings.low_hz), mel(high), settings.n_mels + 2)
    bins = np.fft.rfftfreq(settings.spectrum, 1.0 / settings.sampling_rate)
    width = hertz(edges[2:]) - hertz(edges[:-2])
    if settings.whole_bins:
        # As in many implementations since python_speech_features: scaled by size + 1, and no side narrower than a bin.
        edges = np.floor((settings.spectrum + 1) * hertz(edges) / settings.sampling_rate)
        bins = np.arange(len(bins), dtype=float)
    elif settings.style == "slaney":
        edges = hertz(edges)
    else:
        bins = mel(bins)
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    if settings.whole_bins:
        centre = np.maximum(centre, left + 1)
        right = np.maximum(right, centre + 1)
    rise = (bins[:, None] - left) / (centre - left)
    fall = (right - bins[:, None]) / (right - centre)
    triangles = np.maximum(0.0, np.minimum(rise, fall))
    if settings.style == "slaney":
        triangles *= 2.0 / width
    return triangles.astype(np.float32)


def _htk(hz: np.ndarray | float) -> np.ndarray:
    """Return mels of Hz by O'Shaughnessy (1987)."""
    return 2595.0 * np.log10(1.0 + np.asarray(hz) / 700.0)


def _hertz_htk(mels: np.ndarray) -> np.ndarray:
    return 700.0 * (10.0 ** (mels / 2595.0) - 1.0)


_BREAK_HZ, _BREAK_MEL, _STEP = 1000.0, 15.0, np.log(6.4) / 27.0  # Slaney's scale: linear below, logarithmic above


def _slaney(hz: np.ndarray | float) -> np.ndarray:
    """Return mels of Hz by Slaney (1998)."""
    given = np.asarray(hz, dtype=float)
    above = _BREAK_MEL + np.log(np.maximum(given, _BREAK_HZ) / _BREAK_HZ) / _STEP
    return np.where(given < _BREAK_HZ, given * _BREAK_MEL / _BREAK_HZ, above)


def _hertz_slaney(mels: np.ndarray) -> np.ndarray:
    above = _BREAK_HZ * np.exp(_STEP * (np.maximum(mels, _BREAK_MEL) - _BREAK_MEL))
    return np.where(mels < _BREAK_MEL, mels * _BREAK_HZ / _BREAK_MEL, above)
