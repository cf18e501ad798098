"""A signal that arrives while a library calls back for bytes is not lost, and makes no good file a bad one."""

from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile

from gristmill.actors import audio
from gristmill.actors.sources.decoders import open_sound
from gristmill.actors.sources.sounds import FFmpegSound, SndfileSound
from gristmill.shards.errors import RejectRecord
from tests.actors.sources.encode import encoded, tone

FLAC, MP4 = audio.encode(tone(2.0, 16000), 16000), encoded("mp4", "aac", 2.0)


class Signals(io.BytesIO):
    """A file that sends a signal to its own process at the n-th call of a method."""

    method, calls = "", 0

    def _called(self, name: str) -> None:
        if name == type(self).method:
            type(self).calls -= 1
            if type(self).calls == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    def tell(self) -> int:
        self._called("tell")
        return super().tell()

    def seek(self, *place: int) -> int:
        self._called("seek")
        return super().seek(*place)

    def read(self, size: int | None = -1) -> bytes:
        self._called("read")
        return super().read(size)

    def readinto(self, buffer: Any) -> int:
        self._called("read")
        return super().readinto(buffer)

    def write(self, data: Any) -> int:
        self._called("write")
        return super().write(data)


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    yield
    signal.signal(signal.SIGTERM, before)


def arm(method: str, calls: int) -> None:
    Signals.method, Signals.calls = method, calls


CALLS = [(method, calls) for method in ("tell", "seek", "read") for calls in range(1, 12)]


@pytest.mark.parametrize(("method", "calls"), CALLS)
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_within_decode_arrives(method: str, calls: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.io, "BytesIO", Signals)
    arm(method, calls)
    try:
        samples, _ = audio.decode(FLAC)
    except KeyboardInterrupt:
        assert Signals.calls <= 0
    else:
        assert Signals.calls > 0  # it was not called so often
        assert len(samples) == 32000


@pytest.mark.parametrize(("method", "calls"), CALLS)
@pytest.mark.parametrize(("data", "kind"), [(FLAC, SndfileSound), (MP4, FFmpegSound)], ids=["sndfile", "ffmpeg"])
@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_within_an_open_file_arrives(data: bytes, kind: type, method: str, calls: int) -> None:
    file = Signals(data)
    arm(method, calls)
    try:
        sound = open_sound(file, len(data))
        assert isinstance(sound, kind)
        assert len(sound.read(1000)) == 1000
        sound.seek(20000)
        assert len(sound.read(1000)) == 1000
    except KeyboardInterrupt:
        assert Signals.calls <= 0
    else:
        assert Signals.calls > 0


def test_a_signal_within_encode_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio.io, "BytesIO", Signals)
    for encode in (audio.encode, audio.encode_opus):
        arm("write", 1)
        with pytest.raises(KeyboardInterrupt):
            encode(np.zeros(16000, np.float32), 16000)


def test_bytes_that_are_no_audio_are_still_refused() -> None:
    with pytest.raises(ValueError, match="audio cannot be decoded"):
        audio.decode(b"none" * 100)
    with pytest.raises(RejectRecord):
        open_sound(io.BytesIO(b"none" * 100), 400)
    assert soundfile.info(io.BytesIO(FLAC)).frames == 32000
