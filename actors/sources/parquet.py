"""Listing of Parquet files with an audio column: of bytes, paths, or Hugging Face's ``Audio``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gristmill.actors.sources.files import base_of, files_of, key_of
from gristmill.actors.sources.pointers import UNREADABLE, named, open_container, version_of
from gristmill.shards.errors import RejectRecord, UserError


def list_parquet(url: str, corpus: str, fields: Mapping[str, str] | None) -> Iterator[dict[str, Any]]:
    """Yield a pointer for each row; an unreadable file becomes a row of kind "bad"."""
    base = base_of(url)
    for file in files_of(url, "parquet"):
        key = f"{corpus}/{key_of(file.url, base)}"
        try:
            with open_container(file.url) as handle:
                meta = pq.read_metadata(handle)
        except (pa.ArrowInvalid, OSError, RejectRecord):
            yield {"id": key, "kind": "bad", "url": file.url, "size": file.size, "problem": UNREADABLE}
            continue
        schema = meta.schema.to_arrow_schema()
        audio = _audio_column(schema, fields)
        if audio is None:
            wanted = " or ".join(named(fields, "audio")[:3])
            raise UserError(f"{file.url}: no audio column among {schema.names}; expected {wanted} of bytes or paths")
        plain = [f.name for f in schema if f.name != audio and _is_plain(f.type)]
        labels = json.dumps({"columns": plain})
        version, row = version_of(file), 0
        for group in range(meta.num_row_groups):
            for place in range(meta.row_group(group).num_rows):
                yield {
                    "id": f"{key}#{row:08d}",
                    "kind": "row",
                    "url": file.url,
                    "member": audio,
                    "row_group": group,
                    "row": place,
                    "version": version,
                    "labels": labels,
                }
                row += 1


def _audio_column(schema: pa.Schema, fields: Mapping[str, str] | None) -> str | None:
    def holds(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind):
            return kind.get_field_index("bytes") >= 0
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_string(kind)

    for name in named(fields, "audio"):
        if name in schema.names and holds(schema.field(name).type):
            return name
    if fields and "audio" in fields:
        return None
    structs = [f.name for f in schema if pa.types.is_struct(f.type) and holds(f.type)]
    return structs[0] if structs else None


def _is_string(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _is_plain(kind: pa.DataType) -> bool:
    return _is_string(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
