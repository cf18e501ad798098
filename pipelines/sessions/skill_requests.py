"""Requests of which several skills are right, generated: home automation in which a skill is a kind of device.

The requests are those of :mod:`gristmill.pipelines.generated.assistant`. In a share of those that turn a named device
on or off, the name is replaced by one that several kinds of devices have (a corner has a lamp, a fan and a socket);
all these kinds are then right, and one of them, drawn by the request's id, is what it is labelled with. Which kinds a
name has is invented.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from gristmill.actors.nlu.folds import FoldSettings, fold_of
from gristmill.actors.sessions.skill_trainer import SKILL_REQUEST_FIELDS
from gristmill.pipelines.generated import assistant
from gristmill.shards.random import RecordRandom

VERSION = 1
SHARED = {
    "corner": ("fan", "light", "switch"),
    "window side": ("cover", "light"),
    "desk": ("light", "switch"),
    "ceiling": ("fan", "light"),
    "shelf": ("light", "media", "switch"),
    "wall": ("climate", "light", "switch"),
    "tower": ("climate", "fan", "media"),
    "terrace": ("cover", "light", "switch"),
}
_TURNED = ("HassTurnOn", "HassTurnOff")
_NAMES = tuple(SHARED)
_SHARE = 0.8  # of the requests that turn a named device on or off


def requests(records: int, folds: FoldSettings, seed: int = 0, rows: int = 2000) -> Iterator[pa.Table]:
    """Yield requests with skills (``SKILL_REQUEST_FIELDS``); each is a group of its own.

    Example:
        >>> from gristmill.actors.nlu.folds import FoldSettings
        >>> [table] = requests(200, FoldSettings())
        >>> max(len(right) for right in table["right"].to_pylist())
        3
    """
    drawn, split = RecordRandom(seed, "shared_names"), RecordRandom(seed, "skill_folds")
    schema = pa.schema(SKILL_REQUEST_FIELDS)
    for table in assistant.requests(records, seed=seed, rows=rows):
        made = [_request(row, drawn, fold_of(row["id"], folds, split)) for row in table.to_pylist()]
        yield pa.Table.from_pylist(made, schema=schema)


def _request(row: dict[str, Any], drawn: RecordRandom, fold: int) -> dict[str, Any]:
    tokens, right = list(row["tokens"]), [row["domain"]]
    rng = drawn(row["id"])
    named = next((slot for slot in row["slots"] if slot["name"] == "name"), None)
    if row["intent"] in _TURNED and named is not None and rng.random() < _SHARE:
        name = _NAMES[int(rng.integers(len(_NAMES)))]
        tokens[named["start"] : named["end"]] = name.split()
        right = list(SHARED[name])
    return {
        "id": row["id"],
        "group": row["id"],
        "tokens": tokens,
        "context": None,
        "skill": right[int(rng.integers(len(right)))],
        "negative": None,
        "right": right,
        "fold": fold,
    }
