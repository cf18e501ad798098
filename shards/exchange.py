"""Rows by key, over all shards: counts and sums, joins, sorted groups, the first few of each key.

It takes two steps. :func:`deal` makes of each shard one whose rows lie by part: a hash of a row's key says which. And
:func:`merge` makes one shard of each part: its rows in all dealt shards, sorted by key, are given to a reducer as whole
groups. Both are ordinary steps, on any runner: the number of parts follows from the data, and the order of a group from
that of the input's rows, so that no byte depends on the number of workers.

Accounting: a dealt row is its record, under the same ``id``. Of a merge the *group* is what is out, rejected or
quarantined, and with it all its records: a merged row names its group in ``parent_id`` and holds in ``records`` how
many records the group has. The plan has each dealt row in one part, so an audit compares the counts of each group.

A worker holds about :data:`gristmill.shards.merging.MEMORY` of a part, or the memory that the reducer's stage asks for.
What is more is sorted on this machine's disk, and one group that is larger is given to its reducer a table at a time.
Beside that a worker holds its shard's compressed bytes, the rows of its part in one dealt shard, and what its reducer
rejects; and a merge's plan, which the driver holds, has an entry for each part of each dealt shard.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.shards.dataset import SealedSet
from gristmill.shards.errors import UserError
from gristmill.shards.index import ByPart, Slice
from gristmill.shards.merging import MEMORY, SHARE
from gristmill.shards.random import mixed
from gristmill.shards.settings import Settings
from gristmill.shards.stage import GROUP, PART, PARTS, Actor, BatchLimits, Stage
from gristmill.shards.step import Step

MOST_PARTS = 4096
_ADDED = 32  # bytes of a row's group and part
_SEED = np.uint64(0x9E3779B97F4A7C15)
_LAST = np.array([(1 << 8 * size) - 1 for size in range(9)], np.uint64)  # masks of a word's first bytes


class DealSettings(Settings):
    """The key of rows, and the parts that they are dealt to."""

    key: tuple[str, ...] = Field(min_length=1)
    """The columns whose values are the key: text, whole numbers, booleans or dates."""
    parts: int = Field(ge=1, le=MOST_PARTS)
    """The number of parts."""
    columns: tuple[str, ...] | None = None
    """The columns that are kept beside ``id``; ``None``: all."""
    hashed: bool = True
    """Whether a hash of the key says the part; if not, the key is the part's number."""


class Deal(Actor):
    """Adds ``group``, the text of a row's key, and ``part``, by which its shard is sorted when it is committed.

    A record without a key is rejected.
    """

    name = "deal"
    adds = (GROUP, PART)
    parts = PART.name
    batch = BatchLimits(rows=1 << 16)
    settings: DealSettings

    @classmethod
    def contract(cls, settings: DealSettings) -> Mapping[str, Any]:
        """Return the columns that are read and kept."""
        metadata = {PARTS.decode(): str(settings.parts)}
        return {"columns": settings.key, "keeps": settings.columns, "metadata": metadata}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the batch with ``group``, ``part`` and ``reject_reason``."""
        groups = group_names(batch, self.settings.key)
        parts = self._numbers(batch, groups)
        lacking = pc.if_else(pc.is_null(groups), f"no {' or '.join(self.settings.key)}", pa.scalar(None, pa.string()))
        for field, values in ((GROUP, groups), (PART, parts), (pa.field("reject_reason", pa.string()), lacking)):
            if field.name in batch.column_names:
                batch = batch.drop_columns(field.name)
            batch = batch.append_column(field, values)
        return batch

    def _numbers(self, batch: pa.Table, groups: pa.Array) -> pa.Array:
        if self.settings.hashed:
            return pa.array(part_of(hashes(groups), self.settings.parts), PART.type)
        given = batch[self.settings.key[0]].cast(PART.type).combine_chunks()
        least, most = pc.min_max(given).as_py().values()
        if most is not None and not 0 <= least <= most < self.settings.parts:
            wanted = f"expected numbers of {self.settings.parts} parts"
            raise UserError(f"deal: {self.settings.key[0]} is from {least} to {most}; {wanted}, from 0 on")
        return given


def deal(
    name: str,
    data: SealedSet,
    key: Sequence[str],
    columns: Sequence[str] | None = None,
    *,
    parts: int | None = None,
    memory: int = MEMORY,
) -> Step:
    """Return the step that deals a set's rows to parts by their key.

    Args:
        name: The name of the dealt set.
        data: The set.
        key: The columns whose values are the key.
        columns: The columns that the merge needs, beside ``id``; by default all.
        parts: Their number; by default as many as let a part fit into a worker's memory.
        memory: Bytes of a worker that merges.

    Raises:
        UserError: a column is missing, or its values cannot be a key.

    Example:
        >>> from gristmill.cluster.inprocess import InProcessRunner
        >>> from gristmill.pipelines.run import Run
        >>> from gristmill.shards.reducers import Sums, SumSettings
        >>> run = Run("made/sums", InProcessRunner())
        >>> sales = pa.table({"id": ["1", "2", "3"], "shop": ["b", "a", "b"], "price": [2, 5, 4]})
        >>> dealt = run.step(deal("dealt", run.table("sales", sales), ["shop"], ["price"]))
        >>> made = run.step(merge("by_shop", dealt, Sums.stage(SumSettings(sums={"price": "int64"}))))
        >>> [(row["id"], row["records"], row["price"]) for row in made.read(0).to_pylist()]
        [('a', 1, 5), ('b', 2, 6)]
    """
    for what, names in (("key", key), ("columns", columns)):
        if isinstance(names, str):
            raise UserError(f"{name}: {what} is {names!r}; expected a list of columns")
    if memory < 1:
        raise UserError(f"{name}: memory is {memory}; expected bytes, at least 1")
    missing = [one for one in (*key, *(columns or ())) if one not in data.schema.names]
    if missing:
        raise UserError(
            f"{name}: {data.name} has no column {', '.join(missing)}; it has {', '.join(data.schema.names)}"
        )
    group_names(data.schema.empty_table(), key)  # refuses values that cannot be a key before any work
    kept = data.schema.names if columns is None else columns
    own = [one.name for one in (GROUP, PART) if one.name in kept and PARTS not in (data.schema.metadata or {})]
    if own:
        raise UserError(
            f"{name}: {' and '.join(own)} is what dealing itself writes; expected other names, or columns without them"
        )
    if parts is None:
        parts = count_parts(data, [*key, *kept], memory)
    wanted = DealSettings(key=tuple(key), parts=parts, columns=None if columns is None else tuple(columns))
    return Step(name, (Deal.stage(wanted),), data)


def merge(name: str, dealt: SealedSet, *stages: Stage, max_quarantine: float = 0.01) -> Step:
    """Return the step that merges a dealt set; of its stages the first is a reducer's
    (:mod:`gristmill.shards.reducers`).

    Its rows have ``id``, ``parent_id`` (their group: the text of the key), ``records`` (how many records the group
    has), and what the reducer keeps and adds. An example is at :func:`deal`.

    Raises:
        UserError: the set is not dealt, or the first stage is no reducer's.
    """
    if not stages or not stages[0].merges:
        found = f"{stages[0].name} is no reducer" if stages else "there is no stage"
        raise UserError(f"{name}: {found}; expected that of a reducer (gristmill.shards.reducers) as the first")
    return Step(name, stages, dealt, cut=ByPart(parts=parts_of(dealt)), max_quarantine=max_quarantine)


def parts_of(dealt: SealedSet) -> int:
    """Return the number of parts of a dealt set.

    Raises:
        UserError: the set is not dealt.
    """
    number = (dealt.schema.metadata or {}).get(PARTS)
    if number is None:
        raise UserError(f"{dealt.name} is not dealt by key; expected a set of gristmill.shards.exchange.deal")
    return int(number)


class Parts:
    """The parts of a dealt set, to be read one by one; where each shard's begin is found once."""

    def __init__(self, dealt: SealedSet) -> None:
        self._url, self._ends = dealt.url, list(ByPart(parts=parts_of(dealt)).ends(dealt))

    def read(self, part: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield the rows of a part, shard by shard."""
        for entry, ends in self._ends:
            start, stop = ends[part : part + 2].tolist()
            if stop > start:
                yield Slice(self._url, entry, start, stop).read_apart(columns)


def count_parts(data: SealedSet, columns: Sequence[str], memory: int = MEMORY) -> int:
    """Return how many parts of a set's columns fit into the memory of a worker each, by the rows of its first shard."""
    entry = next((n for n, entry in enumerate(data.shards) if entry.rows), None)
    if entry is None:
        return 1
    first = data.read(entry, list(dict.fromkeys(["id", *columns])))
    size = (first.nbytes / first.num_rows + _ADDED) * data.records
    return parts_for(size, memory)


def parts_for(size: float, memory: int) -> int:
    """Return into how many parts so many bytes of rows are dealt, so that each fits into the memory of a worker."""
    return min(MOST_PARTS, max(1, math.ceil(size * SHARE / memory)))


def group_names(batch: pa.Table, key: Sequence[str]) -> pa.Array:
    """Return the text of each row's key, null where a value is; different keys have different texts.

    Raises:
        UserError: a column's values cannot be a key.

    Example:
        >>> group_names(pa.table({"shop": ["a", None], "day": [3, 4]}), ["shop", "day"]).to_pylist()
        ['a\\t3', None]
    """
    texts = [_texts(batch[name].combine_chunks(), name) for name in key]
    return texts[0] if len(texts) == 1 else pc.binary_join_element_wise(*texts, "\t")


def _texts(values: pa.Array, name: str) -> pa.Array:
    kind = values.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        # A tab is between the columns of a key.
        data = values.buffers()[2]
        letters = np.frombuffer(data, np.uint8) if data else np.zeros(0, np.uint8)
        for plain, escaped in (("\\", "\\\\"), ("\t", "\\t")):
            if (letters == ord(plain)).any():
                values = pc.replace_substring(values, plain, escaped)
        return values.cast(pa.string())
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_date(kind):
        return values.cast(pa.string())
    raise UserError(f"key {name}: its values are {kind}; expected text, whole numbers, booleans or dates")


def hashes(texts: pa.Array) -> np.ndarray:
    """Return a 64-bit hash of each text, (texts,) uint64: of its UTF-8, eight bytes at a time, and its length.

    The same on every machine; keys that somebody chose to collide would only make a part large. A null has that of "".
    """
    if not len(texts):
        return np.zeros(0, np.uint64)
    _, offsets, data = texts.buffers()
    at = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    start, stop = int(at[0]), int(at[-1])
    raw = np.zeros(stop - start + 8, np.uint8)
    if stop > start:
        raw[:-8] = np.frombuffer(data, np.uint8)[start:stop]
    words = np.ndarray((len(raw) - 7,), "<u8", raw, strides=(1,))  # the eight bytes from each byte on
    left, at = np.diff(at), at[:-1] - start
    found = mixed(left.astype(np.uint64) + _SEED)
    rows: Any = slice(None)
    while True:
        more = left > 0
        if not more.all():
            rows = np.flatnonzero(more) if isinstance(rows, slice) else rows[more]
            at, left = at[more], left[more]
        if not len(at):
            return found
        word = words[at] & _LAST[np.minimum(left, 8)]
        found[rows] = mixed((found[rows] ^ word) + _SEED)
        at, left = at + 8, left - 8


def part_of(hashed: np.ndarray, parts: int) -> np.ndarray:
    """Return which of ``parts`` ranges of equal width each hash is in."""
    return (((hashed >> np.uint64(32)) * np.uint64(parts)) >> np.uint64(32)).astype(np.int32)
