"""Parquet with pinned options: the same table always gives the same bytes (with one pyarrow version).

A shard is compared with its receipt or seal when it is read. A whole file is compared by the SHA-256 of its bytes. If
only some columns are wanted, just their pages are read: each page carries a checksum, and the receipt holds the digest
of the footer, which in turn holds that of all pages and so differs between any two files.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.shards import canonical, checked, store
from gristmill.shards.errors import Damaged
from gristmill.shards.schema import PARQUET_ENCODINGS, huggingface_metadata

SMALL = 1 << 20  # bytes; a smaller file is read whole even for a few columns: one request instead of several
PAGES = "gristmill.pages"  # metadata of the file: the SHA-256 of everything before the footer
_TAIL = 64 << 10  # bytes read for the footer, which is seldom longer


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A committed Parquet file, named by its digest."""

    path: str  # below the set's folder
    sha256: str
    rows: int
    bytes: int
    footer: str  # SHA-256 of the footer


def encode_table(table: pa.Table, groups: Sequence[int] = ()) -> bytes:
    """Return the Parquet bytes of a table: zstd, page checksums, metadata in the order of its keys.

    There is one row group, or a further one from each row in ``groups`` on, in ascending order: a reader of some rows
    reads only the groups that hold them.
    """
    metadata = dict(table.schema.metadata or {}) | huggingface_metadata(table.schema)
    table = table.replace_schema_metadata(dict(sorted(metadata.items())) or None)
    split: dict[str, str] = {}
    dictionary: list[str] = []
    for field in table.schema:
        for path in _leaves(field.name, field.type):
            if field.name in PARQUET_ENCODINGS:
                split[path] = PARQUET_ENCODINGS[field.name]
            else:
                dictionary.append(path)
    out = io.BytesIO()
    writer = pq.ParquetWriter(
        out,
        table.schema,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=dictionary or False,
        column_encoding=split or None,
        write_page_checksum=True,
    )
    for start, stop in itertools.pairwise((0, *groups, table.num_rows)):
        # Pages follow chunk boundaries, and chunks depend on how the table was built: use one chunk per column.
        some = table.slice(start, stop - start).combine_chunks()
        writer.write_table(some, row_group_size=max(1, some.num_rows))
    writer.add_key_value_metadata({PAGES: canonical.sha256(out.getbuffer())})
    writer.close()
    return out.getvalue()


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    """Return the Parquet paths of a column's leaves."""
    if pa.types.is_struct(kind):
        return [leaf for inner in kind for leaf in _leaves(f"{path}.{inner.name}", inner.type)]
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    return [path]


def decode_table(data: bytes, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table of Parquet bytes."""
    # Not Arrow's `read_table`, which loads its data sets, and they load pandas; it takes three times as long, too.
    # One thread: there are many workers, and their pools would compete for the cores.
    table = _plain(pq.ParquetFile(io.BytesIO(data)).read(_list(columns), use_threads=False))
    if columns is None:
        return table
    if missing := sorted(set(columns) - set(table.column_names)):
        raise pa.ArrowInvalid(f"there is no column {', '.join(missing)}, only {', '.join(table.column_names)}")
    return table.select(list(columns))


def describe(data: bytes, rows: int, path: Callable[[str], str]) -> StoredFile:
    """Return the description of a Parquet file for its receipt; its path is made of its digest."""
    sha, footer = canonical.sha256(data), canonical.sha256(data[-_footer_size(data) :])
    return StoredFile(path(sha), sha, rows, len(data), footer)


def read_table(
    folder: str, file: StoredFile, columns: Sequence[str] | None = None, rows: tuple[int, int] | None = None
) -> pa.Table:
    """Return the table of a committed file of the set at ``folder``, or its ``rows`` from one number up to another.

    With ``columns``, only their bytes are fetched; with ``rows``, only those of the row groups that hold them.

    Raises:
        Damaged: the file is missing, or not the one that was committed.
    """
    url = store.join(folder, file.path)
    whole = rows is None or rows == (0, file.rows)
    start, stop = rows or (0, file.rows)
    if (whole and columns is None) or file.bytes <= (SMALL if whole else _TAIL):
        table = decode_table(checked.read_file(url, file.sha256, file.bytes), columns)
        return table.slice(start, stop - start)

    def read() -> pa.Table:
        checked.refuse_irregular(url)
        with store.open_read(url, exact=True) as source:
            metadata = pq.read_metadata(pa.BufferReader(_checked_footer(source, file, url)))
            opened = pq.ParquetFile(source, metadata=metadata, page_checksum_verification=True)
            return _rows(opened, columns, start, stop)

    try:
        return store.patiently(url, read)
    except FileNotFoundError:
        raise Damaged(url, "the file is missing") from None
    except Damaged:
        raise
    except (pa.ArrowException, OSError):
        # Arrow tells damage in many ways; the whole file's digest tells it from a fault of the storage.
        checked.read_file(url, file.sha256, file.bytes)
        raise


def read_rows(url: str, columns: Sequence[str], start: int, stop: int) -> pa.Table:
    """Return rows of a Parquet file that need not be the one committed; raises ``OSError`` or Arrow's errors."""

    def read() -> pa.Table:
        with store.open_read(url, exact=True) as source:
            return _rows(pq.ParquetFile(source), columns, start, stop)

    return store.patiently(url, read)


def _rows(opened: pq.ParquetFile, columns: Sequence[str] | None, start: int, stop: int) -> pa.Table:
    """Return the rows from one number up to another; only the row groups that hold them are read."""
    metadata = opened.metadata
    ends = list(itertools.accumulate(metadata.row_group(n).num_rows for n in range(metadata.num_row_groups)))
    begins = [0, *ends[:-1]]
    held = [n for n, (begin, end) in enumerate(zip(begins, ends, strict=True)) if begin < stop and end > start]
    table = _plain(opened.read_row_groups(held, _list(columns), use_threads=False))
    return table.select(columns or table.column_names).slice(start - (begins[held[0]] if held else start), stop - start)


def _checked_footer(source: BinaryIO, file: StoredFile, url: str) -> bytes:
    size = source.seek(0, io.SEEK_END)
    if size != file.bytes:
        raise Damaged(url, f"holds {size} bytes, {file.bytes} were committed")
    source.seek(max(0, size - _TAIL))
    tail = source.read(_TAIL)
    needed = min(_footer_size(tail), size)
    if needed > len(tail):
        source.seek(size - needed)
        tail = source.read(needed)
    return checked.compare(tail[-needed:], file.footer, url)


def _footer_size(data: bytes) -> int:
    """Return the bytes of a file's footer, with its length and Parquet's mark at the end."""
    return int.from_bytes(data[-8:-4], "little") + 8


def _plain(table: pa.Table) -> pa.Table:
    """Return the table without the metadata that is the file's own, which would differ between shards."""
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != PAGES.encode()}
    return table.replace_schema_metadata(metadata or None)


def _list(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)
