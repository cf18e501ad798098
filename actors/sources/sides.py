"""The sides of a listed record of text (:mod:`gristmill.actors.sources.text`), also of a line still to be parsed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.actors.sources.reading import read_json
from gristmill.actors.sources.text import split_line
from gristmill.shards.errors import RejectRecord

MALFORMED = "malformed record"


def sides_of(row: Mapping[str, Any], sides: Sequence[str], names: Sequence[Sequence[str]]) -> list[str]:
    """Return the raw sides of a listed record, also of a line that is still to be parsed.

    ``names`` are those that each side's field may have in JSONL. Raises :class:`RejectRecord` for a malformed record.
    """
    values: list[Any]
    if row["raw"] is None:
        values = [row[side] for side in sides]
    elif row["format"] == "jsonl":
        values = _fields(row["raw"], sides, names)
    else:
        try:
            cells = split_line(row["raw"], row["format"])
            values = [cells[place] for place in row["places"]]
        except (csv.Error, IndexError):
            raise RejectRecord(MALFORMED) from None
    if not all(value is None or isinstance(value, str) for value in values):
        raise RejectRecord(MALFORMED)
    return [value or "" for value in values]


def _fields(raw: str, sides: Sequence[str], names: Sequence[Sequence[str]]) -> list[Any]:
    try:
        values = read_json(raw)
    except (ValueError, RecursionError):
        raise RejectRecord(MALFORMED) from None
    if not isinstance(values, dict):
        raise RejectRecord(MALFORMED)
    inner = values.get("translation")
    if isinstance(inner, dict):
        values = {**inner, **values}
    found = [next((name for name in some if name in values), None) for some in names]
    for side, name, some in zip(sides, found, names, strict=True):
        if name is None:
            raise RejectRecord(f"{side}: no field {' or '.join(some)}")
    return [values[name] for name in found]
