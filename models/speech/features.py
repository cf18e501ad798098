"""Log-mel filter-bank features, and the settings that a model and its data must share."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import lru_cache

import numpy as np

from gristmill.shards.errors import UserError

METADATA_KEY = "gristmill.features"  # in the schema metadata of a set that holds features
NORMALISATIONS = ("none", "mean", "mean_variance")


@dataclass(frozen=True)
class FeatureSettings:
    """How features are made from audio.

    ``normalise`` works on one utterance alone, each mel band over time: a noisy copy is normalised by its own
    statistics as a clean one is by its own, so that no statistics of a corpus can differ between teacher and student.
    ``floor`` is added to the mel power (full scale = 1) before the logarithm; it decides how silent silence is.
    """

    sampling_rate: int = 16000  # Hz
    n_mels: int = 64
    window_s: float = 0.025
    hop_s: float = 0.01
    low_hz: float = 60.0
    high_hz: float | None = None  # None: half the sampling rate
    preemphasis: float = 0.97
    floor: float = 1e-6
    normalise: str = "mean"

    def __post_init__(self) -> None:
        if self.normalise not in NORMALISATIONS:
            raise UserError(f"features.normalise: {self.normalise!r}, expected one of {', '.join(NORMALISATIONS)}")
        high = self.sampling_rate / 2 if self.high_hz is None else self.high_hz
        if not 0 <= self.low_hz < high <= self.sampling_rate / 2:
            raise UserError(
                f"features: band {self.low_hz} to {high} Hz does not fit a sampling rate of {self.sampling_rate} Hz"
            )

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
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> FeatureSettings:
        """Return the settings written by :meth:`to_json`."""
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise UserError(f"feature settings are not readable: {error}") from None


def log_mel(samples: np.ndarray, settings: FeatureSettings) -> np.ndarray:
    """Return features (frames, n_mels) float16 of samples (n,) at ``settings.sampling_rate``.

    Frame t is centred on sample (t + 1/2) hop; the edges see zeros.
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
