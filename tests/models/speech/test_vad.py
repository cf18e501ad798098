"""The energy gate: levels above the noise, of recordings whose pauses are noise and of those where they are silence."""

from __future__ import annotations

import numpy as np
import pytest

from gristmill.models.speech.vad import FRAME, RATE, energy_probabilities

SECONDS = 30
SPOKEN = [(place, place + 2.0) for place in np.arange(0.8, SECONDS - 2, 2.8)]


def speech(quiet: float = -75.0) -> np.ndarray:
    """Syllables of 0.25 s that rise from a level (dB) and fall back to it, in pauses of 0.8 s."""
    t = np.arange(SECONDS * RATE) / RATE
    level = quiet + (-20 - quiet) * np.abs(np.sin(np.pi * 4 * (t - 0.8)))
    inside = np.any([(t >= start) & (t < end) for start, end in SPOKEN], axis=0)
    buzz = np.sign(np.sin(2 * np.pi * 140 * t))
    return (inside * buzz * 10 ** (level / 20)).astype(np.float32)[: len(t) // FRAME * FRAME]


def lost_and_false(samples: np.ndarray) -> tuple[float, float]:
    """The shares of the frames of speech that are not found, and of the others that are."""
    found = energy_probabilities(samples) >= 0.8
    middle = (np.arange(len(found)) + 0.5) * FRAME / RATE
    edges = np.any([np.abs(middle - edge) < FRAME / RATE for pair in SPOKEN for edge in pair], axis=0)
    inside = np.any([(middle > start) & (middle < end) for start, end in SPOKEN], axis=0)
    return float((~found)[inside & ~edges].mean()), float(found[~inside & ~edges].mean())


@pytest.mark.parametrize("noise", [0.0, 1e-5, 1e-4])
def test_quiet_speech_is_found_whether_pauses_are_noise_or_silence(noise: float) -> None:
    samples = speech() + noise * np.random.default_rng(0).standard_normal(len(speech())).astype(np.float32)
    lost, false = lost_and_false(samples)
    assert lost < (0.01 if noise < 1e-4 else 0.3)
    assert false < 0.01


def test_speech_alone_in_silence_is_found() -> None:
    samples = speech()
    samples[round(3.0 * RATE) :] = 0
    found = energy_probabilities(samples) >= 0.8
    assert found[26:86].mean() > 0.99
    assert not found[90:].any()


@pytest.mark.parametrize("silent", [(0, 14), (16, 30), (10, 20)])
def test_silence_beside_noise_does_not_make_the_noise_speech(silent: tuple[int, int]) -> None:
    samples = speech() + 0.003 * np.random.default_rng(0).standard_normal(len(speech())).astype(np.float32)
    samples[silent[0] * RATE : silent[1] * RATE] = 0
    assert lost_and_false(samples)[1] < 0.01


def test_nothing_and_noise_alone_are_no_speech() -> None:
    samples = np.zeros(SECONDS * RATE // FRAME * FRAME, np.float32)
    assert not (energy_probabilities(samples) >= 0.5).any()
    noise = 0.01 * np.random.default_rng(0).standard_normal(len(samples)).astype(np.float32)
    assert not (energy_probabilities(noise) >= 0.5).any()
