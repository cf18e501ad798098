"""The names of a corpus's own columns, and what is said where one of them is missing."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

from gristmill.actors.sources.pointers import MALFORMED, named
from gristmill.shards.errors import RejectRecord
from gristmill.shards.wording import nearest, or_else


def expected_column(value: str, fields: Mapping[str, str] | None, there: Collection[str], of: str = "") -> str:
    """Return the end of a sentence on a missing column: what was expected, and what is near to it.

    ``value`` is what the column holds (``audio``, ``text``, ...), ``there`` the columns that there are.

    Example:
        >>> expected_column("text", {"text": "sentense"}, ["clip", "sentence"])
        "; expected 'sentense', as corpus.fields names it, did you mean 'sentence'?"
    """
    names = named(fields, value)
    near = next((found for name in names if (found := nearest(name, there))), "")
    if fields and value in fields:
        return f"; expected {names[0]!r}, as corpus.fields names it{near}"
    kind = f" of {of}" if of else ""
    return f"; expected {' or '.join(names)}{kind}, or corpus.fields={{{value}: NAME}}{near}"


def check_fields(fields: dict[str, str], known: Collection[str]) -> dict[str, str]:
    """Return the user's names of columns by what they hold, if all of that is known.

    Raises:
        ValueError: something is not known, or has no name, or has that of another.
    """
    for value, name in fields.items():
        if value not in known:
            raise ValueError(f"{value!r} is no part of a record{or_else(nearest(value, known), ', '.join(known))}")
        if not name.strip():
            raise ValueError(f"{value} has no name; expected that of a column")
        other = next((one for one, same in fields.items() if same == name and one != value), None)
        if other is not None:
            raise ValueError(f"{value} and {other} are both {name!r}; expected a column for each")
    return fields


def keys_in(line: bytes) -> list[str]:
    """Return the keys of a line of JSON; none if it is no object."""
    try:
        values = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return []
    return list(values) if isinstance(values, dict) else []


def own_id(values: Mapping[str, Any], fields: Mapping[str, str] | None) -> str | None:
    """Return the id that a record has of its own, if the user's ``fields`` names one; else ``None``.

    Raises :class:`RejectRecord` for a record without it.
    """
    if not fields or "id" not in fields:
        return None
    found = values.get(fields["id"])
    if isinstance(found, bool) or not isinstance(found, str | int) or not str(found).strip():
        raise RejectRecord(MALFORMED)
    return str(found).strip()
