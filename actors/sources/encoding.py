"""Texts in other encodings than UTF-8, told by how a file begins."""

from __future__ import annotations

from gristmill.actors.sources.reading import opened
from gristmill.actors.sources.unlisted import OTHER_ENCODING, UNREADABLE, FileFault
from gristmill.shards.errors import RejectRecord

TEXT_ENCODING = "text: other encoding"  # the reject reason of a record whose text is not UTF-8

_LOOKED_AT = 64 << 10  # bytes
_NULS = 20  # a text of which more than one in so many bytes is zero, all at even or at odd places, is no UTF-8
_GZIP = b"\x1f\x8b"
_WIDE = (
    (b"\xff\xfe\0\0", "UTF-32"),
    (b"\0\0\xfe\xff", "UTF-32"),
    (b"\xff\xfe", "UTF-16"),
    (b"\xfe\xff", "UTF-16"),
)


def read_text(data: bytes) -> str:
    """Return the text of a small file, which is UTF-8 with or without a mark.

    Raises:
        RejectRecord: it is of another encoding.
    """
    if any(data.startswith(mark) for mark, _ in _WIDE):
        raise RejectRecord(TEXT_ENCODING)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RejectRecord(TEXT_ENCODING) from None


def refuse_wide(file: str) -> None:
    """Refuse a file whose text or lines are not what readers of lines expect.

    Raises:
        FileFault: it begins like UTF-16 or UTF-32, with a mark or without, or its lines end in CR alone.
    """
    with opened(file) as raw:
        begin = raw.read(_LOOKED_AT)
    if begin.startswith(_GZIP):
        return
    for mark, name in _WIDE:
        if begin.startswith(mark):
            raise FileFault(file, OTHER_ENCODING, f"its text is {name}; expected UTF-8")
    if any(begin[side::2].count(0) > len(begin) // _NULS for side in (0, 1)):
        raise FileFault(file, OTHER_ENCODING, "its text is UTF-16 without a mark; expected UTF-8")
    if b"\r" in begin.rstrip() and b"\n" not in begin:
        raise FileFault(file, UNREADABLE, "its lines end in CR alone; expected LF, or CR and LF")
