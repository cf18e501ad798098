"""Merges a part of a dealt set: the worker that calls a reducer with whole groups, within its memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards.ahead import read_ahead
from gristmill.shards.errors import GristmillError
from gristmill.shards.runs import GroupTooLarge, LargeGroup, by_group, group_sizes, group_starts, sorted_rows
from gristmill.shards.scratch import scratch
from gristmill.shards.stage import GROUP, RECORDS
from gristmill.shards.work import ContractError, StageWorker, Work, describe, quarantined

MEMORY = 512 << 20  # bytes of a worker, unless its stage says otherwise
SHARE = 4  # of its memory are rows in order: they are there twice while they are sorted, and their results are made
GROUPS = pa.schema([GROUP, RECORDS])


class Spill:
    """Tables, in memory or, if they have more than ``limit`` bytes, in a file."""

    def __init__(self, path: Path, schema: pa.Schema, limit: int) -> None:
        self._path, self._schema, self._limit = path, schema, limit
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._writer: Any = None

    def add(self, table: pa.Table) -> None:
        """Add a table."""
        self._held.append(table)
        self._bytes += table.nbytes
        if self._bytes > self._limit:
            self._writer = self._writer or pa.ipc.new_file(str(self._path), self._schema)
            for one in self._held:
                self._writer.write_table(one)
            self._held, self._bytes = [], 0

    def end(self) -> pa.Table:
        """Return all rows: those in the file are mapped into memory, and so are read when they are used."""
        tables = [self._schema.empty_table(), *self._held]
        if self._writer is not None:
            self._writer.close()
            tables[1:1] = [pa.ipc.open_file(pa.memory_map(str(self._path))).read_all()]
        return pa.concat_tables(tables)


class MergeWorker(StageWorker):
    """One worker of a stage that merges: reads a part's rows, sorts them and calls its reducer with whole groups.

    An error costs one group: its records are quarantined.
    """

    def __call__(self, work: Work) -> Work:
        """Merge a part; it is committed in its own order of groups."""
        if work.receipt is not None:
            return work
        begun = time.perf_counter()
        self._reset(work.table.schema)
        self._work, self._groups = work, [GROUPS.empty_table()]
        self._limit = (self.stage.resources.memory or MEMORY) // SHARE
        work.origin = "parent_id"
        with scratch() as self._folder:
            self._made = Spill(self._folder / "made", self._expected, self._limit)
            rows = sorted_rows(self._read(), self.stage.order, self._limit, self._folder)
            for some in by_group(rows, self._limit, self.stage.batch.rows):
                if isinstance(some, LargeGroup):
                    self._reduce_large(some)
                else:
                    self._reduce(some, group_starts(some))
            work.table = self._made.end()
        work.groups = pa.concat_tables(self._groups)
        self._note(work, begun)
        return work

    def _read(self) -> Iterator[pa.Table]:
        """Yield the part's rows of each dealt shard, several read at once as far as memory allows."""
        work, schema = self._work, self._work.table.schema
        slices, ahead = deque(work.slices), 0
        while slices:
            some = [slices.popleft()]
            while slices and sum(one.rows for one in some) + slices[0].rows <= ahead:
                some.append(slices.popleft())
            for table in read_ahead(lambda one: one.read_apart(schema.names), some):
                ahead = self._limit // 4 * table.num_rows // max(1, table.nbytes)
                if work.only is not None:
                    table = table.filter(pc.is_in(table[GROUP.name], value_set=pa.array(work.only, pa.string())))
                work.records_in += table.num_rows
                yield table.cast(schema)

    def _reduce(self, batch: pa.Table, starts: np.ndarray) -> None:
        names = batch[GROUP.name].take(starts).combine_chunks()
        records = group_sizes(starts, batch.num_rows)
        try:
            out = self.actor(batch)
        except (GristmillError, ContractError):
            raise  # a fault of the run, not of a group
        except Exception as error:
            if len(starts) == 1:
                if isinstance(error, GroupTooLarge):
                    self._reduce_large(LargeGroup(batch, iter(())))
                    return
                self._break(names[0].as_py(), batch.num_rows, error)
                return
            self._count_retry(error)
            middle = len(starts) // 2
            row = int(starts[middle])
            self._reduce(batch.slice(0, row), starts[:middle])
            self._reduce(batch.slice(row), starts[middle:] - row)
            return
        place = pc.index_in(out["parent_id"], value_set=names)
        name = self.stage.name
        if place.null_count:
            stray = out["parent_id"].filter(pc.is_null(place))[0]
            raise ContractError(f"stage {name} gave a row of parent_id {stray}, which is no group of its batch")
        rows = place.to_numpy()
        if len(np.unique(rows)) != len(names):
            raise ContractError(
                f"stage {name} gave no row for some group; it must reject it instead (RejectRecord, or reject_reason)"
            )
        order = np.argsort(rows, kind="stable")
        self._keep(out if np.array_equal(order, np.arange(len(order))) else out.take(order), records[np.sort(rows)])
        self._groups.append(pa.table([names, records], schema=GROUPS))

    def _reduce_large(self, group: LargeGroup) -> None:
        """Call the reducer with a group a table at a time, and hold what it gives until its records are counted."""
        made: list[pa.Table] = []
        spill: Spill | None = None
        try:
            for table in self.actor.large(group):  # type: ignore[attr-defined]
                spill = spill or Spill(self._folder / f"large-{len(self._groups)}", table.schema, self._limit)
                spill.add(table)
            made = [] if spill is None else [spill.end()]
        except (GristmillError, ContractError):
            raise
        except Exception as error:
            for _ in group:
                pass
            if isinstance(error, GroupTooLarge):
                error = GroupTooLarge(f"{group.records} records are more than {self._limit} bytes, {error}")
            self._break(group.name, group.records, error)
            return
        for _ in group:
            pass
        if not made or not made[0].num_rows or pc.any(pc.not_equal(made[0]["parent_id"], group.name)).as_py():
            raise ContractError(f"stage {self.stage.name} must give rows of parent_id {group.name!r} for this group")
        for batch in made[0].to_batches():
            self._keep(pa.Table.from_batches([batch]), np.full(batch.num_rows, group.records))
        self._groups.append(pa.table([[group.name], [group.records]], schema=GROUPS))

    def _keep(self, out: pa.Table, records: np.ndarray) -> None:
        out = out.drop_columns([name for name in out.column_names if name == RECORDS.name])
        out = out.append_column(RECORDS, pa.array(records, RECORDS.type))
        self._made.add(self._split_rejects(self._checked(out), self._work))

    def _break(self, name: str, records: int, error: Exception) -> None:
        self._work.quarantine.append(quarantined([name], [name], self.stage.name, [describe(error)]))
        self._groups.append(pa.table([[name], [records]], schema=GROUPS))
