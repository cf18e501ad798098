"""Columns of Parquet files, read in pieces: memory follows neither row groups nor what a file declares of itself."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.actors.sources.reading import BLOCK, SourceFile
from gristmill.actors.sources.thrift import Thrift
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
_MARK = b"PAR1"


class Parquet:
    """A Parquet file that is open for reading in pieces.

    Its footer is read here too: asked for the columns of a damaged one, pyarrow may end the process.

    Raises:
        FileFault: the file is damaged or not Parquet, or declares more rows than its bytes can hold.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file, self._is_local = file, store.is_local(file.url)
        try:
            self._groups = _groups(_footer(file))
            self._parquet = pq.ParquetFile(file, buffer_size=BLOCK, pre_buffer=False)
            self.schema: pa.Schema = self._parquet.schema_arrow
            rows = self._parquet.metadata.num_rows
        except GristmillError:
            raise
        except Exception as error:
            said = f"damaged or not Parquet; expected a Parquet file ({one_line(error)[:200]})"
            raise FileFault(file.url, UNREADABLE, said) from None
        self.rows = [group.rows for group in self._groups]
        """Rows of each row group."""
        if min(self.rows, default=0) < 0 or sum(self.rows) != rows:
            raise FileFault(
                file.url, UNREADABLE, "its row groups have other counts of rows than the file; it is damaged"
            )
        if rows > _ROWS_A_BYTE * file.size:
            said = f"declares {rows} rows in {file.size} bytes; expected at most {_ROWS_A_BYTE} a byte"
            raise FileFault(file.url, TOO_LARGE, said)

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a row group, in batches whose size in memory is bounded.

        Raises:
            FileFault: a page is damaged, or larger than ``PAGE_BYTES``.
        """
        if not self.rows[group]:
            return  # it has no pages
        try:
            rows = self._rows_at_once(group, columns)
            yield from self._parquet.iter_batches(rows, row_groups=[group], columns=list(columns), use_threads=False)
        except GristmillError:
            raise
        except Exception as error:
            said = f"damaged ({one_line(error)[:200]}); expected a Parquet file that can be read to its end"
            raise FileFault(self.file.url, UNREADABLE, said) from None

    def _rows_at_once(self, group: int, columns: Sequence[str]) -> int:
        """Return the rows of a batch, by the sizes of the columns' values in their pages."""
        largest = 0.0
        for column in self._groups[group].columns:
            if any(column.path == name or column.path.startswith(f"{name}.") for name in columns):
                # On remote storage each header costs a request: of a column that fits, only the first (a dictionary's).
                all_pages = self._is_local or column.size > PAGE_BYTES
                pages = itertools.islice(_pages(self.file, column), None if all_pages else 1)
                mean = column.size / max(1, column.values)
                largest += max((page.value_bytes for page in pages), default=mean)
        return int(max(1, min(_BATCH_ROWS, _BATCH_BYTES // max(1.0, largest))))


@dataclass(frozen=True)
class _Column:
    """A column of a row group."""

    path: str
    values: int
    size: int  # bytes, decompressed
    start: int
    packed: int  # bytes in the file


@dataclass(frozen=True)
class _Group:
    rows: int
    columns: tuple[_Column, ...]


def _footer(file: SourceFile) -> bytes:
    file.seek(max(0, file.size - 8))
    tail = file.read(8)
    length = int.from_bytes(tail[:4], "little")
    if tail[4:] != _MARK or length + 8 > file.size:
        raise ValueError("its end is not Parquet's")
    file.seek(file.size - 8 - length)
    return file.read(length)


@functools.lru_cache(maxsize=2)  # a file is opened again for each batch of its rows
def _groups(footer: bytes) -> tuple[_Group, ...]:
    groups = Thrift(footer).struct().get(4, [])
    return tuple(_Group(group[3], tuple(_column(column[3]) for column in group[1])) for group in groups)


def _column(meta: dict[int, Any]) -> _Column:
    start = min(meta[9], meta.get(11) or meta[9])
    return _Column(b".".join(meta[3]).decode(errors="replace"), meta[5], meta[6], start, meta[7])


@dataclass(frozen=True)
class _Page:
    kind: int
    size: int  # bytes, decompressed
    values: int

    @property
    def value_bytes(self) -> float:
        """Bytes of a value: their mean, or in a dictionary, where each row may hold the longest, their most."""
        return float(self.size) if self.kind == _DICTIONARY else self.size / max(1, self.values)


def _pages(file: SourceFile, column: _Column) -> Iterator[_Page]:
    """Yield the pages of a column of a row group, from their headers."""
    place, end = column.start, min(column.start + column.packed, file.size)
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
            thrift = Thrift(data)
            return thrift.struct(), thrift.place
        except (IndexError, RecursionError):
            if len(data) < count or count >= _HEADER_BYTES:
                raise FileFault(
                    file.url, UNREADABLE, f"damaged at byte {place}; expected the header of a page"
                ) from None
            count *= 16  # it holds statistics


class ColumnFile(Protocol):
    """A file of columns, in groups of rows."""

    file: SourceFile
    rows: list[int]
    schema: pa.Schema

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a group in batches."""
        ...


class OtherEncoding(bytes):
    """The bytes of a string that is not UTF-8."""


def value_of(scalar: pa.Scalar) -> Any:
    """Return a value of a column, of which only itself is lost where Python cannot hold it.

    A string that is not UTF-8 is :class:`OtherEncoding`, a time beyond the year 9999 its number, and what else cannot
    be converted is ``None``.
    """
    try:
        return scalar.as_py()
    except Exception:  # UnicodeDecodeError, OverflowError, Arrow's own, or an unknown time zone
        if isinstance(scalar, pa.StructScalar):
            return {name: value_of(scalar[place]) for place, name in enumerate(scalar.type.names)}
        if isinstance(scalar, pa.DictionaryScalar):
            return value_of(scalar.value)
        if isinstance(scalar, pa.StringScalar):  # of any kind
            return OtherEncoding(scalar.as_buffer().to_pybytes())
        number = getattr(scalar, "value", None)
        return number if isinstance(number, int) else None


class GroupRows:
    """Some columns of the rows of a row group: rows asked for in order are read once."""

    def __init__(self, parquet: ColumnFile, group: int, columns: Iterable[str]) -> None:
        self._parquet, self._of = parquet, (group, list(columns))
        self._begin()

    def _begin(self) -> None:
        self._batches = self._parquet.batches(*self._of)
        self._batch: pa.RecordBatch | None = None
        self._start = 0

    def row(self, number: int) -> dict[str, Any]:
        """Return a row of the group, as :func:`value_of` has its values.

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
                raise FileFault(self._parquet.file.url, UNREADABLE, f"has no row {number} in row group {self._of[0]}")
        place = number - self._start
        return {
            name: value_of(column[place])
            for name, column in zip(self._batch.schema.names, self._batch.columns, strict=True)
        }
