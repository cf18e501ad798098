"""How good a recording of speech is, by its samples alone: noise, clipping and bandwidth.

All are of one utterance of one channel. Nothing is compared with a clean reference: these are estimates, whose errors
on known mixtures are in ``benchmarks/RESULTS.md``.
"""

from __future__ import annotations

import numpy as np

_FRAME_S = 0.032
_NOISE_QUANTILE = 0.1  # of a band's frames: speech is in few bands at any time, so that most bands are often without
_LOUD_QUANTILE = 0.95  # of a band's frames: what speech reaches there
_SILENT = 1e-9  # mean power, re full scale, below which a frame is digital silence and tells nothing of the noise
_LEAST_SNR, _MOST_SNR = -20.0, 60.0  # dB
_LOWEST = 62.5  # Hz: below it lie hum and rumble
_BELOW = 60.0  # dB below the strongest band at which a band counts as empty
_SMOOTH = 9  # bands: narrower lines (whines, pilot tones) are no bandwidth
_LEVELS, _NEAR, _LESS = 100, 5, 10  # of magnitude up to the largest; counted together; compared with those so far below
_EXCESS, _LEAST_CLIPPED = 2.0, 8  # times as many samples as below, and their number


class Spectra:
    """Powers of an utterance's frames by band, from which its noise and its bandwidth are told.

    ``samples`` (n,) at ``rate`` Hz, within [-1, 1].

    Example:
        >>> noise = np.random.default_rng(0).standard_normal(16000).astype(np.float32)
        >>> round(Spectra(0.01 * noise, 16000).bandwidth())
        8000
    """

    def __init__(self, samples: np.ndarray, rate: int) -> None:
        size = round(_FRAME_S * rate)
        samples = np.pad(samples, (0, max(0, size - len(samples))))
        frames = np.lib.stride_tricks.sliding_window_view(samples, size)[:: size // 2]
        heard = np.einsum("ij,ij->i", frames, frames) > _SILENT * size
        windowed = frames[heard] * np.hanning(size + 1)[:-1].astype(np.float32)
        self._step = rate / size  # Hz
        self._total = np.zeros(size // 2 + 1)
        self._noise = np.zeros(size // 2 + 1)
        self._loud = np.zeros(size // 2 + 1)
        if len(windowed):
            spectra = np.fft.rfft(windowed, axis=1)
            power = np.ascontiguousarray((spectra.real**2 + spectra.imag**2).T)
            self._total = power.mean(axis=1, dtype=np.float64)
            low, high = (round(q * (len(windowed) - 1)) for q in (_NOISE_QUANTILE, _LOUD_QUANTILE))
            power.partition((low, high), axis=1)
            # A quantile of a noise's power in a band, which is distributed exponentially, is less than its mean.
            self._noise = power[:, low].astype(np.float64) / -np.log(1 - _NOISE_QUANTILE)
            self._loud = power[:, high].astype(np.float64)

    def snr(self) -> float:
        """Return the ratio of speech to noise, dB, from -20 to 60.

        The noise of each band is a low quantile of its frames' powers, and speech is what is above it (quantile based
        noise estimation: Stahl, Fischer and Bippus, ICASSP 2000); pauses count as speech.
        """
        first = round(_LOWEST / self._step)
        noise, total = float(self._noise[first:].sum()), float(self._total[first:].sum())
        if noise <= 0.0:
            return _MOST_SNR if total > 0.0 else _LEAST_SNR
        return float(np.clip(10 * np.log10(max((total - noise) / noise, 1e-9)), _LEAST_SNR, _MOST_SNR))

    def bandwidth(self) -> float:
        """Return the frequency (Hz) above which there is nothing: no band within 60 dB of the strongest one."""
        level = 10 * np.log10(self._loud + 1e-20)
        around = np.lib.stride_tricks.sliding_window_view(np.pad(level, _SMOOTH // 2, mode="edge"), _SMOOTH)
        smooth = np.median(around, axis=1)
        return float(np.flatnonzero(smooth >= smooth.max() - _BELOW)[-1] * self._step) if self._loud.any() else 0.0


def clipped_share(samples: np.ndarray) -> float:
    """Return the share of samples (n,) that are clipped, also if they were scaled, resampled or compressed since.

    Of speech, the larger a magnitude is, the fewer samples have it. Where many more have one than have those a little
    less, it was the limit, and all samples from there on count.

    Example:
        >>> voice = np.random.default_rng(0).laplace(size=16000)
        >>> clipped_share(voice), round(clipped_share(voice.clip(-3, 3)), 2)
        (0.0, 0.06)
    """
    size = np.abs(samples)
    counts, _ = np.histogram(size, _LEVELS, (0.0, max(float(size.max(initial=0.0)), 1e-9)))
    near = np.convolve(counts, np.ones(_NEAR, np.int64), mode="valid")
    levels = np.arange(_LEVELS * 2 // 5, len(near))
    limits = levels[(near[levels] >= _LEAST_CLIPPED) & (near[levels] > _EXCESS * near[levels - _LESS])]
    return float(counts[limits[0] :].sum() / len(size)) if len(limits) else 0.0
