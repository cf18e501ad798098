"""Synthetic media noise, and noise from given speech: babble, talkers, music, machines.

Every source returns float32 samples (n,) at ``rate`` Hz with a mean power of -26 dB relative to 1.0, or less where its
peaks require it. All randomness comes from the caller's generator.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

TALKING = ("babble", "talker")  # need speech
GENERATED = ("music", "coloured", "hum", "appliance", "broadcast_music")
_SCALES = ((0, 2, 4, 5, 7, 9, 11), (0, 2, 3, 5, 7, 8, 10))  # major, natural minor
_PROGRESSIONS = ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 4), (0, 2, 3, 4))


def babble(rng: np.random.Generator, speech: Sequence[np.ndarray], rate: int, seconds: float) -> np.ndarray:
    """Return three to eight simultaneous talkers, each a continuous string of utterances within 3 dB of the others."""
    talkers = int(rng.integers(3, 9))
    voices = [talker(rng, speech, rate, seconds) * 10 ** (rng.uniform(-3, 3) / 20) for _ in range(talkers)]
    return level(np.sum(voices, axis=0))


def talker(rng: np.random.Generator, speech: Sequence[np.ndarray], rate: int, seconds: float) -> np.ndarray:
    """Return one talker after another with pauses of 0.1 to 0.6 s, like a television."""
    count = round(seconds * rate)
    out = np.zeros(count, dtype=np.float32)
    place = 0
    while place < count:
        piece = speech[int(rng.integers(len(speech)))]
        piece = level(piece)[: count - place]
        out[place : place + len(piece)] = piece
        place += len(piece) + round(rng.uniform(0.1, 0.6) * rate)
    return level(out)


def coloured(rng: np.random.Generator, rate: int, seconds: float) -> np.ndarray:
    """Return noise whose power falls by 0 to 6 dB per octave and swells slowly by up to 6 dB."""
    count = round(seconds * rate)
    return level(_coloured(rng, rate, count, rng.uniform(0.0, 6.0)) * _swell(rng, rate, count, 6.0))


def hum(rng: np.random.Generator, rate: int, seconds: float) -> np.ndarray:
    """Return mains hum: harmonics of 50 or 60 Hz over quiet broadband noise."""
    count = round(seconds * rate)
    time = np.arange(count) / rate
    base = float(rng.choice([50.0, 60.0])) * (1 + rng.uniform(-0.002, 0.002))
    out = np.zeros(count)
    for number in range(1, int(rng.integers(8, 24))):
        if number * base < 0.45 * rate:
            strength = rng.uniform(0.3, 1.0) * number ** -rng.uniform(0.5, 1.2)
            out += strength * np.sin(2 * np.pi * (number * base * time + rng.uniform()))
    floor = _coloured(rng, rate, count, 3.0)
    return level(level(out) + level(floor) * 10 ** (rng.uniform(-20, -5) / 20))


def appliance(rng: np.random.Generator, rate: int, seconds: float) -> np.ndarray:
    """Return a fan, a vacuum cleaner or a mixer: coloured noise through resonances, blade modulation and a whine."""
    import scipy.signal

    count = round(seconds * rate)
    time = np.arange(count) / rate
    out = _coloured(rng, rate, count, rng.uniform(1.0, 5.0))
    for _ in range(int(rng.integers(2, 5))):
        middle = rng.uniform(150.0, 0.4 * rate)
        b, a = scipy.signal.iirpeak(middle, rng.uniform(2.0, 12.0), fs=rate)
        out = out + rng.uniform(0.5, 3.0) * scipy.signal.lfilter(b, a, out)
    turn = rng.uniform(8.0, 60.0)
    drift = np.cumsum(1.0 + 0.02 * np.sin(2 * np.pi * rng.uniform(0.05, 0.3) * time)) / rate
    out = level(out) * (1 + rng.uniform(0.05, 0.5) * np.sin(2 * np.pi * turn * drift))
    whine = sum(
        rng.uniform(0.2, 1.0) / k * np.sin(2 * np.pi * turn * 7 * k * drift)
        for k in range(1, 6)
        if turn * 7 * k < 0.45 * rate
    )
    return level(out + level(np.asarray(whine)) * 10 ** (rng.uniform(-20, -3) / 20))


def music(rng: np.random.Generator, rate: int, seconds: float) -> np.ndarray:
    """Return music-like sound: a chord progression, a bass, a melody and drums in one tempo and key."""
    count = round(seconds * rate)
    beat = 60.0 / rng.uniform(70.0, 160.0)
    root = rng.uniform(100.0, 200.0)
    scale = _SCALES[int(rng.integers(2))]
    chords = _PROGRESSIONS[int(rng.integers(len(_PROGRESSIONS)))]
    timbres = [_timbre(rng) for _ in range(3)]
    out = np.zeros(count + 4 * rate)
    pitch = lambda degree, octave: root * 2.0 ** (octave + degree // 7 + scale[degree % 7] / 12.0)
    degree = 7
    for number in range(int(np.ceil(seconds / beat))):
        start = round(number * beat * rate)
        chord = chords[(number // 4) % len(chords)]
        if number % 2 == 0:
            for part in (0, 2, 4):
                _note(out, start, rate, pitch(chord + part, 1), 2 * beat, timbres[0], 0.2)
        _note(out, start, rate, pitch(chord, -1), beat, timbres[1], 0.5)
        for half in range(2):
            if rng.random() < 0.6:
                degree = int(np.clip(degree + rng.integers(-2, 3), 4, 14))
                length = beat * float(rng.choice([0.5, 1.0]))
                _note(out, start + round(half * beat * rate / 2), rate, pitch(degree, 1), length, timbres[2], 0.4)
    if rng.random() < 0.8:
        _drums(rng, out, rate, beat, seconds)
    return level(out[:count])


def broadcast_music(rng: np.random.Generator, rate: int, seconds: float) -> np.ndarray:
    """Return music as played by a small radio: compressed, band-limited, over hiss."""
    import scipy.signal

    out = np.tanh(3.0 * level(music(rng, rate, seconds)) / 0.1)
    high = min(rng.uniform(3500.0, 7000.0), 0.45 * rate)
    sos = scipy.signal.butter(2, [rng.uniform(80.0, 300.0), high], "band", fs=rate, output="sos")
    hiss = _coloured(rng, rate, len(out), 0.0)
    return level(level(scipy.signal.sosfilt(sos, out)) + level(hiss) * 10 ** (rng.uniform(-35, -20) / 20))


def level(samples: np.ndarray, target: float = 0.05, peak: float = 0.9) -> np.ndarray:
    """Return samples as float32 at a root mean square of ``target``, less where the peak would exceed ``peak``."""
    root = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0
    if root == 0.0:
        return samples.astype(np.float32)
    most = float(np.abs(samples).max())
    return (samples * min(target / root, peak / most)).astype(np.float32)


def _coloured(rng: np.random.Generator, rate: int, count: int, fall: float) -> np.ndarray:
    """Gaussian noise whose power falls by ``fall`` dB per octave above 50 Hz."""
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequency = np.maximum(np.fft.rfftfreq(count, 1.0 / rate), 50.0)
    return np.fft.irfft(spectrum * frequency ** (-fall / (20 * np.log10(2.0))), count)


def _swell(rng: np.random.Generator, rate: int, count: int, depth: float) -> np.ndarray:
    points = max(2, int(count / rate))
    return 10 ** (np.interp(np.linspace(0, points - 1, count), np.arange(points), rng.uniform(-depth, 0, points)) / 20)


def _timbre(rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Strengths of harmonics, attack (s), decay (1/s)."""
    number = np.arange(1, int(rng.integers(4, 12)))
    return (
        number ** -rng.uniform(0.8, 2.0) * rng.uniform(0.2, 1.0, len(number)),
        rng.uniform(0.005, 0.08),
        rng.uniform(1, 6),
    )


def _note(
    out: np.ndarray,
    start: int,
    rate: int,
    frequency: float,
    seconds: float,
    timbre: tuple[np.ndarray, float, float],
    gain: float,
) -> None:
    strengths, attack, decay = timbre
    time = np.arange(max(0, min(round(1.2 * seconds * rate), len(out) - start))) / rate
    shape = np.minimum(time / attack, 1.0) * np.exp(-decay * time) * np.clip((1.2 * seconds - time) / 0.02, 0, 1)
    # Harmonics are powers of one rotation, so the sine is computed once per sample.
    turn = np.exp(2j * np.pi * frequency * time)
    wave, tone = turn.copy(), np.zeros(len(time))
    for number, strength in enumerate(strengths, 1):
        if number * frequency > 0.45 * rate:
            break
        tone += strength * wave.imag
        wave *= turn
    out[start : start + len(time)] += gain * shape * tone


def _drums(rng: np.random.Generator, out: np.ndarray, rate: int, beat: float, seconds: float) -> None:
    time = np.arange(round(0.25 * rate)) / rate
    kick = np.sin(2 * np.pi * (45.0 * time + 6.0 * (1 - np.exp(-25 * time)))) * np.exp(-14 * time)
    snare = rng.standard_normal(len(time)) * np.exp(-22 * time) * 0.5
    hat = np.diff(rng.standard_normal(len(time) + 1)) * np.exp(-70 * time) * 0.2
    hits = [(0, 2, kick), (1, 2, snare), (0, 1, hat), (0.5, 1, hat)]
    for first, every, sound in hits:
        for place in np.arange(first, seconds / beat, every):
            start = round(place * beat * rate)
            cut = sound[: max(0, len(out) - start)]
            out[start : start + len(cut)] += rng.uniform(0.7, 1.0) * cut
