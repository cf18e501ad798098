"""Columns of Arrow files, as ``datasets`` saves a set to disk: a stream of batches, or a file with an index of them."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from gristmill.actors.sources.reading import SourceFile
from gristmill.actors.sources.unlisted import UNREADABLE, FileFault
from gristmill.shards import store
from gristmill.shards.errors import one_line

SUFFIX = ".arrow"
_MAGIC, _PADDED = b"ARROW1", 8  # of a file, before its stream of messages
_CONTINUED, _END = b"\xff" * 4, bytes(4)
_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3  # kinds of messages
_HEADER_BYTES = 16 << 20  # of a message
_STRINGS = (
    (pa.types.is_string, pa.binary()),
    (pa.types.is_large_string, pa.large_binary()),
    (pa.types.is_string_view, pa.binary_view()),
)


class ArrowColumns:
    """An Arrow file that is open for reading; its batches are the row groups.

    On local disk it is mapped; elsewhere the headers of its batches are read, and of a batch that is asked for all
    columns: listing reads no audio in either case.

    Raises:
        FileFault: the file is damaged or not Arrow.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.rows: list[int] = []
        """Rows of each batch."""
        self._held: tuple[int, pa.RecordBatch] | None = None  # the last batch of a file elsewhere
        try:
            self._source: Any = None
            if store.is_local(file.url):
                self._source = pa.memory_map(store.filesystem(file.url)[1])
                self.schema: pa.Schema = self._opened().schema
                self.rows = [len(batch) for batch in self._read()]
            else:
                self._messages = list(_messages(file))
                self.schema = self._stream(self._messages[:1]).schema
                self.rows = [message.rows for message in self._messages if message.kind == _BATCH]
        except Exception as error:
            raise self._fault(error) from None

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a batch.

        Raises:
            FileFault: the batch is damaged.
        """
        try:
            chosen = self._batch(group).select(list(columns))
            for column in chosen.columns:  # their UTF-8 is a matter of each row
                kind = _in_bytes(column.type)
                (column if kind == column.type else column.view(kind)).validate(full=True)
        except Exception as error:
            raise self._fault(error) from None
        yield chosen

    def _batch(self, group: int) -> pa.RecordBatch:
        if self._source is not None:
            (batch,) = self._read(group)
            return batch
        if self._held is None or self._held[0] != group:
            self._held = None  # freed before the next is read
            self._held = group, self._fetched(group)
        return self._held[1]

    def _fetched(self, group: int) -> pa.RecordBatch:
        """Return a batch of a file elsewhere, as that of a stream with nothing else than the dictionaries before it."""
        last = [place for place, message in enumerate(self._messages) if message.kind == _BATCH][group]
        (batch,) = self._stream([m for m in self._messages[:last] if m.kind != _BATCH] + [self._messages[last]])
        return batch

    def _stream(self, messages: Sequence[_Message]) -> Any:
        parts = []
        for message in messages:
            self.file.seek(message.place)
            parts.append(self.file.read(message.size))
        return pa.ipc.open_stream(pa.py_buffer(b"".join([*parts, _CONTINUED, _END])))

    def _opened(self) -> Any:
        self._source.seek(0)
        is_file = self._source.read(len(_MAGIC)) == _MAGIC
        self._source.seek(0)
        return pa.ipc.open_file(self._source) if is_file else pa.ipc.open_stream(self._source)

    def _read(self, only: int | None = None) -> Iterator[pa.RecordBatch]:
        reader = self._opened()
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            for number in range(reader.num_record_batches) if only is None else (only,):
                yield reader.get_batch(number)
            return
        for number, batch in enumerate(reader):
            if only is None or number == only:
                yield batch
            if number == only:
                return

    def _fault(self, error: Exception) -> FileFault:
        said = f"damaged or not Arrow ({one_line(error)[:200]}); expected an Arrow stream or file that is whole"
        return FileFault(self.file.url, UNREADABLE, said)


def _in_bytes(kind: pa.DataType) -> pa.DataType:
    """Return a type with binary in place of strings."""
    for is_string, binary in _STRINGS:
        if is_string(kind):
            return binary
    if pa.types.is_dictionary(kind):
        return pa.dictionary(kind.index_type, _in_bytes(kind.value_type), kind.ordered)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_in_bytes(field.type)) for field in kind])
    return kind


class _Message(NamedTuple):
    kind: int
    place: int  # in the file, with its length
    size: int
    rows: int  # of a batch


def _messages(file: SourceFile) -> Iterator[_Message]:
    """Yield the messages of a stream, or of the stream in a file, from their headers.

    Raises:
        ValueError: a message is damaged.
    """
    file.seek(0)
    place = _PADDED if file.read(len(_MAGIC)) == _MAGIC else 0
    while place < file.size:
        file.seek(place)
        begin = file.read(4)
        if begin == _CONTINUED:
            begin += file.read(4)
        length = struct.unpack("<i", begin[-4:])[0]
        if not length:
            return
        if not 0 < length <= min(_HEADER_BYTES, file.size - place):
            raise ValueError(f"a message with a header of {length} bytes at byte {place}")
        kind, rows, body = _header(file.read(length))
        size = len(begin) + length + body
        if body < 0 or rows < 0 or place + size > file.size:
            raise ValueError(f"a message of {size} bytes at byte {place} of {file.size}")
        yield _Message(kind, place, size, rows)
        place += size


def _header(data: bytes) -> tuple[int, int, int]:
    """Return the kind of a message, the rows of a batch, and the bytes of its body, from its header in flatbuffers."""
    try:
        message = struct.unpack_from("<I", data)[0]
        kind = struct.unpack_from("<B", data, _field(data, message, 1))[0]
        body_at, table_at = _field(data, message, 3), _field(data, message, 2)
        body = struct.unpack_from("<q", data, body_at)[0] if body_at else 0
        table = table_at + struct.unpack_from("<I", data, table_at)[0]
        rows_at = _field(data, table, 0) if kind == _BATCH else 0
        return kind, struct.unpack_from("<q", data, rows_at)[0] if rows_at else 0, body
    except struct.error:
        raise ValueError("a header of a message is damaged") from None


def _field(data: bytes, table: int, number: int) -> int:
    """Return the place of a field of a table; 0 if it has its default."""
    fields = table - struct.unpack_from("<i", data, table)[0]
    size = struct.unpack_from("<H", data, fields)[0]
    at = 4 + 2 * number
    offset = struct.unpack_from("<H", data, fields + at)[0] if at < size else 0
    return table + offset if offset else 0
