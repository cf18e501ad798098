"""Speech and noises mixed in one room: levels, convolution, signal-to-noise ratios, and a guard against clipping.

Speech keeps the level of its direct sound. Levels are relative to 1.0 = 0 dB; the speech level is the active level of
ITU-T P.56 (method B), the noise level is the mean power over the utterance, as is usual when noise is added by P.56.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SILENCE = -80.0  # dB: a quieter signal counts as silent
PEAK = 0.99  # the largest magnitude of a mixture
_FRAME = 0.002  # s between values of the speech envelope
_SMOOTHING = 0.03  # s, P.56
_HANGOVER = 0.2  # s, P.56
_MARGIN = 15.9  # dB, P.56


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture: samples (n,) float32, and the levels reached."""

    samples: np.ndarray
    gain: float  # factor on all samples, below 1 where they would have clipped
    noise_snrs: tuple[float, ...]  # dB, active speech level over each noise
    snr: float  # dB, active speech level over all noises together


def power_level(samples: np.ndarray) -> float:
    """Return the mean power of samples (n,) in dB, at least -200."""
    return float(10.0 * np.log10(max(float(np.dot(samples, samples)) / max(len(samples), 1), 1e-20)))


def active_level(samples: np.ndarray, rate: int) -> float:
    """Return the active speech level of samples (n,) in dB: the mean power while speech is active.

    P.56 method B with its envelope taken every 2 ms instead of every sample: within 0.1 dB of the full method.
    """
    import scipy.ndimage
    import scipy.signal

    frame = max(1, round(_FRAME * rate))
    size = np.abs(samples)
    peak = float(size.max(initial=0.0))
    if len(samples) < frame or peak < 1e-6:
        return -200.0
    frames = len(samples) // frame
    size = size[: frames * frame].reshape(frames, frame) @ np.full(frame, 1 / (frame * peak), size.dtype)
    keep = np.exp(-frame / (_SMOOTHING * rate))
    # P.56 smooths twice with one pole; the second power of that filter does both at once.
    envelope = scipy.signal.lfilter([(1 - keep) ** 2], [1.0, -2.0 * keep, keep**2], size)
    hang = round(_HANGOVER * rate / frame)
    held = scipy.ndimage.maximum_filter1d(
        np.concatenate([np.zeros(hang), envelope]), hang + 1, origin=hang // 2, mode="constant"
    )[hang:]
    total = power_level(samples) + 10.0 * np.log10(len(samples) / frame)
    thresholds = 2.0 ** -np.arange(16.0)[::-1]
    active = len(held) - np.searchsorted(np.sort(held), thresholds)
    level = total - 10.0 * np.log10(np.maximum(active, 1e-3))
    gap = level - 20.0 * np.log10(thresholds * peak)
    at = int(np.argmax(gap <= _MARGIN)) if (gap <= _MARGIN).any() else len(gap) - 1
    if at == 0 or gap[at] > _MARGIN or active[at] == 0:
        used = active[at] or active[active > 0].min(initial=frames)
        return float(total - 10.0 * np.log10(used))
    part = (gap[at - 1] - _MARGIN) / (gap[at - 1] - gap[at])
    return float(level[at - 1] + part * (level[at] - level[at - 1]))


def history(taps: int, lead: int) -> int:
    """Return the number of past samples that :func:`reverberate` needs of each signal."""
    return taps - 1 - lead


def reverberate(signals: np.ndarray, responses: np.ndarray, count: int) -> np.ndarray:
    """Return float32 (sources, count): each signal convolved with its response, the direct sound kept in place.

    Signals are (sources, count + taps - 1): :func:`history` past samples, ``count`` samples, ``lead`` future ones
    (zeros beyond the signal). Overlap-save: blocks of all sources go through one batched FFT.
    """
    import scipy.fft

    sources, taps = responses.shape
    size, blocks = _blocks(sources, count, taps)
    step = size - taps + 1
    rows = sources * blocks
    wave = np.zeros((_whole_lanes(rows), size), dtype=np.float32)
    for row in range(rows):
        source, block = divmod(row, blocks)
        cut = signals[source, block * step : block * step + size]
        wave[row, : len(cut)] = cut
    filters = np.zeros((_whole_lanes(sources), size), dtype=np.float32)
    filters[:sources, :taps] = responses
    spectra = scipy.fft.rfft(wave, axis=1)
    used = spectra[:rows].reshape(sources, blocks, -1)
    used *= scipy.fft.rfft(filters, axis=1)[:sources, None, :]
    wave = scipy.fft.irfft(spectra, size, axis=1, overwrite_x=True)[:rows]
    return wave.reshape(sources, blocks, size)[:, :, taps - 1 :].reshape(sources, -1)[:, :count]


def mix(parts: np.ndarray, snrs: Sequence[float], rate: int) -> Mixture:
    """Add noises ``parts[1:]`` to speech ``parts[0]`` (sources, n), each at its own signal-to-noise ratio in dB.

    All signals are as received by the microphone. A silent noise is an error of the caller (``ValueError``).
    """
    speech, noises = parts[0], parts[1:]
    if not len(noises):
        samples, gain = guard(speech)
        return Mixture(samples, gain, (), float("inf"))
    level = active_level(speech, rate)
    levels = np.array([power_level(noise) for noise in noises])
    if levels.min() <= -199.0:
        raise ValueError("a silent noise cannot be set to a ratio")
    gains = 10.0 ** ((level - np.asarray(snrs) - levels) / 20.0)
    noise = gains.astype(np.float32) @ noises
    samples, gain = guard(speech + noise)
    return Mixture(samples, gain, tuple(float(s) for s in snrs), level - power_level(noise))


def guard(samples: np.ndarray) -> tuple[np.ndarray, float]:
    """Return samples attenuated so that no peak exceeds :data:`PEAK`, and the factor."""
    peak = max(float(samples.max(initial=0.0)), -float(samples.min(initial=0.0)))
    if peak <= PEAK:
        return samples, 1.0
    gain = PEAK / peak
    return samples * np.float32(gain), gain


def _whole_lanes(rows: int) -> int:
    """Return rows rounded up to a multiple of 4: the FFT does four float32 rows at once, one costs as much as two."""
    return -(-rows // 4) * 4


@lru_cache(maxsize=4096)
def _blocks(sources: int, count: int, taps: int) -> tuple[int, int]:
    """Return the FFT size that costs least, and the number of blocks that each source is cut into."""
    import scipy.fft

    sizes = {n: scipy.fft.next_fast_len(-(-count // n) + taps - 1, real=True) for n in range(1, 33)}
    best = min(sizes, key=lambda n: _whole_lanes(sources * n) * sizes[n] * (10 + np.log2(sizes[n])))
    return sizes[best], best
