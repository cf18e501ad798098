"""What an audio file is, by its first bytes, and whether its header proves how long it is. No samples are decoded."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from gristmill.actors.sources.mpeg import Frame, declares_length, first_frame
from gristmill.actors.sources.pointers import SEVERAL_RECORDINGS, TRUNCATED
from gristmill.shards.errors import RejectRecord

_HEADER_OVER = 44  # bytes: what writers that count their header in declare too much, and no loss if it were one
_CHUNKS = 4096  # at most, of a file
_W64_DATA = b"data" + bytes.fromhex("f3acd3118cd100c04f8edb8a")
_SNDFILE_CODINGS = (1, 2, 3, 6, 7, 17, 20, 49, 64, 0xFFFE)  # format tags of WAV that libsndfile decodes
_MP3_FORMAT = struct.Struct("<HHIIHHHHIHHH")  # Windows' MPEGLAYER3WAVEFORMAT, which ends with the delay
_MP3_IN_WAV = b"\x55\0"
_SPHERE_BYTES = 1 << 16  # of a header, at most
_QUICKTIME = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")
_ASF_PROPERTIES, _ASF_HEADER = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365"), 1 << 16
_MAGIC = {
    b"fLaC": "flac",
    b"OggS": "ogg",
    b"RF64": "wav",
    b"BW64": "wav",
    b"riff\x2e\x91\xcf\x11": "w64",
    b".snd": "au",
    b"caff": "caf",
    b"NIST_1A\n": "sphere",
    b"\x1a\x45\xdf\xa3": "matroska",
    bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"): "asf",
    b"#!AMR": "amr",
}
_KINDS = {
    (b"RIFF", b"WAVE"): "wav",
    (b"RIFX", b"WAVE"): "wav",
    (b"RIFF", b"AVI "): "avi",
    (b"FORM", b"AIFF"): "aiff",
    (b"FORM", b"AIFC"): "aiff",
}
_FIRST = (b"RIFF", b"RIFX", b"RF64", b"FORM", b".snd")  # bytes of a file that was appended to another


class Container(NamedTuple):
    """A file's kind (a name in :data:`gristmill.actors.sources.decoders.FORMATS`), and the place where it begins."""

    format: str
    place: int
    frame: Frame | None = None  # of MPEG audio and AAC: the first


class Proof(NamedTuple):
    """What a header proves, or would if it said ``data`` at ``place``: the length that the writer left open."""

    place: int = 0
    data: bytes = b""


class _Extent(NamedTuple):
    """Where a header says that the samples begin, and how many bytes they have; ``None``: all to the end."""

    begin: int
    declared: int | None
    field: str = ""  # layout of the length in the header, if it lies ``before`` bytes before the samples
    before: int = 0
    more: int = 0  # what that length counts beside the samples
    plain: bool = True  # whether libsndfile has a decoder for them


def identify(file: BinaryIO, size: int) -> Container | None:
    """Return what a file of ``size`` bytes is, if that is known. Tags in front of it (ID3v2) are passed over."""
    place = _after_tags(file, size)
    head = _read(file, place, 16)
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return Container(name, place)
    kind = _KINDS.get((head[:4], head[8:12]))
    if kind is not None:
        return Container(kind, place)
    if head[4:8] in _QUICKTIME:
        return Container("mp4", place)
    found = first_frame(file, place, size)
    return None if found is None else Container(found[1].format, *found)


def prove(file: BinaryIO, size: int, found: Container) -> Proof | None:
    """Return how libsndfile is sure to read a file whole; ``None``: only FFmpeg is, or has a decoder for it.

    Raises:
        RejectRecord: the file is shorter than its header declares, or others follow it.
    """
    if found.format == "mp3" and found.frame is not None:
        return Proof() if declares_length(file, found.place, size, found.frame) else None
    if found.format == "flac":
        return Proof() if found.place == 0 and _flac_declares(file, size) else None
    if found.format == "ogg":
        return Proof() if _is_one_stream(file, found.place, size) else None
    if found.format in _IS_CUT:
        if _IS_CUT[found.format](file, size):
            raise RejectRecord(TRUNCATED)
        return None
    extent_of = _EXTENTS.get(found.format)
    extent = extent_of(file, size) if extent_of and found.place == 0 else None
    return None if extent is None else _prove(file, extent, size)


def codec_delay(file: BinaryIO, size: int, found: Container) -> int:
    """Return the frames before the first sample that its encoder put there, as the header of mp3 in WAV tells them."""
    if found.format != "wav":
        return 0
    for name, place, length in _chunks(file, size, 12, "<4sI"):
        if name == b"fmt ":
            head = _read(file, place, _MP3_FORMAT.size)
            fits = length >= len(head) == _MP3_FORMAT.size and head.startswith(_MP3_IN_WAV)
            return int(_MP3_FORMAT.unpack(head)[-1]) if fits else 0
    return 0


def _read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(min(place, 1 << 62))  # places are made of what headers declare
    return file.read(count)


def _after_tags(file: BinaryIO, size: int) -> int:
    place = 0
    while (head := _read(file, place, 10))[:3] == b"ID3" and len(head) == 10:
        length = 0
        for byte in head[6:]:
            length = length << 7 | byte & 127
        place = min(size, place + 10 + length + (10 if head[5] & 16 else 0))
    return place


def _prove(file: BinaryIO, extent: _Extent, size: int) -> Proof | None:
    declared, left = extent.declared, size - extent.begin
    if declared is not None and declared > left + _HEADER_OVER and declared != size:
        raise RejectRecord(TRUNCATED)
    if declared and _read(file, extent.begin + declared + declared % 2, 4) in _FIRST:
        raise RejectRecord(SEVERAL_RECORDINGS)
    if not extent.plain:
        return None
    if (declared is None or declared > left or (declared == 0 and left > 0)) and extent.field:
        most = (1 << 8 * struct.calcsize(extent.field) - 1) - 1
        length = struct.pack(extent.field, max(0, min(most, left + extent.more)))
        return Proof(extent.begin - extent.before, length)
    return Proof()


def _bounded(length: int) -> int | None:
    """Return a 32-bit length, unless it is one that writers into a pipe leave: the largest, rounded to whole frames."""
    return None if length & 0x7FFFFFFF >= 0x7FFFE000 or length == 1 << 31 else length


def _chunks(file: BinaryIO, size: int, place: int, layout: str) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, place of the content and length of each chunk."""
    head = struct.calcsize(layout)
    for _ in range(_CHUNKS):
        if place + head > size:
            return
        name, length = struct.unpack(layout, _read(file, place, head))
        yield name, place + head, length
        if length < 0:
            return
        place += head + length + (length % 2 if head == 8 else 0)


def _wav(file: BinaryIO, size: int) -> _Extent | None:
    """RIFF, RIFX and RF64 (EBU Tech 3306, where a chunk of its own has the lengths)."""
    order = ">" if _read(file, 0, 4) == b"RIFX" else "<"
    coding, long = 0, None
    for name, place, length in _chunks(file, size, 12, order + "4sI"):
        if name == b"fmt ":
            coding = int.from_bytes(_read(file, place, 2), "big" if order == ">" else "little")
        elif name == b"ds64":
            long = int.from_bytes(_read(file, place + 8, 8), "little")
        elif name == b"data":
            declared = _bounded(length) if long is None or length != 0xFFFFFFFF else _bounded(long)
            if declared == 0 and _is_chunk(file, place, size):
                return _Extent(size, 0)  # a file without samples
            field = "" if long is not None else order + "I"
            return _Extent(place, declared, field, 4, 0, coding in _SNDFILE_CODINGS)
    return None


def _is_chunk(file: BinaryIO, place: int, size: int) -> bool:
    """Return whether chunks, and not samples, are at a place, to the end of the file."""
    end = place
    for name, begin, length in _chunks(file, size, place, "<4sI"):
        if not name.isalnum() and not name.strip(b" ").isalnum():
            return False
        end = begin + length + length % 2
    return place < end <= size + 1 and end >= size - 1


def _w64(file: BinaryIO, size: int) -> _Extent | None:
    place = 40
    for _ in range(_CHUNKS):
        head = _read(file, place, 24)
        if len(head) < 24:
            return None
        length = int.from_bytes(head[16:], "little")  # with this header
        if head[:16] == _W64_DATA:
            return _Extent(place + 24, max(0, length - 24) if length < 1 << 62 else None, "<q", 8, 24)
        place += max(24, length + -length % 8)
    return None


def _aiff(file: BinaryIO, size: int) -> _Extent | None:
    for name, place, length in _chunks(file, size, 12, ">4sI"):
        if name == b"SSND":
            declared = _bounded(length)
            return _Extent(place + 8, None if declared is None else max(0, declared - 8), ">I", 12, 8)
    return None


def _caf(file: BinaryIO, size: int) -> _Extent | None:
    coding = b""
    for name, place, length in _chunks(file, size, 8, ">4sq"):
        if name == b"desc":
            coding = _read(file, place + 8, 4)
        elif name == b"data":
            declared = None if length < 0 else max(0, length - 4)
            return _Extent(place + 4, declared, ">q", 12, 4, coding in (b"lpcm", b"alaw", b"ulaw", b"alac"))
    return None


def _au(file: BinaryIO, size: int) -> _Extent | None:
    begin, length = struct.unpack(">II", _read(file, 4, 8).ljust(8, b"\0"))
    return _Extent(begin, _bounded(length), ">I", begin - 8)


def _sphere(file: BinaryIO, size: int) -> _Extent | None:
    """NIST's SPHERE: lines of ``name -type value``. Samples that "shorten" packed are decoded by neither decoder."""
    lines = _read(file, 0, 16).split(b"\n")
    length = int(lines[1]) if lines[1].strip().isdigit() else 1024
    fields = [line.split(None, 2) for line in _read(file, 0, min(length, _SPHERE_BYTES)).split(b"\n")]
    values = {field[0]: field[2] for field in fields if len(field) == 3}
    try:
        frame = int(values[b"sample_n_bytes"]) * int(values.get(b"channel_count", 1))
        declared = int(values[b"sample_count"]) * frame
    except (KeyError, ValueError):
        return None
    return _Extent(length, declared, plain=b"shorten" not in values.get(b"sample_coding", b""))


def _mp4_is_cut(file: BinaryIO, size: int) -> bool:
    """Return whether the box of the samples or of their index extends past the end (ISO/IEC 14496-12, 4.2)."""
    place, found = 0, False
    for _ in range(_CHUNKS):
        head = _read(file, place, 16)
        if len(head) < 8:
            break
        length, name = int.from_bytes(head[:4], "big"), head[4:8]
        found = found or name == b"moov"
        place += max(8, int.from_bytes(head[8:16], "big") if length == 1 else length or size - place)
        if place > size and name in (b"moov", b"mdat", b"moof"):
            return True
    return not found


def _matroska_is_cut(file: BinaryIO, size: int) -> bool:
    """Return whether the segment extends past the end (RFC 8794, 5 and 6); a live one has no length."""
    place = 4
    for is_segment in (False, True):
        if is_segment:
            place += 4
        first = _read(file, place, 1)
        if not first or not first[0]:
            return True
        width = 9 - first[0].bit_length()
        number = int.from_bytes(_read(file, place, width), "big") & ((1 << 7 * width) - 1)
        if is_segment:
            return number != (1 << 7 * width) - 1 and place + width + number > size
        place += width + number
    return False


def _asf_is_cut(file: BinaryIO, size: int) -> bool:
    head = _read(file, 0, _ASF_HEADER)
    at = head.find(_ASF_PROPERTIES)
    if at < 0 or at + 92 > len(head):
        return True
    return not head[at + 88] & 1 and int.from_bytes(head[at + 40 : at + 48], "little") > size  # not a broadcast


def _avi_is_cut(file: BinaryIO, size: int) -> bool:
    length = _bounded(int.from_bytes(_read(file, 4, 4), "little"))
    return length is not None and length + 8 > size


def _flac_declares(file: BinaryIO, size: int) -> bool:
    info = _read(file, 8, 18)  # STREAMINFO (RFC 9639, 8.2)
    longest_block = int.from_bytes(info[2:4], "big")
    smallest_frame = int.from_bytes(info[4:7], "big")  # 0: unknown
    frames = int.from_bytes(info[13:18], "big") & ((1 << 36) - 1)
    if longest_block and frames // longest_block * smallest_frame > size:
        raise RejectRecord(TRUNCATED)
    return frames > 0 or len(info) < 18


def _is_one_stream(file: BinaryIO, place: int, size: int) -> bool:
    """Return whether Ogg holds one stream from its first page to the one with the end flag (RFC 3533).

    Streams may follow one another (chained) or be interleaved, and libsndfile reads the first one only.
    """
    serials, last = set(), 0
    first = place
    while place < size:
        head = _read(file, place, 27)
        if len(head) < 27:
            raise RejectRecord(TRUNCATED)
        if head[:4] != b"OggS":
            return False
        table = file.read(head[26])
        if place == first:
            codec = file.read(8)
        end = place + 27 + head[26] + sum(table)
        if len(table) < head[26] or end > size:
            raise RejectRecord(TRUNCATED)
        begins = bool(head[5] & 2)
        if begins and place != first:
            return False
        serials.add(head[14:18])
        last, place = head[5], end
    return bool(last & 4) and len(serials) == 1 and codec.startswith((b"\x01vorbis", b"OpusHead", b"\x7fFLAC"))


_IS_CUT = {"mp4": _mp4_is_cut, "matroska": _matroska_is_cut, "asf": _asf_is_cut, "avi": _avi_is_cut}
_EXTENTS: dict[str, Callable[[BinaryIO, int], _Extent | None]] = {
    "wav": _wav,
    "w64": _w64,
    "aiff": _aiff,
    "caf": _caf,
    "au": _au,
    "sphere": _sphere,
}
