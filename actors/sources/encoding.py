"""Texts in other encodings than UTF-8, told by how a file begins."""

from __future__ import annotations

from gristmill.actors.sources.reading import opened
from gristmill.actors.sources.unlisted import OTHER_ENCODING, FileFault
from gristmill.shards.errors import RejectRecord

TEXT_ENCODING = "text: other encoding"  # the reject reason of a record whose text is not UTF-8

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
    """Raise a :class:`FileFault` for a file that begins with the mark of UTF-16 or UTF-32."""
    with opened(file) as raw:
        begin = raw.read(4)
    for mark, name in _WIDE:
        if begin.startswith(mark):
            raise FileFault(file, OTHER_ENCODING, f"its text is {name}; expected UTF-8")
