"""Listing of Parquet and Arrow files with an audio column: of bytes, paths, or Hugging Face's ``Audio``."""

from __future__ import annotations

import contextlib
import json
import posixpath
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.columns import GroupRows
from gristmill.actors.sources.fields import expected_column, own_id
from gristmill.actors.sources.files import Say, Seen, base_of, files_of, key_of
from gristmill.actors.sources.pointers import DUPLICATE, NAMES, column_file, named, version_of
from gristmill.actors.sources.reading import opened
from gristmill.actors.sources.unlisted import OTHER_COLUMNS, FileFault, guarded
from gristmill.shards.errors import RejectRecord
from gristmill.shards.walking import FileInfo

_HEADER_BLOCK = 1 << 16  # bytes per request: footers, and the headers of batches, are small
_CACHED = ("cache-", "tmp")  # what `datasets` keeps beside a set that it saved


def list_parquet(url: str, corpus: str, fields: Mapping[str, str] | None, say: Say) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each row; columns that are not read (lists, further bytes) are told."""
    base, seen = base_of(url), Seen()
    for file in files_of(url, "parquet"):
        if posixpath.basename(file.url).startswith(_CACHED):
            continue
        key = f"{corpus}/{key_of(file.url, base)}"
        yield from guarded(file.url, key, partial(_listed, file, corpus, key, fields, say, seen))


def parquet_columns(url: str, fields: Mapping[str, str] | None) -> Iterator[list[str]]:
    """Yield the columns of each file; none of one that cannot be read."""
    for file in files_of(url, "parquet"):
        if not posixpath.basename(file.url).startswith(_CACHED):
            with contextlib.suppress(FileFault), opened(file.url, _HEADER_BLOCK) as raw:
                yield column_file(raw).schema.names


def _listed(
    file: FileInfo, corpus: str, key: str, fields: Mapping[str, str] | None, say: Say, seen: Seen
) -> Iterator[dict[str, Any]]:
    with opened(file.url, _HEADER_BLOCK) as raw:
        held = column_file(raw)
    groups, schema = held.rows, held.schema
    audio = _audio_column(schema, fields)
    if audio is None:
        said = f"no audio column among {schema.names}" + expected_column(
            "audio", fields, schema.names, "bytes or paths"
        )
        raise FileFault(file.url, OTHER_COLUMNS, said)
    ids = _own_ids(file, schema, fields)
    plain = [f.name for f in schema if f.name != audio and _is_plain(f.type)]
    unread = [f for f in schema if f.name not in (audio, *plain) and not pa.types.is_null(f.type)]
    wanted = {name: value for value in NAMES if value != "audio" for name in named(fields, value)}
    for f in unread:
        if f.name in wanted:
            said = f"no {wanted[f.name]} is read from {f.name}, of {str(f.type)[:200]}; expected plain values"
            say(f"{posixpath.dirname(file.url)}: {said}")
    others = [f"{f.name} ({f.type})" for f in unread if f.name not in wanted]
    if others:
        say(f"{posixpath.dirname(file.url)}: columns that are not read: {', '.join(others)[:300]}")
    labels = json.dumps({"columns": plain})
    version, row = version_of(file), 0
    for group, rows in enumerate(groups):
        for place in range(rows):
            where = {"url": file.url, "version": version}
            try:
                own = own_id(next(ids), fields) if ids is not None else None
                if own is not None and seen.before(own):
                    raise RejectRecord(DUPLICATE)
            except RejectRecord as reject:
                yield {**where, "id": f"{key}#{row:08d}", "kind": "bad", "row": row, "problem": reject.reason}
            else:
                yield {
                    **where,
                    "id": f"{key}#{row:08d}" if own is None else f"{corpus}/{own}",
                    "kind": "row",
                    "member": audio,
                    "row_group": group,
                    "row": place,
                    "labels": labels,
                }
            row += 1


def _own_ids(file: FileInfo, schema: pa.Schema, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]] | None:
    """Return the rows of the column of ids that the user names, if there is one."""
    if not fields or "id" not in fields:
        return None
    name = fields["id"]
    if name not in schema.names:
        said = f"no column of ids among {schema.names}" + expected_column("id", fields, schema.names)
        raise FileFault(file.url, OTHER_COLUMNS, said)

    def rows() -> Iterator[dict[str, Any]]:
        with opened(file.url) as raw:
            held = column_file(raw)
            for group, count in enumerate(held.rows):
                found = GroupRows(held, group, [name])
                for place in range(count):
                    yield found.row(place)

    return rows()


def _audio_column(schema: pa.Schema, fields: Mapping[str, str] | None) -> str | None:
    def holds(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        if pa.types.is_dictionary(kind):
            return holds(kind.value_type)
        binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)
        binary = binary or pa.types.is_fixed_size_binary(kind)
        return binary or _is_string(kind)

    for name in named(fields, "audio"):
        if name in schema.names and holds(schema.field(name).type):
            return name
    if fields and "audio" in fields:
        return None
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and holds(f.type)]
    return structs[0] if structs else None


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _is_plain(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):  # pandas' categories
        return _is_plain(kind.value_type)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    return _is_string(kind) or numeric or pa.types.is_boolean(kind) or pa.types.is_temporal(kind)
