"""Recordings with the text of the whole: every word and every part with speech ends in an utterance or in a reject."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech import align
from gristmill.actors.speech.align import UNHEARD, UNSURE, UNWRITTEN, Align, AlignerSettings, spoken_times
from gristmill.actors.speech.ingest import Load, LoadSettings, Probe, ProbeSettings
from gristmill.actors.speech.teacher_source import TeacherInfo
from gristmill.models.speech.units import characters
from gristmill.models.speech.vad import FRAME_S

RATE, HOP = 16000, 320
UNITS = characters(["abcdefgh"])
TONES = {letter: 500.0 + 450.0 * number for number, letter in enumerate("abcdefgh")}  # Hz
SETTINGS = AlignerSettings(method="energy")


class Ear:
    """A teacher that hears each letter as a tone of its own, in frames of 20 ms."""

    shortest = 1
    info = TeacherInfo(UNITS, RATE / HOP, RATE, None, "")

    def __call__(self, inputs: Sequence[np.ndarray]) -> tuple[torch.Tensor, list[int]]:
        made = [self._hear(samples) for samples in inputs]
        frames = [len(one) for one in made]
        whole = np.stack([np.pad(one, ((0, max(frames) - len(one)), (0, 0))) for one in made])
        return torch.from_numpy(whole), frames

    def _hear(self, samples: np.ndarray) -> np.ndarray:
        count = -(-len(samples) // HOP)
        power = np.abs(np.fft.rfft(np.pad(samples, (0, count * HOP - len(samples))).reshape(count, HOP))) ** 2
        scores = np.full((count, len(UNITS)), 1.0, np.float32)
        scores[:, 0] = 3.0  # of the blank: silence
        for letter, tone in TONES.items():
            scores[:, UNITS.tokens.index(letter)] = power[:, round(tone * HOP / RATE)]
        probs = np.maximum(scores, 1e-3) / np.maximum(scores, 1e-3).sum(axis=1, keepdims=True)
        return np.log(probs).astype(np.float32)


@pytest.fixture(autouse=True)
def ear(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(align, "load", lambda source, model, device: Ear())


def spoken(sentences: Sequence[str], pause: float = 0.6) -> tuple[np.ndarray, list[tuple[float, float]]]:
    """Return a recording of sentences with pauses, and when each is spoken."""
    parts, bounds, place = [], [], 0.0
    for sentence in sentences:
        parts.append(np.zeros(round(pause * RATE)))
        start = place + pause
        for word in sentence.rstrip(".").split():
            for letter in word:
                parts.append(0.1 * np.sin(2 * np.pi * TONES[letter] * np.arange(5 * HOP) / RATE))
                parts.append(np.zeros(HOP))
            parts.append(np.zeros(2 * HOP))
        place = sum(map(len, parts)) / RATE
        bounds.append((start, place - 0.06))
    samples = np.concatenate([*parts, np.zeros(RATE // 2)])
    return samples + 0.0005 * np.random.default_rng(0).standard_normal(len(samples)), bounds


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join("".join(rng.permutation(list("abcdefgh"))[:4]) for _ in range(3)) + "." for _ in range(count)]


def probed(url: Path) -> pa.Table:
    made = pa.concat_tables([Probe(ProbeSettings(max_duration=1e6))(table) for table in list_sources(str(url))])
    assert made["reject_reason"].null_count == len(made)
    return made.drop_columns("reject_reason")


def written(folder: Path, samples: np.ndarray, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    soundfile.write(folder / "long.flac", samples, RATE)
    (folder / "long.txt").write_text(text)
    return folder


def test_utterances_are_those_of_the_text(tmp_path: Path) -> None:
    said = sentences(6)
    samples, bounds = spoken(said)
    table = probed(written(tmp_path / "raw", samples, "\n".join(said)))
    made = Align(SETTINGS, "")(table)
    rows = made.to_pylist()
    assert [row["text"] for row in rows] == said
    for row, (start, end) in zip(rows, bounds, strict=True):
        assert row["recording_start"] == row["start"] == pytest.approx(start, abs=0.15)
        assert row["start"] + row["length"] == pytest.approx(end, abs=0.15)
        assert row["recording"] == row["parent_id"] == "raw/long.flac"
        assert row["reject_reason"] is None
        assert row["confidence"] > 0.8
        assert row["speech_share"] > 0.7
    declared = Align.stage(SETTINGS).output_schema(table.schema)
    assert set(declared.names) == {*made.column_names} - {"reject_reason"}
    loaded = Load(LoadSettings())(made.drop_columns("reject_reason"))
    assert loaded["reject_reason"].null_count == len(rows)
    assert loaded["text"].to_pylist() == said
    assert set(loaded["label_source"].to_pylist()) == {"gold"}
    assert loaded["confidence"].to_pylist() == made["confidence"].to_pylist()
    assert loaded["duration"].to_pylist() == pytest.approx([row["length"] for row in rows], abs=1e-3)


def test_what_differs_is_rejected_and_the_rest_kept(tmp_path: Path) -> None:
    said = sentences(7, seed=1)
    samples, bounds = spoken(said)
    other = sentences(2, seed=9)
    # The third is missing, one is added, the last is another.
    text = [*said[:2], *said[3:5], other[0], said[5], other[1]]
    rows = Align(SETTINGS, "")(probed(written(tmp_path / "raw", samples, " ".join(text)))).to_pylist()
    kept = {row["text"]: row["start"] for row in rows if row["reject_reason"] is None}
    assert kept == {said[number]: pytest.approx(bounds[number][0], abs=0.15) for number in (0, 1, 3, 4, 5)}
    reasons = [row["reject_reason"] for row in rows]
    assert reasons.count(UNHEARD) + reasons.count(UNSURE) == 2
    unwritten = [row["id"] for row in rows if row["reject_reason"] == UNWRITTEN]
    assert unwritten[0].startswith(f"raw/long.flac@{bounds[2][0]:.1f}"[:-1])
    assert {row["parent_id"] for row in rows} == {"raw/long.flac"}
    assert len({row["id"] for row in rows}) == len(rows)


def test_turns_of_a_manifest_are_aligned_within_themselves(tmp_path: Path) -> None:
    said = sentences(4, seed=2)
    samples, bounds = spoken(said)
    soundfile.write(tmp_path / "a.wav", samples, RATE)
    middle = bounds[2][0] - 0.3
    lines = [
        {"audio_filepath": "a.wav", "offset": 0.0, "duration": middle, "speaker": "ann", "text": " ".join(said[:2])},
        {"audio_filepath": "a.wav", "offset": middle, "duration": 3.0, "speaker": "bob", "text": " ".join(said[2:])},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = Align(SETTINGS, "")(probed(tmp_path / "m.jsonl")).to_pylist()
    kept = [row for row in rows if row["reject_reason"] is None]
    assert [(row["speaker"], row["text"]) for row in kept[:2]] == [("ann", said[0]), ("ann", said[1])]
    assert kept[2]["speaker"] == "bob"
    assert kept[2]["start"] == pytest.approx(bounds[2][0], abs=0.15)


def test_recordings_without_text_or_speech_are_rejects(tmp_path: Path) -> None:
    samples, _ = spoken(sentences(1))
    for name, sound, text in (("a", samples, "123."), ("b", np.zeros(RATE), "abc def."), ("c", samples, "")):
        soundfile.write(tmp_path / f"{name}.wav", sound, RATE)
        (tmp_path / f"{name}.txt").write_text(text)
    rows = Align(SETTINGS, "")(probed(tmp_path)).to_pylist()
    assert [row["reject_reason"] for row in rows] == ["no text", "no speech", "no text"]
    assert [row["parent_id"] for row in rows] == [row["id"] for row in rows]


def test_words_begin_and_end_at_silence() -> None:
    speech = np.repeat([False, True, False, True, False], [10, 30, 20, 30, 10])
    begin, end = np.array([0.4, 0.9, np.nan, 2.0, 2.4]), np.array([0.8, 1.33, np.nan, 2.2, 2.9])
    starts, ends = spoken_times(begin, end, speech)
    assert starts.tolist() == pytest.approx([10 * FRAME_S, 0.9, np.nan, 60 * FRAME_S, 2.4], nan_ok=True)
    assert ends.tolist() == pytest.approx([0.8, 40 * FRAME_S, np.nan, 2.2, 90 * FRAME_S], nan_ok=True)
    none = np.full(2, np.nan)
    assert np.isnan(spoken_times(none, none, speech)[0]).all()
    assert spoken_times(begin, end, np.ones(100, bool))[0][0] == 0.4
