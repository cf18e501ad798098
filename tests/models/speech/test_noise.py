"""Generated noise: level, length, repeatability, and the spectra that the names promise."""

import numpy as np
import pytest

from gristmill.models.speech import noise

RATE = 16000


def _speech():
    rng = np.random.default_rng(9)
    return [(0.1 * rng.standard_normal(n)).astype(np.float32) for n in (8000, 12000, 30000)]


@pytest.mark.parametrize("kind", [*noise.GENERATED, *noise.TALKING])
@pytest.mark.parametrize("rate", [8000, RATE])
def test_every_kind(kind, rate):
    given = (_speech(),) if kind in noise.TALKING else ()
    make = getattr(noise, kind)
    first, again, other = (make(np.random.default_rng(s), *given, rate, 3.0) for s in (1, 1, 2))
    assert first.dtype == np.float32
    assert first.shape == (3 * rate,)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert np.abs(first).max() <= 0.9 + 1e-6
    assert 0.01 < np.sqrt(np.mean(first**2)) <= 0.0501


def test_hum_is_tonal_and_coloured_is_not():
    def flatness(samples):
        power = np.abs(np.fft.rfft(samples)) ** 2 + 1e-12
        return np.exp(np.mean(np.log(power))) / power.mean()

    hum = np.mean([flatness(noise.hum(np.random.default_rng(s), RATE, 4.0)) for s in range(5)])
    broad = np.mean([flatness(noise._coloured(np.random.default_rng(s), RATE, 64000, 0.0)) for s in range(5)])
    assert hum < 0.05 < 0.4 < broad


def test_colour_falls_at_the_given_rate():
    power = np.abs(np.fft.rfft(noise._coloured(np.random.default_rng(0), RATE, 160000, 3.0))) ** 2
    octave = lambda low: power[low * 10 : 2 * low * 10].mean()
    assert 10 * np.log10(octave(500) / octave(2000)) == pytest.approx(6.0, abs=0.7)


def test_music_has_a_beat_and_pitches():
    samples = noise.music(np.random.default_rng(3), RATE, 6.0)
    power = np.sort(np.abs(np.fft.rfft(samples)) ** 2)[::-1]
    assert power[: len(power) // 50].sum() > 0.7 * power.sum()  # few lines have most of the energy


def test_babble_is_fuller_than_one_talker():
    speech = [np.concatenate([s, np.zeros(8000, np.float32)]) for s in _speech()]
    quiet = lambda x: np.mean(np.abs(x.reshape(-1, 400)).max(axis=1) < 0.005)
    one = noise.talker(np.random.default_rng(0), speech, RATE, 4.0)
    many = noise.babble(np.random.default_rng(0), speech, RATE, 4.0)
    assert quiet(many) < quiet(one)
