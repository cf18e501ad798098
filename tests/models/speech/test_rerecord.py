"""The second simulator: its imperfections are audible, and its draws come from the generator."""

import numpy as np
import pytest

from gristmill.models.speech import mixing, rerecord

RATE = 16000


def _share(samples, low, high):
    power = np.abs(np.fft.rfft(samples)) ** 2
    frequency = np.fft.rfftfreq(len(samples), 1 / RATE)
    return power[(frequency >= low) & (frequency < high)].sum() / power.sum()


@pytest.fixture
def white():
    return (0.05 * np.random.default_rng(0).standard_normal(3 * RATE)).astype(np.float32)


def test_loudspeaker_limits_the_band_and_keeps_the_level(white):
    by = rerecord.Loudspeaker(300.0, 3500.0, (), -20.0)
    out = rerecord.play(white, RATE, by)
    assert out.dtype == np.float32
    assert out.shape == white.shape
    assert _share(out, 300, 3500) > 0.9
    assert _share(out, 7000, 8000) < 0.001
    assert mixing.active_level(out, RATE) == pytest.approx(mixing.active_level(white, RATE), abs=0.1)


def test_drive_distorts():
    tone = (0.3 * np.sin(2 * np.pi * 500 * np.arange(2 * RATE) / RATE)).astype(np.float32)
    soft, hard = (rerecord.play(tone, RATE, rerecord.Loudspeaker(100, 7000, (), d)) for d in (-20.0, 3.0))
    third = [_share(x, 1490, 1510) for x in (soft, hard)]
    assert third[0] < 1e-4 < 1e-2 < third[1]


def test_microphone_noise_is_at_its_ratio(white):
    out, ratio = rerecord.record(white, RATE, np.random.default_rng(1))
    assert 25 <= ratio <= 45
    quiet, _ = rerecord.record(white, RATE, np.random.default_rng(2))
    assert not np.array_equal(out, quiet)
    assert np.array_equal(out, rerecord.record(white, RATE, np.random.default_rng(1))[0])


@pytest.mark.parametrize("rate", [8000, 16000])
def test_draws_fit_the_rate(rate):
    rng = np.random.default_rng(0)
    samples = rng.standard_normal(rate).astype(np.float32)
    for _ in range(20):
        by = rerecord.draw_loudspeaker(rng, rate)
        assert by.low < by.high <= 0.45 * rate
        assert np.isfinite(rerecord.play(samples, rate, by)).all()


def test_silence_stays_silence():
    by = rerecord.draw_loudspeaker(np.random.default_rng(0), RATE)
    assert not rerecord.play(np.zeros(RATE, np.float32), RATE, by).any()
