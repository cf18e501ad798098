"""Texts in other encodings than UTF-8, told by how a file begins."""

from __future__ import annotations

import codecs
import contextlib
import json

from gristmill.actors.sources.reading import SourceFile, opened
from gristmill.actors.sources.unlisted import OTHER_ENCODING, UNREADABLE, FileFault
from gristmill.shards.errors import RejectRecord
from gristmill.shards.store import bare

TEXT_ENCODING = "text: other encoding"  # the reject reason of a record whose text is not UTF-8

_LOOKED_AT = 64 << 10  # bytes
_NULS = 20  # a text of which more than one in so many bytes is zero, all at even or at odd places, is no UTF-8
_PACKED = {b"\x1f\x8b": "gzip", b"PK\x03\x04": "zip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
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
    if any(data.startswith(mark) for mark, _ in _WIDE) or b"\0" in data:  # of wide letters without a mark, too
        raise RejectRecord(TEXT_ENCODING)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise RejectRecord(TEXT_ENCODING) from None


def refuse_wide(file: str, *, document: bool = False) -> None:
    """Refuse a file whose text or lines are not what readers of lines, or of a ``document`` of JSON, expect.

    Raises:
        FileFault: it begins like UTF-16 or UTF-32, with a mark or without, or it is compressed without a name that says
            so; or, unless it is a document, its lines end in CR alone or are one JSON array.
    """
    name = bare(file).lower()
    with opened(file) as raw:
        if name.endswith(".gz"):
            return
        refuse_packed(raw)
        begin = raw.read(_LOOKED_AT)
    for mark, encoding in _WIDE:
        if begin.startswith(mark):
            raise FileFault(file, OTHER_ENCODING, f"its text is {encoding}; expected UTF-8")
    if any(begin[side::2].count(0) > max(1, len(begin) // _NULS) for side in (0, 1)):
        raise FileFault(file, OTHER_ENCODING, "its text is UTF-16 without a mark; expected UTF-8")
    if document:
        return
    if b"\r" in begin.rstrip() and b"\n" not in begin:
        raise FileFault(file, UNREADABLE, "its lines end in CR alone; expected LF, or CR and LF")
    if name.endswith((".jsonl", ".json")) and _is_array(begin):
        said = "one JSON array; expected an object on each line, as `jq -c '.[]'` writes them"
        raise FileFault(file, UNREADABLE, said)


def _is_array(begin: bytes) -> bool:
    """Return whether a file begins with a JSON array, and none of its lines is an object."""
    if not begin.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        return False
    for line in begin.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            if isinstance(json.loads(line), dict):
                return False
    return True


def refuse_packed(file: SourceFile) -> None:
    """Refuse a file that is compressed, though its name does not say so; its place is the begin then.

    Raises:
        FileFault: it is.
    """
    file.seek(0)
    begin = file.read(max(map(len, _PACKED)))
    file.seek(0)
    for mark, kind in _PACKED.items():
        if begin.startswith(mark):
            raise FileFault(file.url, UNREADABLE, f"compressed by {kind}, though its name is of another kind of file")
