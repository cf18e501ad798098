"""Reducers: actors that are called with the whole groups of a dealt set (:mod:`gristmill.shards.exchange`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field

from gristmill.shards.dataset import SealedSet, open_sealed
from gristmill.shards.errors import RejectRecord, UserError
from gristmill.shards.exchange import Parts, merge, parts_of
from gristmill.shards.merging import MEMORY, SHARE
from gristmill.shards.runs import GroupTooLarge, LargeGroup, group_sizes, group_starts
from gristmill.shards.settings import HOW, Settings
from gristmill.shards.stage import GROUP, MERGED, PART, Actor, ArtifactRef, BatchLimits
from gristmill.shards.step import Step
from gristmill.shards.work import ContractError

NO_PARTNER = "no partner"
_REASON = pa.field("reject_reason", pa.string())
_ROWS = 4096  # of a large group's, made into a table at a time
_PRODUCT = 1 << 20  # pairs of a join that are made at a time


class Reducer(Actor):
    """Base of reducers, which declare the columns that they read (``columns``), keep (``keeps``) and add (``adds``),
    and the ``order`` of a group's rows.

    :meth:`group` is given one group. A reducer for many small groups may have ``__call__`` instead, which is given a
    table of whole groups and finds them by :func:`gristmill.shards.runs.group_starts`; its rows name their group in
    ``parent_id``. With ``__call__`` alone, a group that is larger than memory is quarantined.

    Example:
        >>> class Dialogue(Reducer):
        ...     columns, order = ("text",), ("turn",)
        ...     adds = (pa.field("dialogue", pa.string()),)
        ...
        ...     def group(self, name, tables):
        ...         yield {"dialogue": " / ".join(text for table in tables for text in table["text"].to_pylist())}
        >>> turns = pa.table({"group": ["s1", "s1", "s2"], "text": ["hi", "hello", "stop"]})
        >>> Dialogue(Settings())(turns).select(["id", "dialogue"]).to_pylist()
        [{'id': 's1', 'dialogue': 'hi / hello'}, {'id': 's2', 'dialogue': 'stop'}]
    """

    merges = True
    fan_out = True
    keeps: ClassVar[tuple[str, ...] | None] = ()
    batch = BatchLimits(rows=1 << 16)

    def group(self, name: str, tables: Iterator[pa.Table]) -> Iterable[Mapping[str, Any]]:
        """Yield the rows of one group, given as tables of its rows in order: one, or several if it is large.

        A row without an ``id`` gets the group's name and, if it is not the first, its number. To reject the group,
        raise :class:`gristmill.shards.errors.RejectRecord` before any row.
        """
        raise TypeError(f"{type(self).__name__} has no group: expected a method that yields the rows of a group")

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the rows of whole groups."""
        starts = group_starts(batch)
        rows: list[Mapping[str, Any]] = []
        for start, stop in zip(starts, [*starts[1:], batch.num_rows], strict=True):
            own = batch.slice(start, stop - start)
            rows += self._rows(own[GROUP.name][0].as_py(), iter([own]))
        return pa.Table.from_pylist(rows, self._schema(batch.schema))

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the rows of a group that is larger than memory.

        Raises:
            GroupTooLarge: the reducer has no :meth:`group`.
        """
        if type(self).group is Reducer.group:
            raise GroupTooLarge(
                f"and {type(self).__name__} needs whole groups; expected more memory, or a reducer with a method group"
            )
        held: list[Mapping[str, Any]] = []
        for row in self._rows(group.name, group):
            held.append(row)
            if len(held) == _ROWS:
                yield pa.Table.from_pylist(held, self._schema(group.schema))
                held = []
        yield pa.Table.from_pylist(held, self._schema(group.schema))

    def _rows(self, name: str, tables: Iterator[pa.Table]) -> Iterator[Mapping[str, Any]]:
        kind, number = type(self).__name__, 0
        try:
            for row in self.group(name, tables):
                if not row.keys() <= self._written.keys():
                    wrong = ", ".join(sorted(row.keys() - self._written.keys()))
                    raise ContractError(f"{kind} gave the columns {wrong}; it declares {', '.join(self._written)}")
                yield {"id": f"{name}\t{number}" if number else name, **row, "parent_id": name}
                number += 1
        except RejectRecord as rejected:
            if number:
                raise ContractError(
                    f"{kind} rejected the group {name!r} after rows of it; expected it before"
                ) from None
            yield {"id": name, "parent_id": name, _REASON.name: rejected.reason}

    @cached_property
    def _declared(self) -> tuple[tuple[str, ...], tuple[pa.Field, ...]]:
        """The columns of its input that it keeps, and those that it adds."""
        stated = self.contract(self.settings)
        return tuple(stated.get("keeps", self.keeps) or ()), tuple(stated.get("adds", self.adds))

    @cached_property
    def _written(self) -> dict[str, None]:
        """The columns of a group's rows, in their order."""
        keeps, adds = self._declared
        return dict.fromkeys(["id", *keeps, *(f.name for f in adds)])

    def _schema(self, given: pa.Schema) -> pa.Schema:
        keeps, adds = self._declared
        kept = [given.field(name) for name in keeps]
        fields = {f.name: f for f in (MERGED.field("id"), MERGED.field("parent_id"), *kept, *adds, _REASON)}
        return pa.schema(list(fields.values()))


class SumSettings(Settings):
    """The columns to sum."""

    sums: Mapping[str, Literal["int64", "float64"]] = Field(default_factory=dict)
    """The type of each column's sum. Floating-point numbers are added one after the other, in the order of the rows."""


class Sums(Reducer):
    """Sums columns over each group, nulls as 0; ``records`` is their count. Groups may be of any size."""

    name = "sums"
    settings: SumSettings

    @classmethod
    def contract(cls, settings: SumSettings) -> Mapping[str, Any]:
        """Return the columns."""
        adds = tuple(pa.field(name, pa.type_for_alias(kind)) for name, kind in settings.sums.items())
        return {"columns": tuple(settings.sums), "adds": adds}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return one row for each group."""
        starts = group_starts(batch)
        return self._table(batch[GROUP.name].take(starts), [self._sum(batch, n, starts) for n in self.settings.sums])

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield one row."""
        sums: list[np.ndarray | None] = [None] * len(self.settings.sums)
        for table in group:
            starts = np.zeros(1, np.int64)
            given = zip(self.settings.sums, sums, strict=True)
            sums = [self._sum(table, name, starts, before) for name, before in given]
        yield self._table([group.name], sums)

    def _sum(self, batch: pa.Table, name: str, starts: np.ndarray, before: np.ndarray | None = None) -> np.ndarray:
        kind = self.settings.sums[name]
        values = pc.fill_null(batch[name].cast(pa.type_for_alias(kind)), 0).to_numpy()
        before = np.zeros(len(starts), kind) if before is None else before
        if kind == "int64":
            about = np.abs(before.astype(np.float64)) + np.add.reduceat(np.abs(values.astype(np.float64)), starts)
            if (about >= 2.0**62).any():  # the sum may not fit: add what has no limit
                ends = np.append(starts[1:], len(values))
                exact = [int(b) + sum(values[i:j].tolist()) for b, i, j in zip(before, starts, ends, strict=True)]
                return np.array([_fits(total, name) for total in exact], np.int64)
            return before + np.add.reduceat(values, starts)
        # Added one by one (numpy's sum is pairwise), so that the sum of a large group is that of its pieces.
        groups = np.repeat(np.arange(len(starts)), group_sizes(starts, len(values)))
        return np.bincount(np.append(np.arange(len(starts)), groups), np.append(before, values), len(starts))

    def _table(self, names: Any, sums: Sequence[Any]) -> pa.Table:
        return pa.table({"id": names, "parent_id": names, **dict(zip(self.settings.sums, sums, strict=True))})


class FirstSettings(Settings):
    """Which of a group's records to keep."""

    order: tuple[str, ...]
    """The columns by which they are sorted; ``-column``: the largest first. Of equal ones, the earlier record is."""
    n: int = Field(1, ge=1)
    """How many are kept, at most."""
    columns: tuple[str, ...] = ()
    """The columns of theirs that are kept."""


class First(Reducer):
    """Keeps the first ``n`` records of each group, under their own ``id``. Groups may be of any size."""

    name = "first"
    settings: FirstSettings

    @classmethod
    def contract(cls, settings: FirstSettings) -> Mapping[str, Any]:
        """Return the columns."""
        return {"columns": ("id",), "keeps": settings.columns, "order": settings.order}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the first records of each group."""
        starts = group_starts(batch)
        place = np.arange(batch.num_rows) - np.repeat(starts, group_sizes(starts, batch.num_rows))
        return _under_group(batch.filter(pa.array(place < self.settings.n)))

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the group's first records."""
        left = self.settings.n
        for table in group:
            yield _under_group(table.slice(0, left))
            left -= table.num_rows
            if left <= 0:
                return


class MatchSettings(Settings):
    """A join by key."""

    columns: tuple[str, ...]
    """The columns of the other set that are added."""
    keeps: tuple[str, ...]
    """The columns of the first set that are kept."""
    unmatched: bool = False
    """Whether a record without a partner is kept, with nulls; otherwise it is rejected."""
    memory: int = Field(MEMORY, gt=0, json_schema_extra=HOW)
    """Memory for a part of the other set, in bytes; it is there several times while it is sorted."""


class Match(Reducer):
    """Joins the records of each group with those of the same key of the ``other`` dealt set, a part of which it holds.

    A record with several partners gives a row for each: the first under its own ``id``.
    """

    name = "match"
    settings: MatchSettings

    def __init__(self, settings: MatchSettings, other: str) -> None:
        super().__init__(settings)
        self._other = open_sealed(other)
        self._parts = Parts(self._other)
        self._part, self._rows_of_part = -1, pa.table({})
        self._names, self._starts = pa.array([], pa.string()), np.zeros(1, np.int64)

    @classmethod
    def contract(cls, settings: MatchSettings) -> Mapping[str, Any]:
        """Return the columns."""
        return {"columns": ("id", PART.name), "keeps": settings.keeps}

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return a row for each pair of partners.

        Raises:
            GroupTooLarge: they are too many to be made at once.
        """
        alone, place, partners = self._partners(batch)
        if partners.sum() > _PRODUCT and batch.num_rows > 1:
            raise GroupTooLarge(f"and have {partners.sum()} pairs of partners; expected at most {_PRODUCT} at once")
        left = np.repeat(np.arange(batch.num_rows), partners)
        nth = np.arange(len(left)) - np.repeat(np.cumsum(partners) - partners, partners)
        right = pa.array(self._starts[place][left] + nth, mask=alone[left])
        out = _under_group(batch.take(left))
        numbered = pc.binary_join_element_wise(out["id"], pa.array(nth).cast(pa.string()), "#")
        out = out.set_column(0, "id", pc.if_else(pa.array(nth == 0), out["id"], numbered))
        for name in self.settings.columns:
            out = out.append_column(name, self._rows_of_part[name].take(right))
        lost = alone[left] & (not self.settings.unmatched)
        return out.append_column(_REASON, pc.if_else(pa.array(lost), NO_PARTNER, pa.scalar(None, pa.string())))

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield the pairs of a large group's records."""
        for table in group:
            rows = max(1, _PRODUCT // int(self._partners(table)[2][0]))
            yield from (self(table.slice(start, rows)) for start in range(0, table.num_rows, rows))

    def _partners(self, batch: pa.Table) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return whether each row has no partner, the number of its key in the other part, and how many rows it
        gives."""
        self._load(batch[PART.name][0].as_py())
        group = pc.index_in(batch[GROUP.name], value_set=self._names)
        alone = group.is_null().to_numpy()
        place = pc.fill_null(group, 0).to_numpy()
        return alone, place, np.where(alone, 1, np.diff(self._starts, append=self._starts[-1])[place])

    def _load(self, part: int) -> None:
        if part == self._part:
            return
        tables, size = [], 0
        limit = self.settings.memory // SHARE
        for table in self._parts.read(part, [GROUP.name, *self.settings.columns]):
            tables.append(table)
            size += table.nbytes
            if size > limit:
                raise UserError(
                    f"match: part {part} of {self._other.name} has more than {limit} bytes, for which it would need "
                    f"more than its memory of {self.settings.memory}; expected more parts or memory, or the larger set "
                    "as the first of the join"
                )
        names = [*self.settings.columns, GROUP.name]
        whole = pa.concat_tables(tables) if tables else self._other.schema.empty_table().select(names)
        whole = whole.take(pc.sort_indices(whole, [(GROUP.name, "ascending")])).combine_chunks()
        self._starts = np.append(group_starts(whole), whole.num_rows)
        self._names = whole[GROUP.name].take(self._starts[:-1]).combine_chunks()
        self._part, self._rows_of_part = part, whole


def join(
    name: str,
    dealt: SealedSet,
    other: SealedSet,
    columns: Sequence[str],
    keeps: Sequence[str] = (),
    *,
    unmatched: bool = False,
    memory: int = MEMORY,
) -> Step:
    """Return the step that joins two dealt sets by their keys: ``columns`` of the other are added to the first.

    Both have equal numbers of parts. A part of the other is held in memory; groups of the first may be of any size.

    Raises:
        UserError: a set is not dealt, they have different numbers of parts, or a column is missing.
    """
    if parts_of(dealt) != parts_of(other):
        raise UserError(
            f"{name}: {dealt.name} has {parts_of(dealt)} parts and {other.name} {parts_of(other)}; expected sets dealt "
            "to the same number of parts"
        )
    twice = [one for one in columns if one in (*keeps, "id", GROUP.name, PART.name, *MERGED.names)]
    if twice:
        raise UserError(
            f"{name}: {', '.join(twice)} of {other.name} would be there twice; expected columns of other names than "
            f"those of {dealt.name} that are kept"
        )
    missing = [one for one in columns if one not in other.schema.names]
    if missing:
        raise UserError(f"{name}: {other.name} has no column {', '.join(missing)}; it has {other.schema.names}")
    given = MatchSettings(columns=tuple(columns), keeps=tuple(keeps), unmatched=unmatched, memory=memory)
    ref: ArtifactRef = other.ref
    stage = replace(Match.stage(given, other=ref), adds=tuple(other.schema.field(one) for one in columns))
    return merge(name, dealt, stage)


def _fits(total: int, name: str) -> int:
    if not -(1 << 63) <= total < 1 << 63:
        raise OverflowError(f"the sum of {name} is {total}, which 64 bits do not hold")
    return total


def _under_group(batch: pa.Table) -> pa.Table:
    """Return rows under their own ``id``, with their group as ``parent_id``."""
    rest = [name for name in batch.column_names if name not in ("id", "parent_id")]
    return pa.table([batch["id"], batch[GROUP.name], *(batch[name] for name in rest)], ["id", "parent_id", *rest])
