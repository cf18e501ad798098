"""Names of classes: Hugging Face's ``ClassLabel`` stores a number, and its names beside the table.

They are in the metadata of a Parquet or Arrow file that ``datasets`` wrote, or in ``dataset_info.json`` beside it.
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.reading import read_document
from gristmill.actors.sources.unlisted import FileFault
from gristmill.shards import store

_METADATA = b"huggingface"
_INFO, _INFO_BYTES = "dataset_info.json", 16 << 20


class ClassNames:
    """The names of the classes in a file's columns of numbers, from its schema or what lies beside it."""

    def __init__(self, schema: pa.Schema, url: str) -> None:
        numbers = [f.name for f in schema if pa.types.is_integer(f.type)]
        features = (_in_metadata(schema) or _beside(url)) if numbers else {}
        self._names = {name: found for name in numbers if (found := _names(features.get(name)))}

    def named(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return a row with names for numbers; -1 stands for no class, and a number without a name stays."""
        if not self._names:
            return row
        return {column: self._name(column, value) for column, value in row.items()}

    def _name(self, column: str, value: Any) -> Any:
        names = self._names.get(column)
        if names is None or value is None or value >= len(names):
            return value
        return names[value] if value >= 0 else None


def _in_metadata(schema: pa.Schema) -> dict[str, Any]:
    return _features(lambda: json.loads((schema.metadata or {}).get(_METADATA, b"{}"))["info"]["features"])


def _beside(url: str) -> dict[str, Any]:
    info = store.join(posixpath.dirname(store.bare(url)), _INFO)
    return _features(lambda: json.loads(read_document(info, _INFO_BYTES))["features"]) if store.exists(info) else {}


def _features(read: Callable[[], Any]) -> dict[str, Any]:
    try:
        found = read()
    except (FileFault, LookupError, RecursionError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _names(feature: Any) -> list[str]:
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return []
    names = feature.get("names")
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else []
