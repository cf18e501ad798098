"""Long recordings are cut into utterances, which depend on the recording and not on who cuts which part of it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from gristmill.actors.sources import sounds
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech import segment
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.actors.speech.segment import Segment, SegmentSettings, load_detector, plan_ranges
from gristmill.models.speech.vad import FRAME, FRAME_S, UtteranceSettings, find_utterances
from gristmill.shards.errors import UserError
from tests.actors.sources.encode import encoded

RATE = 16000
ENERGY = SegmentSettings(method="energy")


def spoken(bounds: list[tuple[float, float]], seconds: float, rate: int = RATE) -> np.ndarray:
    """A buzz that stands for speech between bounds (s), in noise."""
    t = np.arange(round(seconds * rate)) / rate
    voice = 0.05 * np.sign(np.sin(2 * np.pi * 140 * t))
    inside = np.zeros(len(t), bool)
    for start, end in bounds:
        inside |= (t >= start) & (t < end)
    return (voice * inside + 0.001 * np.random.default_rng(1).standard_normal(len(t))).astype(np.float32)


def told(seconds: float, seed: int = 3) -> list[tuple[float, float]]:
    rng, place, bounds = np.random.default_rng(seed), 0.7, []
    while place < seconds - 4:
        end = place + rng.uniform(1, 3)
        bounds.append((place, end))
        place = end + rng.uniform(0.8, 2)
    return bounds


def probed(url: Path | str) -> pa.Table:
    found = pa.concat_tables([Probe(ProbeSettings(max_duration=1e6))(table) for table in list_sources(str(url))])
    assert found["reject_reason"].null_count == len(found), found["reject_reason"]
    return found.drop_columns("reject_reason")


def segmented(url: Path | str, settings: SegmentSettings = ENERGY) -> list[dict]:
    return Segment(settings)(plan_ranges(probed(url))).to_pylist()


def test_utterances_are_found_where_they_are(tmp_path: Path) -> None:
    bounds = told(20.0)
    soundfile.write(tmp_path / "a.flac", spoken(bounds, 20.0), RATE)
    found = segmented(tmp_path)
    assert len(found) == len(bounds)
    for row, (start, end) in zip(found, bounds, strict=True):
        assert (row["recording_start"], row["recording_start"] + row["length"]) == (
            pytest.approx(start - 0.1, abs=0.1),
            pytest.approx(end + 0.1, abs=0.1),
        )
        assert row["recording"] == row["parent_id"] == f"{tmp_path.name}/a.flac"
        assert row["id"] == f"{row['recording']}@{row['start']:.3f}+{row['length']:.3f}"
        assert 0.8 < row["speech_share"] <= 1
    loaded = Load(LoadSettings(annotated=False))(
        pa.Table.from_pylist(found, _schema(tmp_path)).drop_columns("reject_reason")
    )
    assert loaded["reject_reason"].null_count == len(found)
    assert loaded["duration"].to_pylist() == pytest.approx([row["length"] for row in found], abs=1e-3)
    assert {"recording", "recording_start", "speech_share", "parent_id"} <= set(loaded.column_names)


def _schema(url: Path) -> pa.Schema:
    return Segment(ENERGY)(plan_ranges(probed(url))).schema


def test_the_stage_declares_what_it_returns(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", spoken([(1, 3)], 5.0), RATE)
    ranges = plan_ranges(probed(tmp_path))
    declared = Segment.stage(ENERGY).output_schema(ranges.schema)
    assert set(declared.names) == {*_schema(tmp_path).names} - {"reject_reason"}


@pytest.mark.parametrize("kind", ["flac", "mp3"])
def test_ranges_meet_as_if_there_was_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Four ranges give the utterances of one: borders lie in pauses. Which ranges are cut together changes nothing."""
    for name, value in (("BLOCK", 256), ("_SEAM", 128), ("_RANGE", 4)):
        monkeypatch.setattr(segment, name, value)
    bounds = told(33.0)
    if kind == "flac":
        soundfile.write(tmp_path / "a.flac", spoken(bounds, 33.0, 22050), 22050)
    else:
        (tmp_path / "a.mp3").write_bytes(encoded("mp3", "libmp3lame", samples=spoken(bounds, 33.0), pipe=True))
    one = segmented(tmp_path)
    monkeypatch.setattr(segment, "_RANGE", 1)
    ranges = plan_ranges(probed(tmp_path))
    assert ranges["part"].to_pylist() == [0, 1, 2, 3]
    assert sum(ranges["duration"].to_pylist()) == pytest.approx(33.0, abs=0.2)
    actor = Segment(ENERGY)
    many = actor(ranges)
    places = [(row["start"], row["length"]) for row in many.to_pylist() if row["reject_reason"] is None]
    assert places == [(row["start"], row["length"]) for row in one]
    alone = [actor(ranges.slice(part, 1)) for part in (2, 0, 3, 1)]
    assert pa.concat_tables([alone[1], alone[3], alone[0], alone[2]]).equals(many)


def test_what_cannot_seek_is_decoded_once_by_a_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranges, and then their utterances, are read on from where the last ended, also from batch to batch."""
    for name, value in (("BLOCK", 256), ("_SEAM", 128), ("_RANGE", 1)):
        monkeypatch.setattr(segment, name, value)
    (tmp_path / "a.mp3").write_bytes(encoded("mp3", "libmp3lame", samples=spoken(told(33.0), 33.0), pipe=True))
    ranges = plan_ranges(probed(tmp_path))
    opened: list[object] = []
    first = sounds.FFmpegSound._open
    monkeypatch.setattr(sounds.FFmpegSound, "_open", lambda sound: opened.append(sound) or first(sound))
    actor, load = Segment(ENERGY), Load(LoadSettings(annotated=False))
    found = pa.concat_tables(actor(ranges.slice(part, 1)) for part in range(len(ranges))).drop_columns("reject_reason")
    assert (len(ranges), len(opened)) == (4, 1)
    loaded = pa.concat_tables(load(found.slice(row, 1)) for row in range(len(found)))
    assert len(loaded) > 5
    assert len(opened) == 2
    assert loaded.equals(Load(LoadSettings(annotated=False))(found))


def test_a_storage_that_failed_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.flac", spoken(told(12.0), 12.0), RATE)
    ranges, actor = plan_ranges(probed(tmp_path)), Segment(ENERGY)
    wanted, read = actor(ranges), sounds.Sound.read

    def fails(sound: sounds.Sound, count: int | None = None) -> np.ndarray:
        raise OSError("gone")

    actor = Segment(ENERGY)
    monkeypatch.setattr(sounds.Sound, "read", fails)
    with pytest.raises(OSError, match="gone"):
        actor(ranges)
    monkeypatch.setattr(sounds.Sound, "read", read)
    assert actor(ranges).equals(wanted)


def test_turns_of_a_manifest_are_cut_within_themselves(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", spoken([(1, 4), (4.0, 9), (10, 12)], 15.0), RATE)
    turns = [("ann", 0.5, 3.5), ("bob", 4.0, 9.0)]
    lines = [
        {"audio_filepath": "a.wav", "offset": start, "duration": length, "speaker": who, "text": "long"}
        for who, start, length in turns
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = segmented(tmp_path / "m.jsonl")
    assert [(row["speaker"], row["text"]) for row in found] == [("ann", None), ("bob", None), ("bob", None)]
    assert [row["start"] for row in found] == pytest.approx([0.9, 4.0, 9.9], abs=0.1)
    assert all(
        any(
            start <= row["start"] and row["start"] + row["length"] <= start + length + 1e-9
            for _, start, length in turns
        )
        for row in found
    )


def test_what_has_no_speech_or_is_cut_is_a_reject(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "still.wav", spoken([], 5.0), RATE)
    (tmp_path / "gone.wav").write_bytes((tmp_path / "still.wav").read_bytes())
    ranges = plan_ranges(probed(tmp_path))
    (tmp_path / "gone.wav").write_bytes((tmp_path / "still.wav").read_bytes()[:20000])
    found = Segment(ENERGY)(ranges).to_pylist()
    assert [(row["id"], row["reject_reason"]) for row in found] == [
        (f"{tmp_path.name}/gone.wav", "truncated"),
        (f"{tmp_path.name}/still.wav", "no speech"),
    ]
    assert [row["parent_id"] for row in found] == [row["id"] for row in found]


def frames(*parts: tuple[float, float]) -> np.ndarray:
    return np.concatenate([np.full(round(seconds / FRAME_S), value) for value, seconds in parts])


def test_lengths_and_pauses_are_kept() -> None:
    settings = UtteranceSettings(threshold=0.5, silence=0.5, least=0.5, most=10.0, padding=0.0)

    def found(*parts: tuple[float, float]) -> list[tuple[float, float]]:
        return [(round(a * FRAME_S, 1), round(b * FRAME_S, 1)) for a, b in find_utterances(frames(*parts), settings)]

    assert found((0, 2)) == []
    assert found((0, 1), (0.9, 2), (0, 0.4), (0.9, 1), (0, 1)) == [(1.0, 4.4)]  # the pause is short
    assert found((0, 1), (0.9, 2), (0, 0.6), (0.9, 1)) == [(1.0, 3.0), (3.6, 4.6)]
    assert found((0, 1), (0.9, 0.3), (0, 1)) == []  # so is the speech
    assert found((0.9, 1), (0.4, 2), (0.9, 1), (0, 1)) == [(0.0, 4.0)]  # above the lower threshold
    assert found((0.9, 1), (0.1, 0.2), (0.4, 2)) == [(0.0, 1.0)]  # but not once it was below
    assert found((0.9, 7), (0.6, 0.3), (0.9, 7)) == [(0.0, 7.1), (7.1, 14.3)]  # parted at the quietest place
    padded = UtteranceSettings(silence=0.3, padding=0.5)
    first, second = find_utterances(frames((0, 0.2), (0.9, 2), (0, 0.6), (0.9, 2)), padded)
    assert (first[0], first[1]) == (0, second[0])  # up to the begin, and to the middle of the pause
    assert second[1] == len(frames((0, 0.2), (0.9, 2), (0, 0.6), (0.9, 2)))


def test_silero_is_silero(monkeypatch: pytest.MonkeyPatch) -> None:
    """The detector run over a block gives what the package's own gives frame by frame with the same weights."""
    package = pytest.importorskip("silero_vad")
    import torch
    from safetensors.torch import load_file

    rng = np.random.default_rng(2)
    samples = spoken([(0.5, 2.0)], 4.0)[: 120 * FRAME] + 0.01 * rng.standard_normal(120 * FRAME).astype(np.float32)
    theirs = package.load_silero_vad()
    weights = load_file(Path(package.__file__).parent / "data" / "silero_vad_16k.safetensors")
    for name, value in theirs.state_dict().items():  # its TorchScript file has those of another release
        if name.startswith("_model."):
            value.copy_(weights[_name_of(name)])
    wanted = [theirs(torch.from_numpy(samples[at : at + FRAME]), RATE).item() for at in range(0, len(samples), FRAME)]
    np.testing.assert_allclose(load_detector("silero")(samples), wanted, atol=1e-4)
    monkeypatch.setattr(segment.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"silero-vad is missing; pip install '\.\[vad\]'"):
        load_detector("silero")


def _name_of(name: str) -> str:
    """Return the name of a weight in the file of one of the package's model."""
    if layer := re.search(r"encoder\.(\d)\.reparam_conv\.(.*)", name):
        return f"conv{int(layer[1]) + 1}.{layer[2]}"
    name = name.replace("_model.stft.forward_basis_buffer", "stft_conv.weight")
    return name.replace("_model.decoder.rnn.", "lstm_cell.").replace("_model.decoder.decoder.2.", "final_conv.")
