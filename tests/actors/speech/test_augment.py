"""The augmenting actors on tables: draws, columns, lengths, ids, and what they refuse."""

import numpy as np
import pyarrow as pa
import pytest

from gristmill.actors import audio
from gristmill.actors.speech import augment
from gristmill.actors.speech.banks import NoiseBank, RoomBank, build_noise_bank_generated, build_room_bank
from gristmill.models.speech import mixing, rerecord
from gristmill.models.speech.rooms import LEAD, RoomSettings
from gristmill.shards.errors import UserError
from gristmill.shards.random import RecordRandom
from gristmill.shards.stage import Stage

RATE = 8000


@pytest.fixture(scope="module")
def banks(tmp_path_factory):
    path = tmp_path_factory.mktemp("banks")
    noise = build_noise_bank_generated(str(path / "n"), rate=RATE, seconds=1.5, count=10)
    room = build_room_bank(str(path / "r"), RoomSettings(rt60=(0.2, 0.4)), count=8, rate=RATE)
    other = build_room_bank(str(path / "o"), rerecord.ROOMS, count=4, rate=RATE, seed=1)
    return noise, room, other


def _speech(number, seconds=1.0, level=0.05):
    rng = np.random.default_rng(number)
    samples = level * rng.standard_normal(int(seconds * RATE))
    samples[: RATE // 4] *= 0.001
    return samples.astype(np.float32)


def _table(count=6):
    data = [audio.encode(_speech(i, 0.5 + 0.37 * i), RATE) for i in range(count)]
    return pa.table({"id": [f"u{i}" for i in range(count)], "audio": audio.audio_array(data), "text": ["a"] * count})


def _rows(stage: Stage, table, seed=7):
    return stage.build(seed)(table)


def test_rows_come_back_noisy_with_every_draw(banks):
    noise, room, _ = banks
    table = _table()
    out = _rows(augment.stage(noise, room), table)
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
    out = _rows(augment.stage(noise, room), table)
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
        heard = mixing.reverberate(np.stack(parts), scene.responses[: len(parts)], len(speech))
        level = mixing.active_level(heard[0], RATE)
        rest = audio.decode(row["audio"]["bytes"])[0] / row["gain"] - heard[0]
        assert level - mixing.power_level(rest) == pytest.approx(row["snr"], abs=0.1)
        weights = np.linalg.lstsq(heard[1:].T, rest, rcond=None)[0]
        for weight, part, snr in zip(weights, heard[1:], row["noise_snrs"], strict=True):
            assert level - mixing.power_level(weight * part) == pytest.approx(snr, abs=0.1)


def test_draws_depend_on_the_record_only(banks):
    noise, room, _ = banks
    stage, table = augment.stage(noise, room), _table()
    whole = _rows(stage, table).to_pylist()
    backwards = _rows(stage, table.take(pa.array([5, 4, 3, 2, 1, 0]))).to_pylist()[::-1]
    alone = [_rows(stage, table.slice(i, 1)).to_pylist()[0] for i in range(6)]
    assert whole == backwards == alone
    assert _rows(stage, table, seed=8).to_pylist() != whole
    assert len({row["room_id"] for row in whole}) > 1


def test_copies_have_ids_and_draws_of_their_own(banks):
    noise, room, _ = banks
    stage = augment.stage(noise, room, copies=3)
    assert stage.fan_out
    out = _rows(stage, _table(2)).to_pylist()
    assert [r["id"] for r in out] == ["u0~0", "u0~1", "u0~2", "u1~0", "u1~1", "u1~2"]
    assert [r["parent_id"] for r in out] == ["u0"] * 3 + ["u1"] * 3
    assert len({r["audio"]["bytes"] for r in out}) == 6


def test_the_output_has_the_declared_schema(banks):
    noise, room, other = banks
    table = _table(2)
    for stage in (
        augment.stage(noise, room),
        augment.stage(noise, room, copies=2),
        augment.rerecord_stage(noise, other),
    ):
        out = _rows(stage, table).drop_columns(["reject_reason"])
        assert {f.name: f.type for f in out.schema} == {f.name: f.type for f in stage.output_schema(table.schema)}


@pytest.mark.parametrize("copies", [1, 2])
def test_nothing_to_make_noisy_is_turned_down(banks, copies):
    noise, room, _ = banks
    silent = audio.encode(np.zeros(RATE, np.float32), RATE)
    good = audio.encode(_speech(0), RATE)
    empty = audio.encode(np.zeros(0, np.float32), RATE)
    table = pa.table({"id": list("abcd"), "audio": audio.audio_array([silent, good, None, empty])})
    out = _rows(augment.stage(noise, room, copies=copies), table).to_pylist()
    reasons = {r["id"].split("~")[0]: r["reject_reason"] for r in out}
    assert reasons == {"a": "silent speech", "b": None, "c": "no audio", "d": "empty audio"}
    assert len(out) == 3 + copies


def test_silent_places_of_a_noise_are_passed_over(banks, tmp_path):
    import soundfile

    samples = np.zeros(4 * RATE)
    samples[:RATE] = 0.1 * np.random.default_rng(0).standard_normal(RATE)
    (tmp_path / "in").mkdir()
    soundfile.write(tmp_path / "in" / "gaps.wav", samples, RATE)
    from gristmill.actors.speech.banks import build_noise_bank_from_folder, list_noises

    folder = str(tmp_path / "in")
    noise = build_noise_bank_from_folder(str(tmp_path / "bank"), folder, list_noises(folder), rate=RATE)
    data = [audio.encode(_speech(i, 0.5), RATE) for i in range(12)]
    table = pa.table({"id": [f"u{i}" for i in range(12)], "audio": audio.audio_array(data)})
    for row in _rows(augment.stage(noise, banks[1]), table).to_pylist():
        assert len(row["noise_ids"]) == len(row["noise_snrs"]) <= 3
        assert np.isfinite(audio.decode(row["audio"]["bytes"])[0]).all()


def test_rerecording_is_another_simulator(banks):
    noise, _, other = banks
    table = _table(3)
    stage = augment.rerecord_stage(noise, other)
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
    with pytest.raises(UserError, match="snr"):
        augment.stage(noise, room, snr=(10, 0))
    with pytest.raises(UserError, match="noises"):
        augment.stage(noise, room, noises=(3, 1))
    with pytest.raises(UserError, match="copies"):
        augment.stage(noise, room, copies=0)
    with pytest.raises(UserError, match="up to 5 wanted"):
        augment.stage(noise, room, noises=(1, 5)).build(0)
    with pytest.raises(UserError, match="split 'dev'"):
        augment.stage(noise, room, split="dev").build(0)
    wide = build_room_bank(str(tmp_path / "r"), RoomSettings(), count=1, rate=16000)
    with pytest.raises(UserError, match="one rate is expected"):
        augment.stage(noise, wide).build(0)
    table = pa.table({"id": ["a"], "audio": audio.audio_array([audio.encode(np.ones(100), 16000)])})
    with pytest.raises(UserError, match="speech at 16000 Hz"):
        _rows(augment.stage(noise, room), table)


def test_noises_may_be_none(banks):
    noise, room, _ = banks
    worker = augment.Augment(
        snr=(0, 1), noises=(0, 0), split="train", noise=noise.url, rooms=room.url, rng=RecordRandom(0, "x")
    )
    row = worker(_table(1)).to_pylist()[0]
    assert row["noise_ids"] == []
    assert row["snr"] == float("inf")
