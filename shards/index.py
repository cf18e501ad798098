"""The index: the plan that cuts a corpus into shards, independent of the number of workers (law 1)."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pydantic import Field

from gristmill.shards.ahead import read_ahead
from gristmill.shards.dataset import SealedSet, ShardEntry
from gristmill.shards.errors import UserError
from gristmill.shards.parquet import StoredFile, read_table
from gristmill.shards.settings import Settings
from gristmill.shards.stage import PART


class Cut(Settings):
    """Upper limits of a shard; the first one reached ends it. Each shard holds at least one row."""

    rows: int = Field(2000, ge=1)
    """Records."""
    seconds: float = Field(3600.0, gt=0)
    """Seconds of audio: the column ``duration``."""
    bytes: int = Field(256 << 20, gt=0)
    """Bytes of source files: the column ``size``."""

    def shards(self, source: SealedSet) -> Iterator[ShardSpec]:
        """Plan the shards of a set."""
        return cut_shards(source, self)

    def number(self, records: float, seconds: float) -> int:
        """Return about how many shards so many records, with so many seconds of audio, are cut into."""
        return max(1, math.ceil(max(records / self.rows, seconds / self.seconds)))


class ByPart(Settings):
    """The shards of a dealt set's merge: one for each part, of its rows in all shards (:mod:`shards.exchange`)."""

    parts: int = Field(ge=1)
    """The number of parts."""

    def shards(self, source: SealedSet) -> Iterator[ShardSpec]:
        """Plan the shards of a set; reads its column ``part``, a few source shards at a time."""
        slices: list[list[Slice]] = [[] for _ in range(self.parts)]
        for entry, ends in self.ends(source):
            for part, (start, stop) in enumerate(itertools.pairwise(ends.tolist())):
                if stop > start:
                    slices[part].append(Slice(source.url, entry, start, stop))
        for part, own in enumerate(slices):
            yield ShardSpec(f"{part:06d}", tuple(own), sum(one.rows for one in own))

    def ends(self, source: SealedSet) -> Iterator[tuple[ShardEntry, np.ndarray]]:
        """Yield each shard of a set, and the rows where its parts begin and the last one ends, (parts + 1,)."""

        def found(entry: ShardEntry) -> tuple[ShardEntry, np.ndarray]:
            part = read_table(source.url, entry, [PART.name])[PART.name].to_numpy()
            return entry, np.searchsorted(part, np.arange(self.parts + 1)).astype(np.int32)

        yield from read_ahead(found, source.shards)

    def number(self, records: float, seconds: float) -> int:
        """Return the number of shards."""
        return self.parts


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows ``start`` to ``stop`` of a committed file of the set at ``folder``."""

    folder: str
    file: StoredFile
    start: int
    stop: int

    @property
    def rows(self) -> int:
        """Their number."""
        return self.stop - self.start

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows."""
        return read_table(self.folder, self.file, columns).slice(self.start, self.rows)

    def read_apart(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the rows by reading only their row groups, for slices that are row groups of their own."""
        return read_table(self.folder, self.file, columns, (self.start, self.stop))


@dataclass(frozen=True)
class Join:
    """Columns of another set, joined by record: its ``id`` equals the row's ``id`` or, in copies, its ``parent_id``.

    Both sets must have been cut alike (one made from the other, or both from a third), so that shards correspond;
    re-runs of quarantined records belong to the shard of the index they were planned in.
    """

    dataset: SealedSet
    columns: tuple[str, ...]
    on: str = "id"


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """One shard to make, by its input rows. ``only`` restricts it to the records named (those to be re-run)."""

    name: str
    slices: tuple[Slice, ...]
    rows: int
    joins: tuple[tuple[tuple[Slice, ...], tuple[str, ...], str], ...] = ()  # (files, columns, on)
    only: tuple[str, ...] | None = None
    requeue_of: str | None = None

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Return the input rows, in order."""
        parts = [part.read(columns) for part in self.slices]
        table = pa.concat_tables(parts) if len(parts) > 1 else parts[0]
        if self.only is None:
            return table
        return table.filter(pa.compute.is_in(table.column("id"), value_set=pa.array(self.only, pa.string())))

    def to_json(self) -> dict[str, Any]:
        """Return the shard as an entry of the index file."""
        return {
            "name": self.name,
            "rows": self.rows,
            "slices": [[s.file.path, s.start, s.stop] for s in self.slices],
        }

    @staticmethod
    def from_json(value: dict[str, Any], folder: str, files: Mapping[str, StoredFile]) -> ShardSpec:
        """Return the shard of a step without joins from its entry in the index file.

        ``files`` are those of the input at ``folder`` by path; it may have moved since.
        """
        slices = [Slice(folder, files[path], start, stop) for path, start, stop in value["slices"]]
        return ShardSpec(value["name"], tuple(slices), value["rows"])


def keep_shards(source: SealedSet, joins: tuple[Join, ...] = ()) -> Iterator[ShardSpec]:
    """Plan one shard for each shard of the source, under the same name."""
    partners = [(_by_base(join.dataset), join) for join in joins]
    for entry in source.shards:
        files = []
        for shards, join in partners:
            found = shards.get(base_name(entry.name))
            if found is None:
                raise UserError(
                    f"{join.dataset.name} cannot be joined to {source.name}: it has no shard {entry.name}; "
                    "expected sets that were cut alike"
                )
            files.append((tuple(found), join.columns, join.on))
        yield ShardSpec(entry.name, (_whole(source, entry),), entry.rows, tuple(files))


def base_name(shard: str) -> str:
    """Return the name of the planned shard: without the suffixes of re-runs of quarantined records."""
    return re.sub(r"(-r\d+)+$", "", shard)


def _by_base(dataset: SealedSet) -> dict[str, list[Slice]]:
    files: dict[str, list[Slice]] = {}
    for entry in dataset.shards:
        files.setdefault(base_name(entry.name), []).append(_whole(dataset, entry))
    return files


def _whole(dataset: SealedSet, entry: ShardEntry) -> Slice:
    return Slice(dataset.url, entry, 0, entry.rows)


def cut_shards(source: SealedSet, cut: Cut) -> Iterator[ShardSpec]:
    """Plan shards by rows, seconds and bytes. Reads only the numeric columns, a few source shards at a time."""
    columns = [name for name in ("duration", "size") if name in source.schema.names]

    def read(entry: ShardEntry) -> tuple[ShardEntry, list[float], list[float]]:
        table = read_table(source.url, entry, columns) if columns else None
        return entry, _values(table, "duration", entry.rows), _values(table, "size", entry.rows)

    slices: list[Slice] = []
    rows = number = 0
    seconds = size = 0.0
    for entry, durations, sizes in read_ahead(read, source.shards):
        start = 0
        for row in range(entry.rows):
            full = rows >= cut.rows or seconds + durations[row] > cut.seconds or size + sizes[row] > cut.bytes
            if full and rows:
                if row > start:
                    slices.append(Slice(source.url, entry, start, row))
                yield ShardSpec(f"{number:06d}", tuple(slices), rows)
                number, start, slices, rows, seconds, size = number + 1, row, [], 0, 0.0, 0.0
            rows, seconds, size = rows + 1, seconds + durations[row], size + sizes[row]
        if entry.rows > start:
            slices.append(Slice(source.url, entry, start, entry.rows))
    if rows:
        yield ShardSpec(f"{number:06d}", tuple(slices), rows)


def _values(table: pa.Table | None, name: str, rows: int) -> list[float]:
    if table is None or name not in table.column_names:
        return [0.0] * rows
    return [value or 0.0 for value in table.column(name).to_pylist()]
