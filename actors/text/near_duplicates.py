"""Actors that find equal and nearly equal records of a whole set and reject all but the first of each.

In the first pass, each part of the hash space (a record's ``key`` and the bands of its ``signature``) is read from all
shards, and of records that share a hash the first is kept, in the order of the set, which no worker changes. Memory is
that of one part. In the second pass each shard rejects the duplicates found in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.actors.text.parsing import KEY, SIGNATURE
from gristmill.models.text import minhash
from gristmill.shards.dataset import open_sealed
from gristmill.shards.schema import ID, PARENT_ID
from gristmill.shards.settings import HOW, Settings
from gristmill.shards.stage import Actor, BatchLimits

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
NONE_HERE = "no duplicates in this part"

PARTS = pa.schema([ID, pa.field("part", pa.int32())])
FOUND_FIELDS = (
    pa.field("record", pa.string()),  # the later one
    pa.field("first", pa.string()),  # the one that it duplicates
    pa.field("similarity", pa.float32()),  # estimated Jaccard similarity; 1: equal words
    pa.field("near", pa.bool_()),
)
_BYTES = 400  # memory per record while a part is sorted, if one part holds all
_BYTES_NEAR = 2600


class DuplicateSettings(Settings):
    """The definition of duplicates, and the memory of the search."""

    near: float | None = Field(0.8, ge=0.5, le=1)
    """The share of character 4-grams in common with an earlier record from which a record is rejected; ``null``: only
    equal records are."""
    memory: int = Field(1 << 30, gt=0, json_schema_extra=HOW)
    """Memory of one part of the search, in bytes."""

    def parts(self, records: int) -> int:
        """Return the number of parts for a search among so many records."""
        return max(1, math.ceil(records * (_BYTES if self.near is None else _BYTES_NEAR) / self.memory))


class SearchSettings(DuplicateSettings):
    """A search in parts."""

    number: int = Field(ge=1)
    """The number of parts."""


class Search(Actor):
    """Returns the records of each ``part`` (:data:`PARTS`) that duplicate an earlier one.

    A record duplicates the first one with the same key or, if ``near`` is given, with an equal band and an estimated
    similarity of at least ``near``. ``records``: the set to search.
    """

    name = "search"
    adds = FOUND_FIELDS
    batch = BatchLimits(1)
    fan_out = True
    settings: SearchSettings

    def __init__(self, settings: SearchSettings, records: str) -> None:
        super().__init__(settings)
        self._near, self._set = settings.near, open_sealed(records)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each duplicate found in the batch's parts."""
        found = [self._search(row["id"], row["part"]) for row in batch.to_pylist()]
        return pa.concat_tables(found)

    def _search(self, name: str, part: int) -> pa.Table:
        meeting, at, signature = self._read(part)
        order = np.lexsort((at, meeting))
        meeting, at = meeting[order], at[order]
        begins = np.flatnonzero(np.concatenate([[True], meeting[1:] != meeting[:-1]])) if len(meeting) else order
        leader = np.repeat(begins, np.diff(np.append(begins, len(meeting))))
        later = np.flatnonzero(leader != np.arange(len(meeting)))
        first = at[leader[later]]
        exact = meeting[later] % np.uint64(2) == 0
        alike = np.ones(len(later), np.float32)
        if signature is not None and len(later):
            alike[~exact] = minhash.similarity(signature[order[later[~exact]]], signature[order[leader[later[~exact]]]])
        kept = exact | (alike >= np.float32(self._near or 2.0))
        later, first, exact, alike = at[later][kept], first[kept], exact[kept], alike[kept]
        # One row per record: equal before near duplicates, then the most similar.
        order = np.lexsort((first, -alike, ~exact, later))
        later, first, exact, alike = later[order], first[order], exact[order], alike[order]
        once = np.concatenate([[True], later[1:] != later[:-1]]) if len(later) else np.zeros(0, bool)
        return self._table(name, part, later[once], first[once], exact[once], alike[once])

    def _read(self, part: int) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the hashes of a part (even ones: keys), the position of each one's record, and its signature."""
        columns = [KEY.name, SIGNATURE.name] if self._near is not None else [KEY.name]
        meeting: list[np.ndarray] = []
        at: list[np.ndarray] = []
        signature: list[np.ndarray] = []
        start = 0
        for table in self._set.tables(columns):
            keys = table[KEY.name].to_numpy().astype(np.int64).view(np.uint64)
            numbers = (minhash.mixed(keys) & ~np.uint64(1))[:, None]
            own = None
            if self._near is not None:
                whole = b"".join(table[SIGNATURE.name].to_pylist())
                own = np.frombuffer(whole, np.uint16).reshape(-1, minhash.NUMBERS)
                numbers = np.concatenate([numbers, minhash.bands(own) | np.uint64(1)], axis=1)
            rows, columns_ = np.nonzero((numbers >> np.uint64(1)) % np.uint64(self.settings.number) == part)
            meeting.append(numbers[rows, columns_])
            at.append(start + rows)
            if own is not None:
                signature.append(own[rows])
            start += table.num_rows
        if not meeting:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64), None
        return np.concatenate(meeting), np.concatenate(at), np.concatenate(signature) if signature else None

    def _table(
        self, name: str, part: int, later: np.ndarray, first: np.ndarray, exact: np.ndarray, alike: np.ndarray
    ) -> pa.Table:
        schema = pa.schema([ID, PARENT_ID, PARTS.field("part"), *FOUND_FIELDS, pa.field("reject_reason", pa.string())])
        if not len(later):
            row = {"id": name, "parent_id": name, "part": part, "reject_reason": NONE_HERE}
            return pa.Table.from_pylist([row], schema=schema)
        names = self._names(np.unique(np.concatenate([later, first])))
        records, firsts = [names[n] for n in later.tolist()], [names[n] for n in first.tolist()]
        columns: list[Any] = [
            [f"{name}/{record}" for record in records],
            [name] * len(records),
            [part] * len(records),
            records,
            firsts,
            alike,
            ~exact,
            pa.nulls(len(records), pa.string()),
        ]
        return pa.table([pa.array(values, f.type) for values, f in zip(columns, schema, strict=True)], schema=schema)

    def _names(self, places: np.ndarray) -> dict[int, str]:
        """Return the ids of the records at these positions, by reading the set once more."""
        out: dict[int, str] = {}
        start = 0
        for number, entry in enumerate(self._set.shards):
            begin, end = np.searchsorted(places, [start, start + entry.rows])
            if end > begin:
                own = places[begin:end]
                ids = self._set.read(number, ["id"])["id"].take(own - start).to_pylist()
                out |= dict(zip(own.tolist(), ids, strict=True))
            start += entry.rows
        return out


class RejectFound(Actor):
    """Rejects the duplicates of a search (``found``); drops ``key`` and ``signature``.

    Memory is 9 bytes per duplicate: digests of the ids.
    """

    name = "repeated"
    batch = BatchLimits(2048)
    settings: DuplicateSettings

    def __init__(self, settings: DuplicateSettings, found: str) -> None:
        super().__init__(settings)
        keys, near = [np.zeros(0, np.uint64)], [np.zeros(0, bool)]
        for table in open_sealed(found).tables(["record", "near"]):
            keys.append(_digests(table["record"].to_pylist()))
            near.append(np.asarray(table["near"].to_numpy(zero_copy_only=False), bool))
        whole, alike = np.concatenate(keys), np.concatenate(near)
        order = np.lexsort((alike, whole))  # of a record found twice, its equal duplicate first
        self._keys, self._near = whole[order], alike[order]

    @classmethod
    def contract(cls, settings: DuplicateSettings) -> Mapping[str, Any]:
        """Return the dropped columns: records have signatures only if near duplicates are searched for."""
        return {"drops": (KEY.name,) if settings.near is None else (KEY.name, SIGNATURE.name)}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch without ``key`` and ``signature``, with ``reject_reason``."""
        keys = _digests(batch["id"].to_pylist())
        place = np.searchsorted(self._keys, keys)
        reasons: list[str | None] = [None] * len(keys)
        for row in np.flatnonzero(place < len(self._keys)).tolist():
            if self._keys[place[row]] == keys[row]:
                reasons[row] = NEAR_DUPLICATE if self._near[place[row]] else DUPLICATE
        kept = [name for name in batch.column_names if name not in (KEY.name, SIGNATURE.name)]
        return batch.select(kept).append_column("reject_reason", pa.array(reasons, pa.string()))


def _digests(names: list[str]) -> np.ndarray:
    return np.array(
        [int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") for name in names], np.uint64
    )
