"""Levels, convolution and signal-to-noise ratios, each against a slow reference implementation."""

import numpy as np
import pytest
import scipy.signal

from gristmill.models.speech import mixing, rooms
from gristmill.models.speech.rooms import LEAD

RATE = 16000


def _speechlike(seed=0, seconds=4.0, level=0.05):
    """Bursts of coloured noise with pauses, as speech has them."""
    rng = np.random.default_rng(seed)
    count = int(seconds * RATE)
    gate = np.repeat(rng.random(count // 1600 + 1) < 0.6, 1600)[:count]
    gate = np.maximum(scipy.signal.lfilter([0.01], [1, -0.99], gate.astype(float)), 0)
    colour = scipy.signal.lfilter([1.0], [1, -0.9], rng.standard_normal(count))
    return (level * gate * colour).astype(np.float32)


def _p56(samples, rate, margin=15.9):
    """ITU-T P.56 method B sample by sample, with the speech voltmeter's interpolation by bisection left linear."""
    keep = np.exp(-1 / (0.03 * rate))
    envelope = np.abs(samples.astype(np.float64))
    for _ in range(2):
        envelope = scipy.signal.lfilter([1 - keep], [1, -keep], envelope)
    hang = int(np.ceil(0.2 * rate))
    total = float(np.sum(samples.astype(np.float64) ** 2))
    last = None
    for j in range(15, -1, -1):
        threshold = 2.0**-j
        above = np.flatnonzero(envelope >= threshold)
        if not len(above):
            break
        starts = np.zeros(len(samples) + hang + 1)
        np.add.at(starts, above, 1)
        np.add.at(starts, np.minimum(above + hang + 1, len(samples)), -1)
        active = int((np.cumsum(starts)[: len(samples)] > 0).sum())
        level, floor = 10 * np.log10(total / active), 20 * np.log10(threshold)
        if level - floor <= margin and last is not None:
            before = last[0] - last[1] - margin
            part = before / (before - (level - floor - margin))
            return last[0] + part * (level - last[0])
        last = (level, floor)
    return last[0]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("level", [0.3, 0.01])
def test_active_level_is_that_of_p56(seed, level):
    speech = _speechlike(seed, level=level)
    assert mixing.active_level(speech, RATE) == pytest.approx(_p56(speech, RATE), abs=0.1)


def test_active_level_leaves_pauses_out():
    speech = _speechlike(1)
    longer = np.concatenate([speech, np.zeros(10 * RATE, np.float32)])
    assert mixing.active_level(longer, RATE) == pytest.approx(mixing.active_level(speech, RATE), abs=0.5)
    assert mixing.power_level(longer) < mixing.power_level(speech) - 5


def test_active_level_moves_with_gain_and_knows_silence():
    speech = _speechlike(2)
    quieter = mixing.active_level(speech * np.float32(0.01), RATE)
    assert quieter == pytest.approx(mixing.active_level(speech, RATE) - 40, abs=0.01)
    assert mixing.active_level(np.zeros(RATE, np.float32), RATE) < mixing.SILENCE
    assert mixing.active_level(np.zeros(0, np.float32), RATE) < mixing.SILENCE
    assert mixing.active_level(np.full(8, 1e-5, np.float32), RATE) < mixing.SILENCE
    tone = np.sin(np.arange(2 * RATE) * 0.3).astype(np.float32)
    assert mixing.active_level(tone, RATE) == pytest.approx(-3.01, abs=0.1)


@pytest.mark.parametrize("count", [1, 100, 7000, 50000, 200001])
@pytest.mark.parametrize("taps", [200, 5000])
def test_reverberate_equals_direct_convolution(count, taps):
    rng = np.random.default_rng(count)
    responses = (rng.standard_normal((2, taps)) * 0.1).astype(np.float32)
    past = mixing.history(taps, LEAD)
    signals = rng.standard_normal((2, count + taps - 1)).astype(np.float32)
    got = mixing.reverberate(signals, responses, count)
    assert got.shape == (2, count)
    for row in range(2):
        want = scipy.signal.fftconvolve(signals[row].astype(float), responses[row].astype(float))
        np.testing.assert_allclose(got[row], want[taps - 1 : taps - 1 + count], atol=2e-4)
    assert past == taps - 1 - LEAD


def _placed(speech, taps):
    past = mixing.history(taps, LEAD)
    return np.pad(speech, (past, taps - 1 - past))[None]


def test_pure_delay_room_gives_the_input_back():
    """A room with direct sound only, 3.7 m away: frame t stays frame t, to the sample."""
    speech = _speechlike(3)
    delay = 3.7 / rooms.SPEED * RATE
    response = rooms.align(np.sinc(np.arange(1200) - delay), delay)[:600].astype(np.float32)
    got = mixing.reverberate(_placed(speech, 600), response[None], len(speech))[0]
    assert len(got) == len(speech)
    assert np.argmax(np.correlate(got[:8000], speech[:8000], "full")) == 7999
    np.testing.assert_allclose(got, speech, atol=1e-3)
    exact = np.eye(1, 600, LEAD, dtype=np.float32)
    np.testing.assert_allclose(mixing.reverberate(_placed(speech, 600), exact, len(speech))[0], speech, atol=1e-6)


def test_real_rooms_leave_frames_in_place():
    rng = np.random.default_rng(0)
    speech = _speechlike(4)
    for _ in range(5):
        room = rooms.draw_room(rng, rooms.RoomSettings(rt60=(0.2, 0.4), speaker_distance=(0.5, 1.0)))
        response = rooms.impulse_responses(room, RATE, rng)[:1]
        got = mixing.reverberate(_placed(speech, response.shape[1]), response, len(speech))[0]
        white = np.fft.rfft(got, 2 * len(got)) * np.conj(np.fft.rfft(speech, 2 * len(got)))
        assert np.argmax(np.fft.irfft(white / (np.abs(white) + 1e-9))) == 0


@pytest.mark.parametrize("snrs", [(5.0,), (0.0, 20.0), (3.0, 9.5, 14.0)])
def test_achieved_ratio_is_the_drawn_one(snrs):
    """Golden: recomputed from the components, within 0.1 dB."""
    rng = np.random.default_rng(len(snrs))
    speech = _speechlike(5)
    noises = rng.standard_normal((len(snrs), len(speech))).astype(np.float32) * rng.uniform(0.001, 1)
    got = mixing.mix(np.concatenate([speech[None], noises]), snrs, RATE)
    rest = got.samples / got.gain - speech  # all noises as they were mixed
    assert _p56(speech, RATE) - mixing.power_level(rest) == pytest.approx(got.snr, abs=0.1)
    weights = np.linalg.lstsq(noises.T, rest, rcond=None)[0]
    for weight, noise, snr in zip(weights, noises, snrs, strict=True):
        achieved = _p56(speech, RATE) - mixing.power_level((weight * noise).astype(np.float32))
        assert achieved == pytest.approx(snr, abs=0.1)
    assert got.noise_snrs == snrs


def test_no_clipping_and_the_gain_is_returned():
    speech = _speechlike(6, level=2.0)
    got = mixing.mix(speech[None], (), RATE)
    assert np.abs(got.samples).max() <= mixing.PEAK + 1e-6
    assert got.gain < 1
    np.testing.assert_allclose(got.samples / got.gain, speech, rtol=1e-5)
    assert mixing.mix(speech[None] * 0.01, (), RATE).gain == 1.0


def test_silent_noise_is_an_error():
    speech = _speechlike(7)
    with pytest.raises(ValueError, match="silent"):
        mixing.mix(np.stack([speech, np.zeros_like(speech)]), (5.0,), RATE)
