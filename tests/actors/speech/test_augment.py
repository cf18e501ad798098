"""The augmenting actors on tables: draws, columns, lengths, ids and errors."""

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from gristmill.actors import audio
from gristmill.actors.speech import augment
from gristmill.actors.speech.augment import Augment, AugmentSettings, Rerecord
from gristmill.actors.speech.banks import (
    GeneratedNoiseSettings,
    NoiseBank,
    NoiseBankSettings,
    RoomBank,
    RoomBankSettings,
    build_noise_bank_from_folder,
    build_noise_bank_generated,
    build_room_bank,
)
from gristmill.models.speech import mixing, rerecord
from gristmill.models.speech.rooms import LEAD
from gristmill.shards.errors import SettingsError, UserError
from gristmill.shards.stage import Stage
from gristmill.shards.walking import walk

RATE = 8000


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    path = tmp_path_factory.mktemp("banks")
    noise = build_noise_bank_generated(str(path / "n"), GeneratedNoiseSettings(seconds=1.5, generated=10), rate=RATE)
    near = RoomBankSettings(rt60=(0.2, 0.4), count=8)
    room = build_room_bank(str(path / "r"), near, noises=3, rate=RATE)
    far = RoomBankSettings(**dict(rerecord.ROOMS), count=4)
    other = build_room_bank(str(path / "o"), far, noises=3, rate=RATE, seed=1)
    return noise, room, other


def _speech(number, seconds=1.0, level=0.05):
    rng = np.random.default_rng(number)
    samples = level * rng.standard_normal(int(seconds * RATE))
    samples[: RATE // 4] *= 0.001
    return samples.astype(np.float32)


def _table(count=6):
    data = [audio.encode(_speech(i, 0.5 + 0.37 * i), RATE) for i in range(count)]
    return pa.table({"id": [f"u{i}" for i in range(count)], "audio": audio.audio_array(data), "text": ["a"] * count})


def _stage(noise, rooms, **settings) -> Stage:
    return Augment.stage(AugmentSettings(**settings), noise=noise, rooms=rooms)


def _rerecorded(noise, rooms) -> Stage:
    return Rerecord.stage(AugmentSettings(noises=(1, 2), split="test"), noise=noise, rooms=rooms)


def _rows(stage: Stage, table, seed=7):
    return stage.build(seed)(table)


def test_rows_come_back_noisy_with_every_draw(banks):
    noise, room, _ = banks
    table = _table()
    out = _rows(_stage(noise, room), table)
    assert out.column("id").to_pylist() == table.column("id").to_pylist()
    for field in augment.AUGMENT_FIELDS:
        assert out.schema.field(field.name).type == field.type
    train, held_out = NoiseBank(noise.url), NoiseBank(noise.url, "test")
    for before, row in zip(audio.audio_bytes(table), out.to_pylist(), strict=True):
        clean, _rate = audio.decode(before)
        noisy, rate = audio.decode(row["audio"]["bytes"])
        assert rate == RATE
        assert len(noisy) == len(clean)
        assert np.abs(noisy).max() <= 1.0
        count = len(row["noise_ids"])
        assert 1 <= count <= 3
        assert count == len(row["noise_offsets"]) == len(row["noise_snrs"])
        assert set(row["noise_ids"]) <= set(train.ids)
        assert not set(row["noise_ids"]) & set(held_out.ids)
        assert all(0 <= s <= 20 for s in row["noise_snrs"])
        assert all(0 <= o < 1.5 for o in row["noise_offsets"])
        assert row["snr"] <= min(row["noise_snrs"]) + 3.1
        assert 0 < row["gain"] <= 1
        assert 0.2 <= row["rt60"] <= 0.4
        assert row["reject_reason"] is None


def test_a_row_can_be_made_again_from_its_columns(banks):
    """Golden: the stored draws and the banks give the stored audio, at the stored ratios to 0.1 dB."""
    noise, room, _ = banks
    table = _table(4)
    out = _rows(_stage(noise, room), table)
    noises, rooms = NoiseBank(noise.url), RoomBank(room.url)
    for before, row in zip(audio.audio_bytes(table), out.to_pylist(), strict=True):
        speech, _ = audio.decode(before)
        scene = next(rooms[n] for n in range(len(rooms)) if rooms[n].id == row["room_id"])
        taps = scene.responses.shape[1]
        past = mixing.history(taps, LEAD)
        parts = [np.pad(speech, (past, taps - 1 - past))]
        for name, offset in zip(row["noise_ids"], row["noise_offsets"], strict=True):
            start = round(offset * RATE) - past
            parts.append(noises.take(noises.ids.index(name), start, len(speech) + taps - 1))
        received = mixing.reverberate(np.stack(parts), scene.responses[: len(parts)], len(speech))
        level = mixing.active_level(received[0], RATE)
        rest = audio.decode(row["audio"]["bytes"])[0] / row["gain"] - received[0]
        assert level - mixing.power_level(rest) == pytest.approx(row["snr"], abs=0.1)
        weights = np.linalg.lstsq(received[1:].T, rest, rcond=None)[0]
        for weight, part, snr in zip(weights, received[1:], row["noise_snrs"], strict=True):
            assert level - mixing.power_level(weight * part) == pytest.approx(snr, abs=0.1)


def test_draws_depend_on_the_record_only(banks):
    noise, room, _ = banks
    stage, table = _stage(noise, room), _table()
    whole = _rows(stage, table).to_pylist()
    backwards = _rows(stage, table.take(pa.array([5, 4, 3, 2, 1, 0]))).to_pylist()[::-1]
    alone = [_rows(stage, table.slice(i, 1)).to_pylist()[0] for i in range(6)]
    assert whole == backwards == alone
    assert _rows(stage, table, seed=8).to_pylist() != whole
    assert len({row["room_id"] for row in whole}) > 1


def test_copies_have_ids_and_draws_of_their_own(banks):
    noise, room, _ = banks
    stage = _stage(noise, room, copies=3)
    assert stage.fan_out
    out = _rows(stage, _table(2)).to_pylist()
    assert [r["id"] for r in out] == ["u0~0", "u0~1", "u0~2", "u1~0", "u1~1", "u1~2"]
    assert [r["parent_id"] for r in out] == ["u0"] * 3 + ["u1"] * 3
    assert len({r["audio"]["bytes"] for r in out}) == 6


def test_the_output_has_the_declared_schema(banks):
    noise, room, other = banks
    table = _table(2)
    for stage in (
        _stage(noise, room),
        _stage(noise, room, copies=2),
        _rerecorded(noise, other),
    ):
        out = _rows(stage, table).drop_columns(["reject_reason"])
        assert {f.name: f.type for f in out.schema} == {f.name: f.type for f in stage.output_schema(table.schema)}


@pytest.mark.parametrize("copies", [1, 2])
def test_records_without_speech_are_rejected(banks, copies):
    noise, room, _ = banks
    silent = audio.encode(np.zeros(RATE, np.float32), RATE)
    good = audio.encode(_speech(0), RATE)
    empty = audio.encode(np.zeros(0, np.float32), RATE)
    table = pa.table({"id": list("abcd"), "audio": audio.audio_array([silent, good, None, empty])})
    out = _rows(_stage(noise, room, copies=copies), table).to_pylist()
    reasons = {r["id"].split("~")[0]: r["reject_reason"] for r in out}
    assert reasons == {"a": "silent speech", "b": None, "c": "no audio", "d": "empty audio"}
    assert len(out) == 3 + copies


def _bank(folder, samples):
    folder.mkdir()
    soundfile.write(folder / "gaps.wav", samples, RATE)
    given = {"folder": str(folder), "files": list(walk(str(folder))), "rate": RATE}
    return build_noise_bank_from_folder(f"{folder}-bank", NoiseBankSettings(), **given)


def test_silent_stretches_of_a_noise_are_skipped(banks, tmp_path):
    samples = np.zeros(4 * RATE)
    samples[:RATE] = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    noise = _bank(tmp_path / "in", samples)
    data = [audio.encode(_speech(i, 0.5), RATE) for i in range(12)]
    table = pa.table({"id": [f"u{i}" for i in range(12)], "audio": audio.audio_array(data)})
    for row in _rows(_stage(noise, banks[1]), table).to_pylist():
        assert len(row["noise_ids"]) == len(row["noise_snrs"]) <= 3
        assert np.isfinite(audio.decode(row["audio"]["bytes"])[0]).all()


def test_rerecording_is_another_simulator(banks):
    noise, _, other = banks
    table = _table(3)
    stage = _rerecorded(noise, other)
    out = _rows(stage, table).to_pylist()
    assert out == _rows(stage, table).to_pylist()
    held_out = set(NoiseBank(noise.url, "test").ids)
    for before, row in zip(audio.audio_bytes(table), out, strict=True):
        samples = audio.decode(row["audio"]["bytes"])[0]
        assert len(samples) == len(audio.decode(before)[0])
        assert set(row["noise_ids"]) <= held_out
        assert 100 <= row["band_low"] <= 350 < 3500 <= row["band_high"] <= 0.45 * RATE
        assert 25 <= row["microphone_snr"] <= 45
        assert -12 <= row["drive"] <= 0


def test_mistakes(banks, tmp_path):
    noise, room, _ = banks
    for mistake in ({"snr": (10, 0)}, {"noises": (3, 1)}, {"copies": 0}, {"split": "dev"}):
        with pytest.raises(SettingsError, match=next(iter(mistake))):
            AugmentSettings(**mistake)
    with pytest.raises(UserError, match="up to 5 requested"):
        _stage(noise, room, noises=(1, 5)).build(0)
    alone = _bank(tmp_path / "in", np.tile([0.1, -0.1], RATE // 2))
    with pytest.raises(UserError, match="split 'test'"):
        _stage(alone, room, split="test").build(0)
    wide = build_room_bank(str(tmp_path / "r"), RoomBankSettings(count=1), noises=3, rate=16000)
    with pytest.raises(UserError, match="expected one rate"):
        _stage(noise, wide).build(0)
    table = pa.table({"id": ["a"], "audio": audio.audio_array([audio.encode(np.ones(100), 16000)])})
    with pytest.raises(UserError, match="speech at 16000 Hz"):
        _rows(_stage(noise, room), table)


def test_a_noise_that_is_silent_almost_everywhere_is_left_out(banks, tmp_path):
    samples = np.zeros(300 * RATE)
    samples[:10] = 0.1
    noise = _bank(tmp_path / "in", samples)
    row = _rows(_stage(noise, banks[1]), _table(1)).to_pylist()[0]
    assert row["noise_ids"] == []
    assert row["snr"] == float("inf")
