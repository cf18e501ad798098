"""Columns of Parquet files, read in pieces: memory follows neither row groups nor what a file declares of itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.actors.sources.reading import BLOCK, SourceFile
from gristmill.actors.sources.unlisted import TOO_LARGE, UNREADABLE, FileFault
from gristmill.shards import store
from gristmill.shards.errors import GristmillError, one_line

PAGE_BYTES = 512 << 20
"""Bytes of a decompressed page: the smallest part of a file that can be decoded."""
_BATCH_BYTES = 64 << 20
_BATCH_ROWS = 2000
_ROWS_A_BYTE = 8  # more are not text or audio, but runs of equal values
_HEADER_BYTES = 16 << 20
_DATA, _DICTIONARY, _DATA_2 = 0, 2, 3  # types of pages
_FIXED = {3: 1, 7: 8}  # bytes of the thrift types byte and double


def open_parquet(file: SourceFile) -> pq.ParquetFile:
    """Open a Parquet file for reading in pieces.

    Raises:
        FileFault: it is damaged or not Parquet, or declares more rows than its bytes can hold.
    """
    try:
        parquet = pq.ParquetFile(file, buffer_size=BLOCK)
        groups = [parquet.metadata.row_group(number) for number in range(parquet.metadata.num_row_groups)]
        rows = [group.num_rows for group in groups]
        parquet.schema_arrow  # noqa: B018 (read for its errors)
    except GristmillError:
        raise
    except Exception as error:
        said = f"damaged or not Parquet; expected a Parquet file ({one_line(error)[:200]})"
        raise FileFault(file.url, UNREADABLE, said) from None
    if min(rows, default=0) < 0 or sum(rows) != parquet.metadata.num_rows:
        raise FileFault(file.url, UNREADABLE, "its row groups have other counts of rows than the file; it is damaged")
    if sum(rows) > _ROWS_A_BYTE * file.size:
        said = f"declares {sum(rows)} rows in {file.size} bytes; expected at most {_ROWS_A_BYTE} a byte"
        raise FileFault(file.url, TOO_LARGE, said)
    return parquet


def batches(file: SourceFile, parquet: pq.ParquetFile, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Yield some columns of a row group, in batches whose size in memory is bounded.

    Raises:
        FileFault: a page is damaged, or larger than ``PAGE_BYTES``.
    """
    try:
        rows = _rows_at_once(file, parquet, group, columns)
        yield from parquet.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False)
    except GristmillError:
        raise
    except Exception as error:
        said = f"damaged ({one_line(error)[:200]}); expected a Parquet file that can be read to its end"
        raise FileFault(file.url, UNREADABLE, said) from None


def _rows_at_once(file: SourceFile, parquet: pq.ParquetFile, group: int, columns: Sequence[str]) -> int:
    """Return the rows of a batch, by the sizes of the columns' values in their pages."""
    meta = parquet.metadata.row_group(group)
    largest = 0.0
    for number in range(meta.num_columns):
        column = meta.column(number)
        path = column.path_in_schema
        if any(path == name or path.startswith(f"{name}.") for name in columns):
            # On remote storage each header costs a request: of a column that fits, only the first (a dictionary's).
            all_pages = store.is_local(file.url) or column.total_uncompressed_size > PAGE_BYTES
            pages = itertools.islice(_pages(file, column), None if all_pages else 1)
            mean = column.total_uncompressed_size / max(1, column.num_values)
            largest += max((page.value_bytes for page in pages), default=mean)
    return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1.0, largest))))


@dataclass(frozen=True)
class _Page:
    kind: int
    size: int  # bytes, decompressed
    values: int

    @property
    def value_bytes(self) -> float:
        """Bytes of a value: their mean, or in a dictionary, where each row may hold the longest, their most."""
        return float(self.size) if self.kind == _DICTIONARY else self.size / max(1, self.values)


def _pages(file: SourceFile, column: pq.ColumnChunkMetaData) -> Iterator[_Page]:
    """Yield the pages of a column of a row group, from their headers."""
    starts = [column.data_page_offset]
    if column.has_dictionary_page and column.dictionary_page_offset:
        starts.append(column.dictionary_page_offset)
    place, end = min(starts), min(min(starts) + column.total_compressed_size, file.size)
    while 0 <= place < end:
        header, length = _header(file, place)
        kind, size, packed = (header.get(key) for key in (1, 2, 3))
        if not (isinstance(kind, int) and isinstance(size, int) and isinstance(packed, int) and size >= 0 <= packed):
            raise FileFault(file.url, UNREADABLE, f"damaged at byte {place}; expected the header of a page")
        if size > PAGE_BYTES:
            said = f"a page of {size} bytes at byte {place}; expected at most {PAGE_BYTES}: write smaller row groups"
            raise FileFault(file.url, TOO_LARGE, said)
        inner = header.get({_DATA: 5, _DICTIONARY: 7, _DATA_2: 8}.get(kind, 0))
        values = inner.get(1, 0) if isinstance(inner, dict) else 0
        yield _Page(kind, size, values)
        place += length + packed


def _header(file: SourceFile, place: int) -> tuple[dict[int, Any], int]:
    """Return the header of a page and its length."""
    count = 1 << 10
    while True:
        file.seek(place)
        data = file.read(count)
        try:
            thrift = _Thrift(data)
            return thrift.struct(), thrift.place
        except (IndexError, RecursionError):
            if len(data) < count or count >= _HEADER_BYTES:
                raise FileFault(
                    file.url, UNREADABLE, f"damaged at byte {place}; expected the header of a page"
                ) from None
            count *= 16  # it holds statistics


class _Thrift:
    """Thrift's compact protocol, of which headers of pages use structs, integers and binaries."""

    def __init__(self, data: bytes) -> None:
        self.data, self.place = data, 0

    def struct(self) -> dict[int, Any]:
        """Return the fields of a struct by number."""
        found: dict[int, Any] = {}
        field = 0
        while (begin := self._byte()) & 15:
            field = field + (begin >> 4) if begin >> 4 else self._zigzag()
            found[field] = self._value(begin & 15)
        return found

    def _value(self, kind: int) -> Any:
        if kind in (1, 2):
            return kind == 1
        if kind in (4, 5, 6):
            return self._zigzag()
        if kind == 12:
            return self.struct()
        if kind == 8 or kind in _FIXED:
            self._skip(self._varint() if kind == 8 else _FIXED[kind])
            return None
        raise IndexError(kind)

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 128:
            value, shift = value | (byte & 127) << shift, shift + 7
            if shift > 63:
                raise IndexError(shift)
        return value | byte << shift

    def _zigzag(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)

    def _skip(self, count: int) -> None:
        self.place += count
        if self.place > len(self.data):
            raise IndexError(self.place)


class GroupRows:
    """Some columns of the rows of a row group: rows asked for in order are read once."""

    def __init__(self, file: SourceFile, parquet: pq.ParquetFile, group: int, columns: Iterable[str]) -> None:
        self._of = (file, parquet, group, list(columns))
        self._begin()

    def _begin(self) -> None:
        self._batches = batches(*self._of)
        self._batch: pa.RecordBatch | None = None
        self._start = 0

    def row(self, number: int) -> dict[str, Any]:
        """Return a row of the group.

        Raises:
            FileFault: a page is damaged, or the group has fewer rows.
        """
        if number < self._start:
            self._begin()
        while self._batch is None or number >= self._start + self._batch.num_rows:
            self._start += 0 if self._batch is None else self._batch.num_rows
            self._batch = None  # freed before the next is read
            self._batch = next(self._batches, None)
            if self._batch is None:
                raise FileFault(self._of[0].url, UNREADABLE, f"has no row {number} in row group {self._of[2]}")
        row: dict[str, Any] = self._batch.slice(number - self._start, 1).to_pylist()[0]
        return row
