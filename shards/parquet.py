"""Parquet with pinned options: the same table always gives the same bytes (with one pyarrow version)."""

from __future__ import annotations

import io
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.shards.schema import PARQUET_ENCODINGS, huggingface_metadata
from gristmill.shards.store import open_read, patiently, read_bytes, read_small

SMALL = 1 << 20  # bytes; a smaller file is read whole where requests are expensive


def encode_table(table: pa.Table) -> bytes:
    """Return the Parquet bytes of a table: one row group, zstd, metadata in the order of its keys."""
    metadata = dict(table.schema.metadata or {}) | huggingface_metadata(table.schema)
    # Pages follow chunk boundaries, and chunks depend on how the table was built: use one chunk per column.
    table = table.replace_schema_metadata(dict(sorted(metadata.items())) or None).combine_chunks()
    split: dict[str, str] = {}
    dictionary: list[str] = []
    for field in table.schema:
        for path in _leaves(field.name, field.type):
            if field.name in PARQUET_ENCODINGS:
                split[path] = PARQUET_ENCODINGS[field.name]
            else:
                dictionary.append(path)
    out = io.BytesIO()
    pq.write_table(
        table,
        out,
        version="2.6",
        data_page_version="1.0",
        compression="zstd",
        compression_level=3,
        use_dictionary=dictionary or False,
        column_encoding=split or None,
        row_group_size=max(1, table.num_rows),
    )
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
    # One thread: there are many workers, and their pools would compete for the cores.
    return pq.read_table(io.BytesIO(data), columns=_list(columns), use_threads=False)


def read_table(url: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Return the table of a Parquet file; with ``columns``, only their bytes are fetched."""
    if columns is None:
        return decode_table(read_bytes(url))

    small = read_small(url, SMALL)
    if small is not None:
        return decode_table(small, columns)

    def read() -> pa.Table:
        with open_read(url, exact=True) as source:
            return pq.read_table(source, columns=_list(columns), use_threads=False)

    return patiently(url, read)


def _list(columns: Sequence[str] | None) -> list[str] | None:
    return None if columns is None else list(columns)
