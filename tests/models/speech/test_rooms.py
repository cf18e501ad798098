"""Rooms: the declared decay, the exact early echoes, and pyroomacoustics as the oracle."""

import numpy as np
import pytest

from gristmill.models.speech import rooms
from gristmill.models.speech.rooms import LEAD, RoomSettings
from gristmill.shards.errors import SettingsError

RATE = 16000


def _some(count, seed=0, noises=3, **settings):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        room = rooms.draw_room(rng, RoomSettings(**settings), noises)
        yield room, rooms.impulse_responses(room, RATE, rng)


@pytest.mark.parametrize("rt60", [0.3, 0.5, 0.8])
def test_decay_is_the_declared_one(rt60):
    errors = [
        abs(rooms.reverberation_time(row, RATE) / rt60 - 1)
        for _, responses in _some(20, rt60=(rt60, rt60))
        for row in responses
    ]
    assert np.median(errors) < 0.10
    assert np.percentile(errors, 90) < 0.20


def test_direct_sound_is_one_at_the_lead_and_first_of_all():
    for _, responses in _some(10):
        assert responses.dtype == np.float32
        # Sincs of close reflections ring a little into the sample of the direct sound.
        assert np.allclose(responses[:, LEAD], 1.0, atol=0.05)
        assert abs(responses[:, : LEAD - 24]).max() == 0.0


def test_positions_lie_in_the_room_apart_from_the_microphone():
    for room, responses in _some(30, noises=5):
        assert responses.shape[0] == 6 == len(room.sources)
        assert (room.sources >= 0.5).all()
        assert (room.sources <= room.size - 0.5).all()
        assert len(np.unique(room.sources, axis=0)) == 6
        assert np.linalg.norm(room.sources - room.microphone, axis=1)[0] <= 3.0 + 1e-9


def test_first_echo_comes_where_geometry_says():
    """One source over a floor: the floor's echo has the mirrored path and the reflection factor's share."""
    room = rooms.make_room([40.0, 40.0, 40.0], [20.0, 20.0, 1.0], [[22.0, 20.0, 1.0]], rt60=0.5)
    response = rooms.impulse_responses(room, RATE, np.random.default_rng(0))[0]
    path = np.hypot(2.0, 2.0)
    place = LEAD + (path - 2.0) / rooms.SPEED * RATE
    expected = 2.0 / path * np.exp(-room.decay)
    spectrum = np.fft.rfft(response[: LEAD + 200], 4096)
    direct = np.exp(-2j * np.pi * np.fft.rfftfreq(4096) * LEAD)
    echo = np.exp(-2j * np.pi * np.fft.rfftfreq(4096) * place)
    middle = slice(100, 1500)  # the sinc's band
    assert np.abs(spectrum - direct - expected * echo)[middle].max() < 0.01


def test_responses_depend_on_the_generator_only():
    first = [r for _, r in _some(2, seed=3)]
    again = [r for _, r in _some(2, seed=3)]
    other = [r for _, r in _some(2, seed=4)]
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[0][:, :1000], other[0][:, :1000])


def test_damping_shortens_the_high_band_only():
    import scipy.signal

    sos_low = scipy.signal.butter(6, 800, fs=RATE, output="sos")
    sos_high = scipy.signal.butter(6, 4000, "high", fs=RATE, output="sos")
    ratios, lows = [], []
    for _, responses in _some(6, rt60=(0.5, 0.5), damping=2.0):
        low = rooms.reverberation_time(scipy.signal.sosfilt(sos_low, responses[0]), RATE)
        high = rooms.reverberation_time(scipy.signal.sosfilt(sos_high, responses[0]), RATE)
        ratios.append(low / high)
        lows.append(low)
    assert 1.6 < np.median(ratios) < 2.6
    assert abs(np.median(lows) / 0.5 - 1) < 0.1


def test_reverberation_time_of_a_known_decay():
    time = np.arange(RATE) / RATE
    assert rooms.reverberation_time(10 ** (-3 * time / 0.4), RATE) == pytest.approx(0.4, rel=0.01)
    assert rooms.reverberation_time(np.eye(1, 100)[0], RATE) == 0.0


def test_align_moves_by_parts_of_a_sample():
    at = np.arange(400)
    moved = rooms.align(np.sinc(at - 150.37), 150.37)
    assert moved[LEAD] == pytest.approx(1.0, abs=3e-3)
    assert abs(np.delete(moved[:300], LEAD)).max() < 0.01
    assert rooms.align(np.eye(1, 100, 5)[0], 5.0)[LEAD] == 1.0


def test_settings_that_make_no_room_are_refused():
    with pytest.raises(SettingsError, match=r"rt60: .*smallest value first"):
        RoomSettings(rt60=(0.5, 0.2))
    with pytest.raises(SettingsError, match=r"height: .*no side"):
        RoomSettings(height=(1.0, 2.0))


def test_exact_image_method_agrees():
    """Oracle: same room and absorption, every image by pyroomacoustics."""
    pytest.importorskip("pyroomacoustics")
    ratios, times, declared, early = [], [], [], []
    for room, ours in _some(8, seed=1, rt60=(0.2, 0.4)):
        exact = rooms.exact_impulse_responses(room, RATE)
        assert exact.shape == ours.shape
        for a, b in zip(ours, exact, strict=True):
            ratios.append(rooms.direct_to_reverberant(a, RATE) - rooms.direct_to_reverberant(b, RATE))
            times.append(rooms.reverberation_time(a, RATE) / rooms.reverberation_time(b, RATE) - 1)
            declared.append(rooms.reverberation_time(b, RATE) / room.rt60 - 1)
            early.append(np.corrcoef(a[: LEAD + 480], b[: LEAD + 480])[0, 1])  # 30 ms
    assert abs(np.median(ratios)) < 1.0
    assert np.median(np.abs(ratios)) < 1.5
    assert np.median(np.abs(times)) < 0.10
    assert np.median(np.abs(declared)) < 0.10  # the absorption gives the declared time in the exact method too
    assert np.median(early) > 0.98
