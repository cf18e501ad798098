"""Actors that find equal and nearly equal records of a whole set and reject all but the first of each.

Records meet by key (:mod:`gristmill.shards.exchange`): ``Meet`` makes a row for a record's ``key`` and for each band of
its ``signature``, and of the rows that meet in a group ``Search`` compares each with the first, in the set's order.
``RejectFound`` rejects the duplicates found.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.actors.audio import set_column
from gristmill.models import minhash
from gristmill.models.normalise import words
from gristmill.shards.dataset import open_sealed
from gristmill.shards.exchange import parts_for
from gristmill.shards.random import mixed
from gristmill.shards.reducers import Reducer
from gristmill.shards.runs import LargeGroup, group_sizes, group_starts
from gristmill.shards.schema import PARENT_ID
from gristmill.shards.settings import HOW, Settings
from gristmill.shards.stage import GROUP, Actor, BatchLimits

DUPLICATE = "duplicate"
NEAR_DUPLICATE = "near duplicate"
NONE_HERE = "nothing alike"

KEY = pa.field("key", pa.int64())  # equal where the words are equal
SIGNATURE = pa.field("signature", pa.binary(2 * minhash.NUMBERS))  # 64 uint16
MEETING = pa.field("meeting", pa.int64())  # a hash: of a record's key, or of a band of its signature
FOUND_FIELDS = (
    pa.field("record", pa.string()),  # the later one
    pa.field("first", pa.string()),  # the one that it duplicates
    pa.field("similarity", pa.float32()),  # estimated Jaccard similarity; 1: equal words
    pa.field("near", pa.bool_()),
)
_BYTES = 150  # of a dealt row
_BYTES_NEAR = 250  # of one with a signature


class DuplicateSettings(Settings):
    """The definition of duplicates, and the memory of the search."""

    near: float | None = Field(0.8, ge=0.5, le=1)
    """The share of character 4-grams in common with an earlier record from which a record is rejected; ``null``: only
    equal records are."""
    memory: int = Field(1 << 30, gt=0, json_schema_extra=HOW)
    """Memory of a worker that searches, in bytes."""

    def parts(self, records: int) -> int:
        """Return the number of parts for a search among so many records."""
        row = _BYTES if self.near is None else _BYTES + minhash.BANDS * _BYTES_NEAR
        return parts_for(records * row, self.memory)


def key_of(texts: Sequence[str]) -> int:
    """Return a hash by which equal texts are found: the first 64 bits of their digest."""
    digest = hashlib.blake2b("\x1f".join(texts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


class Sign(Actor):
    """Adds ``key`` and ``signature``, by which equal and nearly equal texts are found, to records with ``text``."""

    name = "sign"
    adds = (KEY, SIGNATURE)
    columns = ("text",)
    batch = BatchLimits(2048)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``key`` and ``signature``."""
        texts = [" ".join(words(text or "")) for text in batch["text"].to_pylist()]
        batch = set_column(batch, KEY.name, pa.array([key_of([text]) for text in texts], KEY.type))
        found = [numbers.tobytes() for numbers in minhash.signatures(texts)]
        return set_column(batch, SIGNATURE.name, pa.array(found, SIGNATURE.type))


class Meet(Actor):
    """Makes a row for the key of each record and, if ``near`` is given, for each band of its signature.

    The key's row has no ``signature``.
    """

    name = "meet"
    adds = (PARENT_ID, MEETING, pa.field(SIGNATURE.name, SIGNATURE.type))
    batch = BatchLimits(4096)
    fan_out = True
    settings: DuplicateSettings

    @classmethod
    def contract(cls, settings: DuplicateSettings) -> Mapping[str, Any]:
        """Return the columns that are read."""
        columns = (KEY.name,) if settings.near is None else (KEY.name, SIGNATURE.name)
        return {"columns": columns, "keeps": ()}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows of a batch's records, each record's one after the other."""
        keys = batch[KEY.name].to_numpy().astype(np.int64).view(np.uint64)
        meeting = (mixed(keys) & ~np.uint64(1))[:, None]  # even: a key; odd: a band
        if self.settings.near is not None:
            own = _signatures(batch[SIGNATURE.name])
            meeting = np.concatenate([meeting, minhash.bands(own) | np.uint64(1)], axis=1)
        each = meeting.shape[1]
        record = np.repeat(np.arange(batch.num_rows), each)
        place = np.tile(np.arange(each), batch.num_rows)
        ids = batch["id"].take(record)
        if self.settings.near is None:
            signatures = pa.nulls(len(ids), SIGNATURE.type)
        else:
            signatures = batch[SIGNATURE.name].take(pa.array(record, mask=place == 0))
        names = pc.binary_join_element_wise(ids, pa.array(place).cast(pa.string()), "#")
        values = [names, ids, pa.array(meeting.ravel().view(np.int64)), signatures]
        return pa.table(values, ["id", "parent_id", MEETING.name, SIGNATURE.name])


class Search(Reducer):
    """Returns the records of each group that duplicate its first one: all with its key and, if ``near`` is given, those
    with an equal band and an estimated similarity of at least ``near``. Groups may be of any size."""

    name = "search"
    adds = FOUND_FIELDS
    columns = ("id", PARENT_ID.name, SIGNATURE.name)
    settings: DuplicateSettings

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each duplicate."""
        starts = group_starts(batch)
        leader = np.repeat(starts, group_sizes(starts, batch.num_rows))
        later = np.flatnonzero(leader != np.arange(batch.num_rows))
        found = self._alike(batch.take(later), batch.take(leader[later]))
        alone = batch.take(starts).filter(pc.invert(pc.is_in(batch[GROUP.name].take(starts), found["parent_id"])))
        return pa.concat_tables([found, _rejected(alone[GROUP.name])])

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the duplicates of a large group."""
        first: pa.Table | None = None
        some = False
        for table in group:
            if first is None:
                first, table = table.slice(0, 1).combine_chunks(), table.slice(1)
            found = self._alike(table, first.take(np.zeros(table.num_rows, np.int64)))
            some = some or found.num_rows > 0
            yield found
        if not some:
            yield _rejected(pa.array([group.name]))

    def _alike(self, later: pa.Table, first: pa.Table) -> pa.Table:
        """Return those of some rows that duplicate the first one of their group, given beside them."""
        exact = later[SIGNATURE.name].is_null().to_numpy()
        alike = np.ones(len(exact), np.float32)
        if not exact.all():
            banded = pa.array(~exact)
            own, other = (_signatures(rows[SIGNATURE.name].filter(banded)) for rows in (later, first))
            alike[~exact] = minhash.similarity(own, other)
        kept = pa.array(exact | (alike >= np.float32(self.settings.near or 2.0)))
        values = [later["id"], later[GROUP.name], later[PARENT_ID.name], first[PARENT_ID.name], alike, ~exact]
        found = pa.table(values, ["id", "parent_id", *(f.name for f in FOUND_FIELDS)]).filter(kept)
        return found.append_column(_REASON, pa.nulls(found.num_rows, _REASON.type))


_REASON = pa.field("reject_reason", pa.string())
_RESULT = pa.schema([pa.field("id", pa.string()), PARENT_ID, *FOUND_FIELDS, _REASON])


def _rejected(groups: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Return the rows of groups without duplicates."""
    nulls = [pa.nulls(len(groups), f.type) for f in FOUND_FIELDS]
    return pa.table([groups, groups, *nulls, pa.array([NONE_HERE] * len(groups), pa.string())], schema=_RESULT)


def _signatures(values: pa.ChunkedArray) -> np.ndarray:
    """Return signatures as (N, 64) uint16."""
    return np.frombuffer(b"".join(values.to_pylist()), np.uint16).reshape(-1, minhash.NUMBERS)


class RejectFound(Actor):
    """Rejects the duplicates of a search (``found``); drops ``key`` and ``signature``.

    Memory is 9 bytes for each time that a duplicate is found: digests of the ids.
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
        order = np.lexsort((alike, whole))  # of a record found several times, its equal duplicate first
        whole, alike = whole[order], alike[order]
        once = np.append(True, whole[1:] != whole[:-1])[: len(whole)]
        self._keys, self._near = whole[once], alike[once]

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
