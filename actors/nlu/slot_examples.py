"""Requests that a slot tagger is trained on: their slots whose place is known, and those of other functions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import Any

import pyarrow as pa

from gristmill.models.nlu.domain import OUTSIDE, Example, to_iob
from gristmill.shards.random import RecordRandom

TAGGED = ("id", "tokens", "slots")


def tagged(row: Mapping[str, Any], names: Set[str] | None = None, intent: str = "") -> Example:
    """Return a request, of the columns ``TAGGED``, with its tags; of ``names`` alone if they are given."""
    tokens = row["tokens"] or []
    placed = (slot for slot in row["slots"] or [] if slot["start"] is not None and slot["end"] is not None)
    spans = [(slot["name"], slot["start"], slot["end"]) for slot in placed if names is None or slot["name"] in names]
    return Example(tokens, intent, to_iob(len(tokens), spans))


def slot_names(examples: Iterable[Example]) -> set[str]:
    """Return the names of slots that are tagged."""
    return {tag[2:] for example in examples for tag in example.tags if tag != OUTSIDE}


def same_slots(tables: Iterable[pa.Table], names: Set[str], domain: str, limit: int, seed: int) -> dict[str, Example]:
    """Return at most ``limit`` random requests by their ids that have slots of these names, without their other slots.

    ``tables`` are those of other domains than ``domain``, for which they are drawn.
    """
    random = RecordRandom(seed, f"slots {domain}")
    found: dict[str, Example] = {}
    for table in tables:
        for row in table.select(list(TAGGED)).to_pylist():
            example = tagged(row, names)
            if slot_names([example]):
                found[row["id"]] = example
    drawn = sorted(found, key=lambda name: (random(name).random(), name))[:limit]
    return {name: found[name] for name in drawn}
