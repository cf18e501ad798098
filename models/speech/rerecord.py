"""A second simulator for the re-recorded test set: imperfect loudspeakers and an imperfect microphone.

A loudspeaker has a band, resonances and soft clipping; a microphone has a low cut and noise. Together with other
rooms (larger, damped: see :data:`ROOMS`) and held-out noises this is a domain shift unseen in training.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gristmill.models.speech.mixing import active_level
from gristmill.models.speech.rooms import RoomSettings

ROOMS = RoomSettings(
    length=(5.0, 10.0),
    width=(4.0, 8.0),
    height=(2.8, 4.5),
    rt60=(0.3, 0.8),
    speaker_distance=(1.0, 3.5),
    damping=1.6,
)


@dataclass(frozen=True)
class Loudspeaker:
    """The imperfections of a loudspeaker."""

    low: float  # Hz, edge of the band
    high: float  # Hz
    resonances: tuple[tuple[float, float, float], ...]  # (Hz, quality, gain)
    drive: float  # active level in dB above the knee of the soft clipping; below 0 is almost clean


def draw_loudspeaker(rng: np.random.Generator, rate: int) -> Loudspeaker:
    """Draw a small loudspeaker: 100-350 Hz to 3.5-7.5 kHz (at most 0.45 of the rate), two or three resonances."""
    high = min(float(rng.uniform(3500.0, 7500.0)), 0.45 * rate)
    peaks = tuple(
        (float(rng.uniform(300.0, 0.8 * high)), float(rng.uniform(1.5, 6.0)), float(rng.uniform(-0.4, 0.8)))
        for _ in range(int(rng.integers(2, 4)))
    )
    return Loudspeaker(float(rng.uniform(100.0, 350.0)), high, peaks, float(rng.uniform(-12.0, 0.0)))


def play(samples: np.ndarray, rate: int, by: Loudspeaker) -> np.ndarray:
    """Return samples (n,) as played by the loudspeaker, float32, at about their level before."""
    import scipy.signal

    level = active_level(samples, rate)
    if level <= -199.0:
        return samples.astype(np.float32)
    knee = 10.0 ** ((level - by.drive) / 20.0)
    out = knee * np.tanh(samples / knee)
    sos = scipy.signal.butter(3, [by.low, by.high], "band", fs=rate, output="sos")
    out = scipy.signal.sosfilt(sos, out)
    for middle, quality, gain in by.resonances:
        b, a = scipy.signal.iirpeak(middle, quality, fs=rate)
        out = out + gain * scipy.signal.lfilter(b, a, out)
    out *= 10.0 ** ((level - active_level(out, rate)) / 20.0)
    return out.astype(np.float32)


def record(samples: np.ndarray, rate: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return samples (n,) as recorded by a microphone, and its signal-to-noise ratio in dB (25 to 45, drawn).

    The microphone has a low cut at 60 Hz and adds noise that is white above 500 Hz and stronger below.
    """
    import scipy.signal

    ratio = float(rng.uniform(25.0, 45.0))
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    frequency = np.fft.rfftfreq(len(samples), 1.0 / rate)
    noise = np.fft.irfft(spectrum * (1.0 + 500.0 / np.maximum(frequency, 50.0)), len(samples))
    noise *= 10.0 ** ((active_level(samples, rate) - ratio) / 20.0) / np.sqrt(np.mean(noise**2))
    sos = scipy.signal.butter(1, 60.0, "high", fs=rate, output="sos")
    return scipy.signal.sosfilt(sos, samples + noise).astype(np.float32), ratio
