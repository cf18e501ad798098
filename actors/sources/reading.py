"""Reading of source files: bytes whose storage is asked again when it fails, and lines of bounded length.

A fault of storage is a :class:`UserError`; a fault of the file is a :class:`FileFault` or any other exception of its
decoder. No read allocates more than the file holds.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, TypeVar

from gristmill.actors.sources.unlisted import MISSING, TOO_LARGE, TRUNCATED, UNREADABLE, FileFault
from gristmill.shards import store
from gristmill.shards.errors import GristmillError, RejectRecord, UserError, one_line

LINE_BYTES = 8 << 20
"""Bytes of a line with its end; longer ones are rejected. Parsed as JSON, a line takes up to 25 times its size."""
LONG_LINE = "line too long"
NO_OBJECT = "malformed record"  # the reason of a record that is no JSON object
BLOCK = 1 << 20
_RATIO = 200  # of a gzip file; text of repeated lines seldom reaches 100
_RATIO_FROM = 64 << 20  # decompressed bytes

T = TypeVar("T")


class SizedFile(io.RawIOBase):
    """A file of known size that is open for reading: a read past the end is cut short.

    Subclasses set ``size`` (bytes) and read in :meth:`_at`.
    """

    size: int
    _place = 0

    @abstractmethod
    def _at(self, place: int, count: int) -> bytes:
        """Return ``count`` bytes from a place; all are there."""

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def seekable(self) -> bool:
        """Return ``True``."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self.size}[whence]
        self._place = max(0, base + offset)
        return self._place

    def tell(self) -> int:
        """Return the position."""
        return self._place

    def read(self, count: int | None = -1) -> bytes:
        """Return at most ``count`` bytes, those to the end by default."""
        left = max(0, self.size - self._place)
        count = left if count is None or count < 0 else min(count, left)
        data = self._at(self._place, count) if count else b""
        self._place += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class SourceFile(SizedFile):
    """A file of a corpus: a read that the storage fails is tried again."""

    def __init__(self, url: str, file: BinaryIO) -> None:
        self.url, self._file = url, file
        self.size = _asked(url, lambda: file.seek(0, io.SEEK_END))

    def _at(self, place: int, count: int) -> bytes:
        def read() -> bytes:
            self._file.seek(place)
            return self._file.read(count)

        return _asked(self.url, read)

    def close(self) -> None:
        """Close the file."""
        if not self.closed:
            self._file.close()
        super().close()


def opened(url: str, block: int | None = None) -> SourceFile:
    """Open a file; ``block`` is the minimum number of bytes per request to remote storage.

    Raises:
        FileFault: there is no such file, or this one cannot be opened.
        UserError: the storage cannot be reached, or refuses access.
    """
    fs, path = store.filesystem(url)
    if store.is_local(url) and os.path.exists(path) and not os.path.isfile(path):  # a pipe would be waited for
        raise FileFault(url, UNREADABLE, "not a regular file; expected one")
    how = {} if block is None else {"block_size": block}
    return SourceFile(url, _asked(url, lambda: fs.open(path, "rb", **how)))


def _asked(url: str, act: Callable[[], T]) -> T:
    """Return what the storage answers, in time."""
    try:
        return store.patiently(url, act)
    except (FileNotFoundError, NotADirectoryError):
        raise FileFault(url, MISSING, "no such file; expected it to be there while it is listed") from None
    except (GristmillError, OSError, ValueError) as error:  # ValueError: NUL in a path
        said = one_line(error).removeprefix(f"{url}: ")
        if store.is_local(url):
            raise FileFault(url, UNREADABLE, f"cannot be read: {said}") from None
        if isinstance(error, GristmillError):
            raise
        raise UserError(f"{url}: cannot be read: {said}") from None


def read_document(url: str, most: int) -> bytes:
    """Return the bytes of a file that has to be held in memory, if they are at most ``most``."""
    with opened(url) as file:
        if file.size > most:
            raise FileFault(url, TOO_LARGE, f"{file.size} bytes; expected at most {most} in a file of this kind")
        return file.read()


def read_json(text: str) -> Any:
    """Return the value of JSON; halves of surrogate pairs, which no table can hold, are a ``ValueError`` too."""
    value = json.loads(text)
    if "\\ud" in text.lower():
        json.dumps(value, ensure_ascii=False).encode()
    return value


def read_object(text: str | None) -> dict[str, Any]:
    """Return the values of a JSON object.

    Raises:
        RejectRecord: it is none.
    """
    try:
        values = read_json(text or "")
    except (ValueError, RecursionError):
        raise RejectRecord(NO_OBJECT) from None
    if not isinstance(values, dict):
        raise RejectRecord(NO_OBJECT)
    return values


def lines(url: str) -> Iterator[tuple[int, bytes]]:
    """Yield the non-blank lines of a file with their numbers; ``.gz`` is decompressed."""
    return ((number, line) for number, line in enumerate(all_lines(url), 1) if line.strip())


def all_lines(url: str) -> Iterator[bytes]:
    """Yield all lines of a file, including blank ones; ``.gz`` is decompressed.

    Of a line longer than ``LINE_BYTES`` only the begin is yielded, of one byte more.

    Raises:
        FileFault: a ``.gz`` file cannot be decompressed to its end, or expands to far more than text would.
    """
    with unpacked(url) as file:
        yield from _cut(file)


@contextlib.contextmanager
def unpacked(url: str) -> Iterator[io.BufferedIOBase]:
    """Open a file for reading from its begin to its end; ``.gz`` is decompressed.

    Raises:
        FileFault: a ``.gz`` file cannot be decompressed to its end, or expands to far more than text would.
    """
    with opened(url) as raw:
        if not store.bare(url).lower().endswith(".gz"):
            yield io.BufferedReader(raw, BLOCK)
            return
        _check_gzip(raw)
        raw.seek(0)
        try:
            with gzip.GzipFile(fileobj=raw) as file:
                yield file
        except EOFError as error:
            raise FileFault(url, TRUNCATED, _gzip_fault(error)) from None


def _cut(file: Any) -> Iterator[bytes]:
    while line := file.readline(LINE_BYTES + 1):
        if len(line) > LINE_BYTES and not line.endswith(b"\n"):
            while (rest := file.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
        yield line


def _check_gzip(raw: SourceFile) -> None:
    """Raise for a damaged file before any of its lines is used: its checksum comes last.

    One that is only cut off is listed to where it ends.
    """
    total = 0
    try:
        with gzip.GzipFile(fileobj=raw) as file:
            while piece := file.read(BLOCK):
                total += len(piece)
                if total > _RATIO_FROM and total > _RATIO * raw.tell():
                    raise FileFault(raw.url, TOO_LARGE, f"expands more than {_RATIO} times; expected text")
    except EOFError:
        return
    except (gzip.BadGzipFile, zlib.error) as error:
        raise FileFault(raw.url, UNREADABLE, _gzip_fault(error)) from None


def _gzip_fault(error: Exception) -> str:
    return f"cannot be decompressed ({one_line(error)}); expected a complete gzip file"
