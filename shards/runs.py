"""The rows of a part in the order of their groups, within a memory: an external merge sort.

Rows are sorted by ``group`` (by the bytes of its UTF-8), then by the columns of an order, then by their position, so
that the result does not depend on the memory. As much as fits is sorted at once; of a larger part, sorted runs lie on
this machine's disk and are merged a batch at a time (Knuth, The Art of Computer Programming, volume 3, 5.4).
"""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards.stage import GROUP

FAN_IN = 16  # runs merged at once: a batch of each is in memory
_LEAST = 1 << 12  # bytes of a batch


def sorted_rows(tables: Iterable[pa.Table], order: Sequence[str], limit: int, folder: Path) -> Iterator[pa.Table]:
    """Yield the rows of tables, sorted, in one table, or in several if they have more than ``limit`` bytes in total.

    Args:
        tables: Tables of one schema, with a column ``group``.
        order: Columns that sort the rows of a group; ``-column``: the largest first. Nulls are last.
        limit: Bytes of rows that are sorted at a time.
        folder: A temporary folder for what is more.
    """
    runs: list[Path] = []
    held: list[pa.Table] = []
    size = 0
    for table in tables:
        held.append(table)
        size += table.nbytes
        if size > limit:
            runs.append(_store([_sorted(held, order)], folder / f"run-{len(runs)}", limit))
            held, size = [], 0
    if not runs:
        if held:
            yield _sorted(held, order)
        return
    if held:
        runs.append(_store([_sorted(held, order)], folder / f"run-{len(runs)}", limit))
        held.clear()
    level = 0
    while len(runs) > FAN_IN:  # neighbours, so that equal rows keep their order
        level += 1
        some = [runs[at : at + FAN_IN] for at in range(0, len(runs), FAN_IN)]
        runs = [_store(_merged(own, order), folder / f"run-{level}-{n}", limit) for n, own in enumerate(some)]
        for path in itertools.chain(*some):
            path.unlink()
    yield from _merged(runs, order)


def _sorted(tables: list[pa.Table], order: Sequence[str]) -> pa.Table:
    """Return the rows of tables in order; the list is emptied, so that no row is held twice for long."""
    table = pa.concat_tables(tables)
    tables.clear()
    names = table[GROUP.name].combine_chunks().dictionary_encode()
    rank = np.empty(len(names.dictionary), np.int32)
    rank[pc.sort_indices(names.dictionary).to_numpy()] = np.arange(len(rank), dtype=np.int32)
    ranks = rank[names.indices.to_numpy()]
    if order:
        by = [_direction(name) for name in order]
        keys = table.select([name for name, _ in by]).append_column("#group", pa.array(ranks))
        keys = keys.append_column("#row", pa.array(np.arange(len(ranks))))
        rows = pc.sort_indices(keys, [("#group", "ascending"), *by, ("#row", "ascending")])
    else:
        rows = pa.array(np.argsort(ranks, kind="stable"))
    schema, columns = table.schema, []
    for name in schema.names:
        columns.append(table[name].combine_chunks().take(rows))
        table = table.drop_columns(name)  # at most one column is held twice
    return pa.table(columns, schema=schema)


def _direction(name: str) -> tuple[str, str]:
    return (name[1:], "descending") if name.startswith("-") else (name, "ascending")


def _store(tables: Iterable[pa.Table], path: Path, limit: int) -> Path:
    """Write sorted rows in batches of which a merge holds one of each run."""
    writer = None
    for table in tables:
        writer = writer or pa.ipc.new_file(str(path), table.schema)
        rows = max(1, max(limit // FAN_IN, _LEAST) * table.num_rows // max(1, table.nbytes))
        writer.write_table(table, max_chunksize=rows)
    if writer is not None:
        writer.close()
    return path


class _Run:
    """A sorted run on disk, read a batch at a time."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.open_file(pa.OSFile(str(path)))
        self._next = 0
        self.head = self._file.schema.empty_table()
        self.fill()

    def fill(self) -> None:
        """Read the next batch once the last one is used up."""
        while not self.head.num_rows and not self.last:
            self.head = pa.Table.from_batches([self._file.get_batch(self._next)])
            self._next += 1

    @property
    def last(self) -> bool:
        """Whether no batch is left to read."""
        return self._next == self._file.num_record_batches

    def take(self, rows: int) -> pa.Table:
        """Return the next rows of the batch."""
        taken, self.head = self.head.slice(0, rows), self.head.slice(rows)
        return taken


def _merged(paths: Sequence[Path], order: Sequence[str]) -> Iterator[pa.Table]:
    """Yield the rows of sorted runs in order; of equal rows, those of earlier runs come first."""
    runs = [_Run(path) for path in paths]
    compared = _Comparison(order)
    while any(run.head.num_rows for run in runs):
        # What is not after the end of each batch that another one follows is safe from all that is still on disk.
        ends = [(compared.key(run.head, run.head.num_rows - 1), n) for n, run in enumerate(runs) if not run.last]
        bound, first = min(ends, default=(None, len(runs)))
        taken = []
        for number, run in enumerate(runs):
            rows = run.head.num_rows if bound is None else compared.count(run.head, bound, equal=number <= first)
            taken.append(run.take(rows))
            run.fill()
        yield _sorted([table for table in taken if table.num_rows], order)


class _Comparison:
    """Compares rows as :func:`_sorted` sorts them."""

    def __init__(self, order: Sequence[str]) -> None:
        self._by = [_direction(name) for name in order]

    def key(self, table: pa.Table, row: int) -> tuple[Any, ...]:
        """Return the place of a row: what compares as the row does."""
        values = [table[name][row].as_py() for name, _ in self._by]
        places = [_place(value, way == "descending") for value, (_, way) in zip(values, self._by, strict=True)]
        return (table[GROUP.name][row].as_py(), *places)

    def count(self, table: pa.Table, bound: tuple[Any, ...], *, equal: bool) -> int:
        """Return how many rows of a sorted table are before a place, or at it if ``equal``."""
        search = bisect.bisect_right if equal else bisect.bisect_left
        return search(range(table.num_rows), bound, key=lambda row: self.key(table, row))


def _place(value: Any, descending: bool) -> tuple[int, Any]:
    """Return what compares as Arrow sorts a value: nulls last, before them NaN."""
    if value is None:
        return 2, 0
    if value != value:
        return 1, 0
    return 0, _Largest(value) if descending else value


class _Largest:
    """A value that compares the other way round."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Largest) and self.value == other.value

    def __lt__(self, other: _Largest) -> bool:
        return other.value < self.value


class GroupTooLarge(Exception):
    """A group is too large for its reducer to be given at once; one that needs it whole cannot go on."""


class LargeGroup:
    """One group that is larger than memory: an iterator of its rows in order, a table at a time."""

    def __init__(self, begin: pa.Table, rest: Iterator[pa.Table]) -> None:
        self.name: str = begin[GROUP.name][0].as_py()
        self.schema: pa.Schema = begin.schema
        self.records = 0  # yielded so far
        self.after: pa.Table | None = None  # rows read that are of the next groups
        self._begin: pa.Table | None = begin
        self._rest = rest

    def __iter__(self) -> Iterator[pa.Table]:
        return self

    def __next__(self) -> pa.Table:
        table = self._begin
        self._begin = None
        if table is None:
            if self.after is not None:
                raise StopIteration
            table = next(self._rest)
            stop = next(iter(group_starts(table)[1:].tolist()), table.num_rows)
            if table[GROUP.name][0].as_py() != self.name:
                stop = 0
            if stop < table.num_rows:
                self.after = table.slice(stop)
            table = table.slice(0, stop)
            if not stop:
                raise StopIteration
        self.records += table.num_rows
        return table


def by_group(tables: Iterator[pa.Table], limit: int, rows: int) -> Iterator[pa.Table | LargeGroup]:
    """Cut sorted rows into tables of whole groups with about ``rows`` rows; a group of more than ``limit`` bytes is
    yielded by itself, as an iterator that must be used before the next one is asked for."""
    held: pa.Table | None = None
    while True:
        table = next(tables, None)
        if table is None:
            break
        held = table if held is None else pa.concat_tables([held, table])
        starts = group_starts(held)
        yield from _pieces(held, starts, rows)
        held = held.slice(starts[-1])
        if held.nbytes > limit:
            large = LargeGroup(held, tables)
            held = None
            yield large
            for _ in large:  # what it was not asked for
                pass
            if large.after is not None:
                tables = itertools.chain([large.after], tables)
    if held is not None:
        yield held


def _pieces(table: pa.Table, starts: np.ndarray, rows: int) -> Iterator[pa.Table]:
    """Yield all groups but the last, which may go on, in tables of whole groups."""
    begin = 0
    while begin < starts[-1]:
        end = max(int(starts[np.searchsorted(starts, begin, "right")]), begin + rows)
        end = int(starts[np.searchsorted(starts, end, "right") - 1])
        yield table.slice(begin, end - begin)
        begin = end


def group_starts(batch: pa.Table) -> np.ndarray:
    """Return the row where each group of a sorted batch begins, as (groups,) int64.

    Example:
        >>> group_starts(pa.table({"group": ["a", "a", "b"]})).tolist()
        [0, 2]
    """
    names = batch[GROUP.name].combine_chunks()
    if not len(names):
        return np.zeros(0, np.int64)
    other = pc.not_equal(names.slice(1), names.slice(0, len(names) - 1)).to_numpy(zero_copy_only=False)
    return np.concatenate([[0], np.flatnonzero(other) + 1])


def group_sizes(starts: np.ndarray, rows: int) -> np.ndarray:
    """Return how many of ``rows`` rows each group has, by where they begin: (groups,) int64."""
    return np.diff(starts, append=rows)
