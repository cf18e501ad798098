"""Audio whose header, channels or container ask for far more memory than its samples: limits, and pieces."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from gristmill.actors import audio
from gristmill.actors.sources import pointers, sounds
from gristmill.actors.sources.pointers import MALFORMED, OVERSIZED, TOO_LARGE, TOO_LONG
from gristmill.actors.sources.speech import list_sources
from gristmill.actors.speech.ingest import Probe, ProbeSettings, read_audio

FORMATS = [("WAV", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS")]


def encoded(kind: str = "FLAC", subtype: str | None = "PCM_16", channels: int = 2, frames: int = 24000) -> bytes:
    out = io.BytesIO()
    noise = np.random.default_rng(1).normal(size=(frames, channels)).clip(-1, 1) * 0.5
    soundfile.write(out, noise, 16000, format=kind, subtype=subtype)
    return out.getvalue()


@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_pieces_give_the_samples_of_the_whole(kind: str, subtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(kind, subtype)
    whole, rate = soundfile.read(io.BytesIO(data), dtype="float32", always_2d=True)
    monkeypatch.setattr(audio, "_PIECE", 999)
    samples, given = audio.decode(data)
    assert given == rate
    assert np.array_equal(samples, whole.mean(axis=1, dtype=np.float32))


def declaring(frames: int) -> bytes:
    """FLAC of a second that declares other frames in its header."""
    data = bytearray(encoded(channels=1, frames=16000))
    (tail,) = struct.unpack(">Q", data[18:26])
    data[18:26] = struct.pack(">Q", tail >> 36 << 36 | frames)
    return bytes(data)


def test_frames_that_a_header_declares_are_not_allocated() -> None:
    tracemalloc.start()
    try:
        for frames in (audio.MOST_FRAMES + 1, (1 << 36) - 1):
            with pytest.raises(ValueError, match="audio of more than 268435456 frames"):
                audio.decode(declaring(frames))
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


def test_many_channels_are_held_for_a_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded("WAV", "PCM_U8", channels=256, frames=100_000)
    monkeypatch.setattr(audio, "_PIECE", 1 << 20)
    tracemalloc.start()
    try:
        samples, _ = audio.decode(data)
        assert tracemalloc.get_traced_memory()[1] < 32 << 20  # as samples it is 102 MB
    finally:
        tracemalloc.stop()
    assert len(samples) == 100_000


def test_a_segment_of_more_samples_than_are_decoded_at_once_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.flac").write_bytes(encoded(frames=16000))
    (table,) = list_sources(str(tmp_path))
    monkeypatch.setattr(sounds, "MOST_FRAMES", 15999)
    assert read_audio([table.to_pylist()[0] | {"size": None}]) == [TOO_LONG]


def test_a_file_far_larger_than_its_audio_is_rejected_by_its_header(tmp_path: Path) -> None:
    """Whole files are held in memory to be decoded: here a second of audio, and a hole of 200 MB behind it."""
    path = tmp_path / "a.wav"
    path.write_bytes(encoded("WAV", channels=1, frames=16000))
    with path.open("r+b") as out:
        out.truncate(200 << 20)
    (table,) = list_sources(str(tmp_path))
    assert Probe(ProbeSettings())(table)["reject_reason"].to_pylist() == [OVERSIZED]


@pytest.mark.parametrize("labels", [b"a" * 300, b"[" * 200_000])
def test_labels_larger_or_deeper_than_any_are_malformed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labels: bytes
) -> None:
    if len(labels) == 300:
        monkeypatch.setattr(pointers, "_LABEL_BYTES", 299)
    sound = encoded(channels=1, frames=16000)
    good = json.dumps({"text": "on"}).encode()
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, data in (("a.flac", sound), ("a.json", labels), ("b.flac", sound), ("b.json", good)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    (table,) = list_sources(str(tmp_path / "a.tar"))
    probed = Probe(ProbeSettings())(table)
    reason = TOO_LARGE if len(labels) == 300 else MALFORMED
    assert probed["reject_reason"].to_pylist() == [reason, None]
    assert probed["text"].to_pylist() == [None, "on"]
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "a.flac").write_bytes(sound)
    (folder / "a.txt").write_bytes(labels)
    (table,) = list_sources(str(folder))
    wanted = [TOO_LARGE] if len(labels) == 300 else [None]
    assert Probe(ProbeSettings())(table)["reject_reason"].to_pylist() == wanted
