"""Frames of MPEG audio (mp3, mp2) and of AAC streams: what a file without a magic number is recognised by."""

from __future__ import annotations

from typing import BinaryIO, NamedTuple

from gristmill.actors.sources.pointers import TRUNCATED
from gristmill.shards.errors import RejectRecord

_LOOKED_AT = 1 << 16  # bytes in which the first frame begins: writers leave zeros and ends of tags before it
_CHAIN = 3  # frames in a row: one header alone is found in any noise
_KBITS = {  # by (MPEG 1?, layer); ISO/IEC 11172-3, 2.4.2.3 and 13818-3, 2.4.2.3
    (True, 1): (32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448),
    (True, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (True, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (False, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (False, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
    (False, 3): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES = (44100, 48000, 32000)
_AFTER = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # tags that follow the last frame


class Frame(NamedTuple):
    """A frame: ``format`` is mp3 or aac, ``kind`` what all frames of a stream have in common, ``size`` its bytes."""

    format: str
    kind: int
    size: int


def read_frame(head: bytes) -> Frame | None:
    """Return the frame that begins with 6 bytes, if they are such a header.

    Example:
        >>> read_frame(bytes.fromhex("fffb9064 0000"))
        Frame(format='mp3', kind=60, size=417)
    """
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return None
    version, layer, place = head[1] >> 3 & 3, 4 - (head[1] >> 1 & 3), head[2] >> 2 & 3
    if layer == 4:  # none in MPEG audio: the header of AAC (ISO/IEC 13818-7, 6.2)
        size = (head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5
        fits = head[1] & 0xF0 == 0xF0 and size >= 7 and head[2] >> 2 & 15 < 13
        return Frame("aac", head[2] & 0xFC | head[1] & 1, size) if fits else None
    bits = head[2] >> 4
    if version == 1 or bits in (0, 15) or place == 3:
        return None
    rate = _RATES[place] >> {3: 0, 2: 1, 0: 2}[version]
    rate_of_bits = 1000 * _KBITS[version == 3, layer][bits - 1]
    padding = head[2] >> 1 & 1
    if layer == 1:
        size = (12 * rate_of_bits // rate + padding) * 4
    else:
        size = (72 if layer == 3 and version != 3 else 144) * rate_of_bits // rate + padding
    return Frame("mp3", layer << 4 | version << 2 | place, size)


def first_frame(file: BinaryIO, place: int, size: int) -> tuple[int, Frame] | None:
    """Return the first frame of a file of ``size`` bytes from ``place`` on, and its place, if others follow it."""
    file.seek(place)
    head = file.read(_LOOKED_AT)
    at = head.find(b"\xff")
    while at >= 0:
        frame = read_frame(head[at : at + 6])
        if frame is not None and _followed(file, place + at, size, frame):
            return place + at, frame
        at = head.find(b"\xff", at + 1)
    return None


def _followed(file: BinaryIO, place: int, size: int, frame: Frame) -> bool:
    here: Frame | None = frame
    for _ in range(_CHAIN - 1):
        if here is None or here[:2] != frame[:2]:
            return False
        place += here.size
        if place >= size:
            return place == size
        file.seek(place)
        here = read_frame(file.read(6))
    return here is not None and here[:2] == frame[:2]


def declares_length(file: BinaryIO, place: int, size: int, frame: Frame) -> bool:
    """Return whether the first frame is LAME's, with the number of frames and bytes, and the bytes are those there.

    Such a header ("Xing", "Info") is only written where the writer could go back to the begin: not into a pipe. Files
    that were joined have more than the first declares.

    Raises:
        RejectRecord: the file has fewer bytes than declared.
    """
    file.seek(place)
    data = file.read(frame.size)
    at = max(data.find(b"Xing", 0, 64), data.find(b"Info", 0, 64))
    if at < 0 or len(data) < at + 16 or data[at + 7] & 3 != 3:
        return False
    frames, declared = (int.from_bytes(data[i : i + 4], "big") for i in (at + 8, at + 12))
    if not frames or not declared:
        return False
    if size - place < declared - 2 * frame.size:  # some writers count a frame too many
        raise RejectRecord(TRUNCATED)
    file.seek(place + declared)
    after = file.read(11)
    return place + declared == size or (after.startswith(_AFTER) and not _more_follows(file, place + declared, size))


def _more_follows(file: BinaryIO, place: int, size: int) -> bool:
    """Return whether frames follow the tags at a place."""
    return first_frame(file, place, size) is not None
