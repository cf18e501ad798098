"""Pointers to the bytes of records: their columns, the reject reasons, and the reader."""

from __future__ import annotations

import hashlib
import io
import json
import math
import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import pyarrow as pa

from gristmill.actors.sources.arrow import SUFFIX, ArrowColumns
from gristmill.actors.sources.columns import GroupRows, OtherEncoding, Parquet
from gristmill.actors.sources.encoding import TEXT_ENCODING, read_text
from gristmill.actors.sources.features import ClassNames
from gristmill.actors.sources.reading import SizedFile, SourceFile, opened
from gristmill.actors.sources.unlisted import MISSING, TOO_LARGE, TRUNCATED, UNREADABLE, FileFault
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.interrupts import let_in
from gristmill.shards.schema import ID
from gristmill.shards.store import bare, filesystem, is_local
from gristmill.shards.walking import FileInfo

# The reject reasons. They are counted, so they contain no details of a record.
EMPTY = "empty"
SILENT = "silent"
NO_SPEECH = "no speech"  # in a range of a recording that is cut into utterances
NO_AUDIO = "no audio stream"  # of a video, or a container of other things
SEVERAL_RECORDINGS = "several recordings in one file"  # one after the other, of other rates or with headers between
TOO_LONG = "too long"
TOO_SHORT = "too short"
OVERSIZED = "file far larger than its audio"
WRONG_DURATION = "wrongly declared: duration"
WRONG_RATE = "wrongly declared: sampling rate"
MALFORMED = "malformed manifest line"
NOT_UTF8 = "not UTF-8"
DUPLICATE = "duplicate"
NO_TEXT = "no text"  # in an annotated corpus: it would count as silence
NOT_IN_FILE = "audio not in a file"  # Lhotse cuts whose recording is in memory or the output of a command
SEVERAL_CHANNELS = "several channels"  # a Lhotse cut of more than one: records have one
NO_CHANNEL = "no such channel"  # that a cut or a segment names
UNSUPPORTED_CUT = "unsupported cut"  # mixed, padded, without a recording, or with transforms
PART_OF_TEXT = "text of more than its audio"  # a Lhotse cut that cuts a supervision
FOREIGN = "place of another kind"  # of a manifest's entry: such places are listed in the config
REASONS = (
    UNREADABLE,
    MISSING,
    EMPTY,
    TRUNCATED,
    SILENT,
    NO_SPEECH,
    NO_AUDIO,
    SEVERAL_RECORDINGS,
    TOO_LONG,
    TOO_SHORT,
    OVERSIZED,
    WRONG_DURATION,
    WRONG_RATE,
    MALFORMED,
    NOT_UTF8,
    DUPLICATE,
    NO_TEXT,
    NOT_IN_FILE,
    SEVERAL_CHANNELS,
    NO_CHANNEL,
    UNSUPPORTED_CUT,
    TOO_LARGE,
    FOREIGN,
    TEXT_ENCODING,
    PART_OF_TEXT,
)

_LABEL_BYTES = 1 << 20  # of a text, or JSON, beside a recording

LOCATOR_FIELDS = (
    pa.field("kind", pa.string()),  # file, member (of a tar), row (of a Parquet file), bad, or unlisted (a whole file)
    pa.field("url", pa.string()),  # of the file that holds the bytes
    pa.field("member", pa.string()),  # a tar member's name; a Parquet file's audio column
    pa.field("offset", pa.int64()),  # bytes into a tar
    pa.field("size", pa.int64()),  # bytes of the encoded audio, if known
    pa.field("row_group", pa.int32()),
    pa.field("row", pa.int64()),  # within the row group
    pa.field("channel", pa.int32()),  # the one that is meant, from 0; null: the average of all
    pa.field("start", pa.float64()),  # of a segment, seconds; null: the whole file
    pa.field("length", pa.float64()),  # of a segment, seconds; null: to the end
    pa.field(
        "version", pa.string()
    ),  # of the source files; not in the records, so that equal content gives equal records
)
LOCATOR = pa.struct(LOCATOR_FIELDS)
POINTER_FIELDS = (
    ID,
    *LOCATOR_FIELDS,
    pa.field("text", pa.string()),
    pa.field("speaker", pa.string()),
    pa.field("lang", pa.string()),
    pa.field("declared_duration", pa.float64()),  # seconds
    pa.field("declared_rate", pa.int32()),  # Hz
    pa.field("extra", pa.string()),  # JSON of the source's other fields
    pa.field("labels", pa.string()),  # JSON of the places of labels, which the probe reads
    pa.field("problem", pa.string()),  # the reject reason, if the listing has one: of kind "bad", or in a foreign place
)
POINTERS = pa.schema(POINTER_FIELDS)

# The names that a source may use for each declared value, in order of preference.
NAMES: dict[str, tuple[str, ...]] = {
    "audio": ("audio_filepath", "audio", "file_name", "wav", "path", "file"),
    "text": ("text", "sentence", "transcription", "transcript", "normalized_text"),
    "speaker": ("speaker", "speaker_id", "client_id"),
    "lang": ("lang", "language", "locale"),
    "duration": ("duration",),
    "rate": ("sampling_rate", "sample_rate"),
    "id": (),  # only if the user names it: by default the place of its audio identifies a record
}


def named(fields: Mapping[str, str] | None, value: str) -> tuple[str, ...]:
    """Return the keys that a source may use for ``value``; the user's ``fields`` names exactly one."""
    return (fields[value],) if fields and value in fields else NAMES[value]


def declared(values: Mapping[str, Any], fields: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the declared values of a manifest line, a JSON sidecar or a Parquet row, as pointer columns.

    Raises :class:`RejectRecord` for a value that does not fit its column.
    """
    used: set[str] = set()

    def pick(value: str) -> Any:
        for key in named(fields, value):
            found = values.get(key)
            if found is not None and not (isinstance(found, float) and math.isnan(found)):  # NaN is pandas' nothing
                used.add(key)
                return found
        return None

    def string(value: str) -> str | None:
        found = pick(value)
        if isinstance(found, float) and found.is_integer():
            found = int(found)  # pandas makes numbers of a column with gaps floating
        if isinstance(found, OtherEncoding):
            raise RejectRecord(NOT_UTF8)
        if isinstance(found, (dict, list, bool)):
            raise RejectRecord(MALFORMED)
        return None if found is None else str(found).strip() or None

    def number(value: str) -> float | None:
        found = pick(value)
        return None if found is None else seconds(found)

    rate = number("rate")
    out = {
        "text": string("text"),
        "speaker": string("speaker"),
        "lang": string("lang"),
        "declared_duration": number("duration"),
        "declared_rate": None if rate is None else int(min(rate, 2**31 - 1)),
    }
    pick("audio"), pick("id")
    rest = {
        key: value
        for key, value in values.items()
        if key not in used and value is not None and not isinstance(value, bytes)
    }
    return {**out, "extra": json.dumps(rest, sort_keys=True, ensure_ascii=False, default=str) if rest else None}


def seconds(value: Any) -> float:
    """Return a finite non-negative number; anything else raises :class:`RejectRecord`."""
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RejectRecord(MALFORMED) from None
    if isinstance(value, bool) or not 0.0 <= found < 1e12:  # false for NaN too
        raise RejectRecord(MALFORMED)
    return found


class Part(SizedFile):
    """A byte range of an open file, as a file."""

    def __init__(self, file: SourceFile | BinaryIO, offset: int, size: int) -> None:
        self._file, self._offset, self.size = file, offset, size

    def _at(self, place: int, count: int) -> bytes:
        self._file.seek(self._offset + place)
        return self._file.read(count)


class Watched(io.RawIOBase):
    """A file that keeps the error of a failed read, or an interrupt: libsndfile's callbacks swallow exceptions."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: BaseException | None = None

    def readable(self) -> bool:
        """Return ``True``."""
        return True

    def seekable(self) -> bool:
        """Return ``True``."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position."""
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._file.tell()

    def read(self, count: int = -1) -> bytes:
        """Read bytes; after a failure return none and keep the error in ``error``."""
        try:
            with let_in():  # the storage may take long
                return b"" if self.error else self._file.read(count)
        except BaseException as error:
            self.error = error
            return b""

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; return the number of bytes."""
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def column_file(file: SourceFile) -> Parquet | ArrowColumns:
    """Return an open file of columns, by its name; raises as its class."""
    return ArrowColumns(file) if bare(file.url).endswith(SUFFIX) else Parquet(file)


class Reader:
    """Reads the bytes of pointers. Keeps the last file open, and of a Parquet file the place in the last row group.

    ``block`` is the minimum number of bytes per request to remote storage. ``is_foreign(url, home)`` tells of a path in
    a Parquet file whether it may not be opened.
    """

    def __init__(self, block: int, is_foreign: Callable[[str, str], bool] = lambda url, home: False) -> None:
        self._block, self._is_foreign = block, is_foreign
        self._file: SourceFile | None = None
        self._parquet: Parquet | ArrowColumns | None = None  # of that file
        self._group: tuple[str, int] | None = None
        self._rows: dict[tuple[str, ...], GroupRows] = {}  # of that row group, by columns

    def file(self, url: str) -> SourceFile:
        """Return a file open for random access; one that cannot be opened raises :class:`RejectRecord`."""
        if self._file is None or self._file.url != url:
            self.close()
            try:
                self._file = opened(url, self._block)
            except FileFault as fault:
                raise RejectRecord(fault.reason) from None
        return self._file

    def open(self, pointer: Mapping[str, Any]) -> tuple[BinaryIO, int]:
        """Return a pointer's audio as a file, and its size in bytes."""
        if pointer["kind"] == "row":
            return self._cell(pointer, self.row(pointer, [pointer["member"]])[pointer["member"]])
        file = self.file(pointer["url"])
        offset, size = 0, file.size
        if pointer["kind"] == "member":
            offset, size = pointer["offset"], pointer["size"]
            if offset + size > file.size:
                raise RejectRecord(TRUNCATED)
        return io.BufferedReader(Part(file, offset, size)), size

    def row(self, pointer: Mapping[str, Any], columns: Iterable[str]) -> dict[str, Any]:
        """Return some columns of a pointer's row of a Parquet file, with the names of classes for their numbers."""
        wanted, group = tuple(columns), (pointer["url"], pointer["row_group"])
        if self._group != group:
            self._group, self._rows = group, {}
        try:
            file = self.file(pointer["url"])
            if self._parquet is None:
                self._parquet = column_file(file)
                self._classes = ClassNames(self._parquet.schema, file.url)
            if wanted not in self._rows:
                self._rows[wanted] = GroupRows(self._parquet, group[1], wanted)
            return self._classes.named(self._rows[wanted].row(pointer["row"]))
        except FileFault as fault:
            self._rows.pop(wanted, None)
            raise RejectRecord(fault.reason) from None

    def _cell(self, pointer: Mapping[str, Any], cell: Any) -> tuple[BinaryIO, int]:
        if isinstance(cell, dict):
            cell = cell.get("bytes") or cell.get("path")
        if cell is None:
            raise RejectRecord(EMPTY)
        if isinstance(cell, OtherEncoding):
            raise RejectRecord(NOT_UTF8)
        if isinstance(cell, bytes):
            return io.BytesIO(cell), len(cell)
        url = resolve(posixpath.dirname(pointer["url"]), str(cell))
        if self._is_foreign(url, pointer["url"]):
            raise RejectRecord(FOREIGN)
        data = read_whole(url)
        return io.BytesIO(data), len(data)

    def close(self) -> None:
        """Close the open file."""
        self._parquet = self._group = None
        self._rows = {}
        if self._file is not None:
            self._file.close()
            self._file = None


def version_of(*files: FileInfo) -> str:
    """Return one version for the source files of a row."""
    parts = [f"{file.size} {file.version}" for file in files]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest()


def resolve(folder: str, path: str) -> str:
    """Return the URL of a path in a source: absolute, or relative to the source's folder."""
    if "://" in path or path.startswith("/"):
        return path
    scheme, mark, place = folder.rpartition("://")
    return scheme + mark + posixpath.normpath(posixpath.join(place, path))  # object stores do not resolve ".."


def read_whole(url: str, offset: int | None = None, size: int | None = None) -> bytes:
    """Return a file's bytes or a part of them; a file that is missing or has no valid name raises RejectRecord."""
    fs, path = filesystem(url)
    start, end = (None, None) if offset is None or size is None else (offset, offset + size)
    try:
        return fs.cat_file(path, start=start, end=end)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        raise RejectRecord(MISSING) from None
    except PermissionError as error:
        raise refused(url, error) from None
    except (OSError, ValueError):  # NUL, or too long a name
        if is_local(url):
            raise RejectRecord(UNREADABLE) from None
        raise


def read_label(url: str, offset: int | None = None, size: int | None = None) -> str:
    """Return the text of a label, a file or a part of one.

    Raises:
        RejectRecord: it is too large, missing, or not UTF-8.
    """
    data = read_whole(url, offset or 0, min(_LABEL_BYTES + 1, _LABEL_BYTES + 1 if size is None else size))
    if len(data) > _LABEL_BYTES:
        raise RejectRecord(TOO_LARGE)
    return read_text(data).strip()


def refused(url: str, error: PermissionError) -> RejectRecord | UserError:
    """Return the error for a file without permission: a reject if local, else a mistake in the user's credentials."""
    if is_local(url):
        return RejectRecord(UNREADABLE)
    return UserError(f"{url}: access refused ({error}); check the credentials or the permissions")


def read_many(pointers: list[dict[str, Any]]) -> list[bytes | str]:
    """Return the bytes of each pointer of kind file or member, or a reject reason.

    On remote storage all are requested concurrently; on local disk a tar is opened once for all its members.
    """
    out: list[bytes | str] = [MISSING] * len(pointers)
    remote: list[int] = []
    reader = Reader(block=1 << 16)
    order = sorted(range(len(pointers)), key=lambda i: (pointers[i]["url"], pointers[i]["offset"] or 0))
    for i in order:
        if not is_local(pointers[i]["url"]):
            remote.append(i)
            continue
        try:
            file, size = reader.open(pointers[i])
            out[i] = file.read(size)
        except RejectRecord as reject:
            out[i] = reject.reason
    reader.close()
    by_system: dict[int, tuple[Any, list[tuple[int, str]]]] = {}
    for i in remote:
        fs, path = filesystem(pointers[i]["url"])
        by_system.setdefault(id(fs), (fs, []))[1].append((i, path))
    for fs, places in by_system.values():
        starts = [pointers[i]["offset"] for i, _ in places]
        ends = [None if s is None else s + pointers[i]["size"] for s, (i, _) in zip(starts, places, strict=True)]
        found = fs.cat_ranges([path for _, path in places], starts, ends, on_error="return")
        for (i, _), data in zip(places, found, strict=True):
            if isinstance(data, FileNotFoundError):
                continue
            if isinstance(data, PermissionError):
                raise refused(pointers[i]["url"], data) from None
            if isinstance(data, BaseException):
                raise data
            short = pointers[i]["kind"] == "member" and len(data) < pointers[i]["size"]
            out[i] = TRUNCATED if short else data
    return out
