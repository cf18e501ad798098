"""Headers of audio files, and a check that the file is as long as its header declares. No samples are decoded."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import soundfile

from gristmill.actors.sources.pointers import EMPTY, TRUNCATED, UNREADABLE, Watched
from gristmill.shards.errors import RejectRecord

_TAIL = 1 << 16  # no Ogg page is longer (RFC 3533)


@dataclass(frozen=True)
class Header:
    """The declared format of an audio file."""

    rate: int  # Hz
    frames: int
    channels: int

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames / self.rate


@contextlib.contextmanager
def opened(file: BinaryIO) -> Iterator[soundfile.SoundFile]:
    """Open an audio file; if storage fails while it is read, that error is raised instead of the decoder's."""
    watched = Watched(file)
    file.seek(0)
    try:
        with soundfile.SoundFile(watched) as sound:
            yield sound
    finally:
        if watched.error is not None:
            raise watched.error


def read_header(file: BinaryIO, size: int) -> Header:
    """Return the header of an audio file of ``size`` bytes, or raise :class:`RejectRecord`.

    Truncation is detected for WAV and AIFF whose samples, FLAC whose smallest possible frames and Ogg whose last page
    extend past the end of the file. Damage that only decoding shows (within a FLAC, an MP3) is left to the loader.
    """
    if size == 0:
        raise RejectRecord(EMPTY)
    start = _read(file, 0, 4)
    try:
        with opened(file) as sound:
            header = Header(int(sound.samplerate), int(sound.frames), int(sound.channels))
    except soundfile.LibsndfileError:
        # A file that starts like audio and ends within its header is truncated, not some other format.
        cut = start in (b"RIFF", b"fLaC", b"OggS") and size < 128
        raise RejectRecord(TRUNCATED if cut else UNREADABLE) from None
    is_cut = {b"RIFF": _chunks_are_cut, b"FORM": _chunks_are_cut, b"fLaC": _flac_is_cut, b"OggS": _ogg_is_cut}.get(
        start
    )
    if is_cut is not None and is_cut(file, size):
        raise RejectRecord(TRUNCATED)
    if header.frames <= 0 or header.rate <= 0:
        raise RejectRecord(EMPTY)
    return header


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _chunks_are_cut(file: BinaryIO, size: int) -> bool:
    """Return whether the sample chunk of a WAV or AIFF extends past the end of the file."""
    order = "<4sI" if _read(file, 0, 4) == b"RIFF" else ">4sI"
    place = 12
    while place + 8 <= size:
        name, length = struct.unpack(order, _read(file, place, 8))
        if name in (b"data", b"SSND"):
            # Writers to a pipe do not know the length and leave it at its maximum.
            return length < 0x7FFFF000 and place + 8 + length > size
        place += 8 + length + length % 2
    return False


def _flac_is_cut(file: BinaryIO, size: int) -> bool:
    info = _read(file, 8, 18)  # STREAMINFO (RFC 9639, 8.2)
    longest_block = int.from_bytes(info[2:4], "big")
    smallest_frame = int.from_bytes(info[4:7], "big")  # 0: unknown
    frames = int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)
    return longest_block > 0 and frames // longest_block * smallest_frame > size


def _ogg_is_cut(file: BinaryIO, size: int) -> bool:
    tail = _read(file, max(0, size - _TAIL), _TAIL)
    place = tail.rfind(b"OggS")
    if place < 0 or place + 27 > len(tail):
        return True
    segments = tail[place + 26]
    table = tail[place + 27 : place + 27 + segments]
    return len(table) < segments or place + 27 + segments + sum(table) > len(tail)
