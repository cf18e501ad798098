"""Banks: samples are read back as written, from any storage, and mistakes are errors in a sentence."""

import io
import json
import os

import numpy as np
import pytest
import soundfile

from gristmill.actors.speech.banks import (
    GeneratedNoiseSettings,
    NoiseBank,
    NoiseBankSettings,
    RoomBank,
    RoomBankSettings,
    build_noise_bank_from_folder,
    build_noise_bank_generated,
    build_room_bank,
    list_noises,
)
from gristmill.models.speech.rooms import LEAD
from gristmill.shards import store
from gristmill.shards.artifact import get_artifact
from gristmill.shards.errors import Damaged, UserError
from gristmill.shards.walking import walk
from tests.actors.sources.encode import encoded

RATE = 16000


def _folder(path, names=("a.wav", "deep/b.flac", "c.ogg", "d.wav", "e.wav"), rate=RATE, channels=1):
    rng = np.random.default_rng(0)
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path / name, 0.1 * rng.standard_normal((rate, channels)), rate)
    return str(path)


def _bank(url, folder, rate):
    return build_noise_bank_from_folder(url, NoiseBankSettings(), folder=folder, files=list_noises(folder), rate=rate)


def _rooms(url, seed=0, noises=3, rate=RATE, **settings):
    return build_room_bank(str(url), RoomBankSettings(**settings), noises=noises, rate=rate, seed=seed)


def test_folder_bank(tmp_path):
    folder = _folder(tmp_path / "in")
    (tmp_path / "in" / "readme.txt").write_text("no audio")
    ref = _bank(str(tmp_path / "bank"), folder, rate=RATE)
    train, test = NoiseBank(ref.url), NoiseBank(ref.url, "test")
    assert sorted(train.ids + test.ids) == ["a.wav", "c.ogg", "d.wav", "deep/b.flac", "e.wav"]
    assert len(test) == 1
    assert train.seconds(0) == 1.0
    bank, name = next((b, n) for b in (train, test) for n in b.ids if n == "a.wav")
    given = soundfile.read(tmp_path / "in" / "a.wav", dtype="float32")[0]
    number = bank.ids.index(name)
    np.testing.assert_allclose(bank.take(number, 0, RATE), given, atol=1e-4)
    looped = bank.take(number, RATE - 10, 2 * RATE)
    np.testing.assert_allclose(looped[:20], np.concatenate([given[-10:], given[:10]]), atol=1e-4)
    assert np.array_equal(bank.take(number, -10, 100), bank.take(number, RATE - 10, 100))


def test_folder_bank_resamples_and_folds_channels(tmp_path):
    folder = _folder(tmp_path / "in", names=("x.wav", "y.wav"), rate=44100, channels=2)
    ref = _bank(str(tmp_path / "bank"), folder, rate=8000)
    assert NoiseBank(ref.url).rate == 8000
    assert NoiseBank(ref.url).seconds(0) == pytest.approx(1.0, abs=0.001)


def test_building_again_gives_the_same_and_another_is_refused(tmp_path):
    folder = _folder(tmp_path / "in")
    first = _bank(str(tmp_path / "one"), folder, rate=RATE)
    assert _bank(str(tmp_path / "one"), folder, rate=RATE) == first
    assert _bank(str(tmp_path / "two"), folder, rate=RATE).digest == first.digest
    with pytest.raises(UserError, match="other sources or settings"):
        _bank(str(tmp_path / "one"), folder, rate=8000)


def test_bad_noise_is_left_out_and_named(tmp_path):
    folder = _folder(tmp_path / "in")
    (tmp_path / "in" / "bad.wav").write_bytes(b"RIFFnothing")
    ref = _bank(str(tmp_path / "bank"), folder, rate=RATE)
    kept = NoiseBank(ref.url).ids + NoiseBank(ref.url, "test").ids
    assert sorted(kept) == ["a.wav", "c.ogg", "d.wav", "deep/b.flac", "e.wav"]
    found = get_artifact(ref.url)
    assert json.loads(found.read("index.json"))["left_out"] == {"bad.wav": "unreadable"}


def test_noises_are_decoded_as_speech_is(tmp_path):
    """Beyond full scale they are scaled, not clipped; lengths that headers lack are found; cut ones are left out."""
    (tmp_path / "in").mkdir()
    wave = 40 * np.sin(np.arange(RATE) * 0.1)
    soundfile.write(tmp_path / "in" / "loud.wav", wave, RATE, subtype="FLOAT")
    (tmp_path / "in" / "pipe.flac").write_bytes(encoded("flac", "flac", 1.0, pipe=True))
    (tmp_path / "in" / "radio.m4a").write_bytes(encoded("ipod", "aac", 1.0))
    (tmp_path / "in" / "cut.wav").write_bytes((tmp_path / "in" / "loud.wav").read_bytes()[:9000])
    soundfile.write(tmp_path / "in" / "constant.wav", np.full(RATE, 0.3), RATE)
    ref = _bank(str(tmp_path / "bank"), str(tmp_path / "in"), rate=RATE)
    left_out = json.loads(get_artifact(ref.url).read("index.json"))["left_out"]
    assert left_out == {"cut.wav": "truncated", "constant.wav": "silent"}
    noises = {
        name: bank.take(n, 0, RATE)
        for bank in (NoiseBank(ref.url), NoiseBank(ref.url, "test"))
        for n, name in enumerate(bank.ids)
    }
    assert sorted(noises) == ["loud.wav", "pipe.flac", "radio.m4a"]
    np.testing.assert_allclose(noises["loud.wav"], wave / 40, atol=1e-3)


def test_mistakes(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(UserError, match="empty: no audio"):
        _bank(str(tmp_path / "b"), str(tmp_path / "empty"), rate=RATE)
    with pytest.raises(UserError, match="no audio"):
        _bank(str(tmp_path / "b"), str(tmp_path / "missing"), rate=RATE)
    (tmp_path / "empty" / "broken.wav").write_bytes(b"RIFFnothing")
    with pytest.raises(UserError, match=r"holds one recording, broken\.wav; expected two or more"):
        list_noises(str(tmp_path / "empty"))
    (tmp_path / "empty" / "also.wav").write_bytes(b"RIFFnothing")
    with pytest.raises(UserError, match=r"can be used: .*broken\.wav \(unreadable\)"):
        _bank(str(tmp_path / "b"), str(tmp_path / "empty"), rate=RATE)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(100), RATE, format="WAV")
    (tmp_path / "empty" / "broken.wav").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match=r"broken\.wav \(silent\)"):
        _bank(str(tmp_path / "b"), str(tmp_path / "empty"), rate=RATE)
    with pytest.raises(UserError, match="no bank of noises"):
        NoiseBank(str(tmp_path / "nowhere"))
    rooms = _rooms(tmp_path / "r", count=1)
    with pytest.raises(UserError, match="expected a bank of noises"):
        NoiseBank(rooms.url)


def test_generated_bank(tmp_path):
    rng = np.random.default_rng(0)
    speech = {s: [(0.1 * rng.standard_normal(8000)).astype(np.float32)] for s in ("train", "test")}
    settings = GeneratedNoiseSettings(seconds=1.5, generated=14)
    one = build_noise_bank_generated(str(tmp_path / "1"), settings, rate=RATE, speech=speech)
    train, test = NoiseBank(one.url), NoiseBank(one.url, "test")
    assert (len(train), len(test)) == (10, 4)
    assert not set(train.ids) & set(test.ids)
    assert {i.split("-")[0] for i in train.ids} >= {"babble", "talker", "music", "hum"}
    two = build_noise_bank_generated(str(tmp_path / "2"), settings, rate=RATE, speech=speech)
    assert two.digest == one.digest
    with pytest.raises(UserError, match="both splits"):
        build_noise_bank_generated(str(tmp_path / "3"), settings, rate=RATE, speech={"train": speech["train"]})


def test_room_bank(tmp_path):
    settings = {"rt60": (0.2, 0.4), "noises": 4, "count": 6}
    ref = _rooms(tmp_path / "r", seed=5, **settings)
    bank = RoomBank(ref.url)
    assert (len(bank), bank.sources, bank.rate) == (6, 5, RATE)
    for number in range(6):
        room = bank[number]
        assert room.responses.shape[0] == 5
        assert room.responses.dtype == np.float32
        assert room.responses[0, LEAD] == pytest.approx(1.0, abs=0.05)
        assert 0.2 <= room.rt60 <= 0.4
        assert -20 < room.drr < 20
    again = _rooms(tmp_path / "s", seed=5, **settings)
    assert again.digest == ref.digest
    other = _rooms(tmp_path / "t", seed=6, **settings)
    assert other.digest != ref.digest


def test_samples_are_mapped_and_cached_once_a_node(tmp_path, monkeypatch):
    """From object storage a file is copied to the node once; a local file is mapped in place."""
    monkeypatch.setenv("GRISTMILL_CACHE", str(tmp_path / "cache"))
    local = _rooms(tmp_path / "r", count=2, rate=8000)
    bank = RoomBank(local.url)
    assert isinstance(bank._files[0].base, np.memmap)
    assert not (tmp_path / "cache").exists()
    far = _rooms("memory://banks/rooms", count=2, rate=8000)
    assert far.digest == local.digest
    for _ in range(2):
        assert np.array_equal(RoomBank(far.url)[1].responses, bank[1].responses)
    files = list((tmp_path / "cache").iterdir())
    assert len(files) == 1
    held = files[0].stat().st_ino
    RoomBank(far.url)
    assert files[0].stat().st_ino == held
    files[0].unlink()
    (sample,) = [place.url for place in walk(far.url) if place.url.endswith(files[0].name)]
    data = store.read_bytes(sample)
    for there, fault in ((data[:-1] + b"x", "its bytes are not those"), (None, "the file is missing")):
        store.remove(sample)
        if there is not None:
            store.write_bytes(sample, there)
        with pytest.raises(Damaged, match=rf"^memory://.*{files[0].name}: {fault}"):
            RoomBank(far.url)[1]
        assert not files[0].exists()


def test_names_that_are_not_utf8_are_escaped(tmp_path):
    folder = _folder(tmp_path / "in", names=("x.wav",))
    os.rename(os.path.join(folder, "x.wav"), os.path.join(os.fsencode(folder), b"caf\xe9.wav"))
    _folder(tmp_path / "in", names=("y.wav",))
    ref = _bank(str(tmp_path / "bank"), folder, rate=RATE)
    assert sorted(NoiseBank(ref.url).ids + NoiseBank(ref.url, "test").ids) == ["caf\\udce9.wav", "y.wav"]
