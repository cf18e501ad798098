"""A step: a chain of stages between two commits, and its fingerprint (law 5)."""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards import canonical, processor
from gristmill.shards.code import code_of
from gristmill.shards.dataset import SealedSet, row_totals
from gristmill.shards.errors import UserError
from gristmill.shards.index import ByPart, Cut, Join, ShardSpec, keep_shards
from gristmill.shards.merging import MergeWorker
from gristmill.shards.parquet import StoredFile
from gristmill.shards.plan import holds_later
from gristmill.shards.receipt import Receipt, commit, find_receipt, store_table
from gristmill.shards.stage import PARTS, Stage, is_numeric
from gristmill.shards.verify import check_ref
from gristmill.shards.work import QUARANTINE, REJECTS, StageWorker, Work

GROUP_ROWS = 1 << 20  # of a row group; a shard of more rows, as merging may make, has several


@dataclass(frozen=True)
class Step:
    """A chain of stages over a sealed set.

    ``cut`` plans new shards; without it each shard of the input becomes one. ``joins`` add columns of other sets before
    the first stage; a record without a partner is rejected. A first stage that merges takes a dealt set, cut by parts
    (:func:`gristmill.shards.exchange.merge`).
    """

    name: str
    stages: tuple[Stage, ...]
    input: SealedSet
    joins: tuple[Join, ...] = ()
    cut: Cut | ByPart | None = None
    max_quarantine: float = 0.01

    def __post_init__(self) -> None:
        _check_types(self)
        if holds_later(self.stages):
            return  # checked with the stages that it will have
        if sum(stage.fan_out for stage in self.stages) > 1:
            raise ValueError(f"step {self.name}: at most one stage may fan out, so that each row has one origin")
        if self.joins and self.cut:
            raise ValueError(f"step {self.name}: a join needs the input's own shards")
        if any(
            stage.merges != (number == 0 and isinstance(self.cut, ByPart)) for number, stage in enumerate(self.stages)
        ):
            raise ValueError(
                f"step {self.name}: a stage merges if, and only if, it is the first of a step cut by parts"
            )

    @property
    def schema(self) -> pa.Schema:
        """The columns of its output rows."""
        schema = self._read
        for stage in self.stages:
            schema = stage.output_schema(schema)
        return schema

    @property
    def given(self) -> pa.Schema:
        """The columns that its first stage is given: of its input and of the sets joined, as far as it reads them."""
        return self.stages[0].input_schema(self._read) if self.stages and not self.joins else self._read

    @property
    def _read(self) -> pa.Schema:
        """The columns of its input and of the sets joined. What it makes of a dealt set is not dealt any more."""
        schema = joined_schema(self.input.schema, self.joins)
        metadata = {key: value for key, value in (schema.metadata or {}).items() if key != PARTS}
        return schema.with_metadata(metadata or None)

    @property
    def totals(self) -> tuple[str, ...]:
        """The columns whose totals it keeps: those declared by a stage, and those of its inputs that it still has."""
        names = [*self.input.totals]
        names += [name for join in self.joins for name in join.dataset.totals if name in join.columns]
        names += [name for stage in self.stages for name in stage.totals]
        schema = self.schema
        return tuple(name for name in dict.fromkeys(names) if is_numeric(schema, name))

    @property
    def deterministic(self) -> bool:
        """Whether each stage keeps law 1 to the byte."""
        return all(stage.deterministic for stage in self.stages)

    def identity(self, seed: int) -> dict[str, Any]:
        """Return everything that the step's result depends on; the seed only if a stage is random."""
        cut = self.cut and self.cut.identity()
        return {
            "step": self.name,
            "stages": [stage.identity() for stage in self.stages],
            "input": self.input.digest,
            "joins": [[join.dataset.digest, list(join.columns), join.on] for join in self.joins],
            "cut": cut,
            "seed": seed if any(stage.seeded for stage in self.stages) else None,
        }

    def fingerprint(self, seed: int) -> str:
        """Return the fingerprint of :meth:`identity`."""
        return canonical.fingerprint(self.identity(seed))

    def code(self) -> dict[str, Any]:
        """Return what is kept of the code of its stages, in no fingerprint (:mod:`gristmill.shards.code`)."""
        return code_of({stage.name: stage.actor for stage in self.stages})

    def index(self) -> list[ShardSpec]:
        """Return the shards to make, in order."""
        return list(self.cut.shards(self.input) if self.cut else keep_shards(self.input, self.joins))


def _check_types(step: Step) -> None:
    """Check what a slip in Python gets wrong, and would be an error far from it."""
    stages: Any = () if holds_later([step.stages]) else step.stages
    if isinstance(stages, Stage):
        raise TypeError(f"step {step.name}: stages are one stage, {stages.name}; expected a tuple: (stage,)")
    if not isinstance(stages, tuple | list):
        raise TypeError(f"step {step.name}: stages are {stages!r}; expected a tuple of stages")
    for stage in stages:
        if not isinstance(stage, Stage) and not holds_later([stage]):
            shown = getattr(stage, "__name__", None)
            hint = f"{shown}.stage()" if hasattr(stage, "stage") else "what an actor's stage() returns"
            raise TypeError(f"step {step.name}: {shown or repr(stage)} is not a stage; expected {hint}")
    if not isinstance(step.input, SealedSet):
        raise TypeError(
            f"step {step.name}: the input is {step.input!r}; expected a sealed set, as of Run.table or Run.step"
        )


def joined_schema(schema: pa.Schema, joins: tuple[Join, ...]) -> pa.Schema:
    """Return the columns of a set with those that joins add."""
    metadata = dict(schema.metadata or {})
    for join in joins:
        for name in join.columns:
            schema = schema.append(join.dataset.schema.field(name))
        metadata |= join.dataset.schema.metadata or {}
    metadata.pop(b"huggingface", None)
    return schema.with_metadata(metadata or None)


@dataclass(frozen=True)
class ShardTask:
    """Everything that a worker needs to make shards of a step, wherever it runs."""

    url: str
    stages: tuple[Stage, ...]
    schema: pa.Schema
    input_schema: pa.Schema
    seed: int
    deterministic: bool
    planned: int | None = None  # shards of the whole step
    name: str = ""  # of the step
    totals: tuple[str, ...] = ()  # columns whose sums the receipts keep
    processor: str = field(default_factory=processor.level)  # the level that workers are to compute at

    @property
    def loading(self) -> str:
        """What workers of its stages are made of: tasks of which it is equal can share them."""
        return canonical.fingerprint([[stage.identity() for stage in self.stages], self.seed])

    def open(self, spec: ShardSpec) -> Work:
        """Read a shard's rows and join their partners; a shard that is already committed is passed on unchanged."""
        found = find_receipt(self.url, spec.name)
        if found is not None:
            return Work(spec.name, self.input_schema.empty_table(), 0, receipt=found.to_json())
        if self.stages and self.stages[0].merges:
            nothing = self.input_schema.empty_table()
            return Work(spec.name, nothing, 0, requeue_of=spec.requeue_of, slices=spec.slices, only=spec.only)
        pruned = self.stages and self.stages[0].keeps is not None and not spec.joins
        table = spec.read(self.input_schema.names if pruned else None)
        work = Work(spec.name, table, table.num_rows, requeue_of=spec.requeue_of)
        for slices, columns, on in spec.joins:
            partner = pa.concat_tables([part.read(["id", *columns]) for part in slices])
            work.table = _join(work, partner, columns, on)
        work.table = work.table.select(self.input_schema.names).cast(self.input_schema)
        return work

    def worker(self, place: int, *, isolated: bool = False) -> StageWorker:
        """Load a worker of one of the stages; see :class:`StageWorker`.

        Raises:
            UserError: this machine, or what this process has loaded, is not of the run's level.
            Damaged: an artifact or set that the stage uses is not the one that it was given.
        """
        processor.keep(self.processor)
        for ref in self.stages[place].artifacts.values():
            check_ref(ref)
        kind = MergeWorker if self.stages[place].merges else StageWorker
        return kind(self.stages[place], self.seed, isolated=isolated)

    def make(self, spec: ShardSpec, workers: Sequence[StageWorker]) -> Receipt:
        """Make a shard by workers of all stages, in this process."""
        work = self.open(spec)
        for worker in workers:
            work = worker(work)
        return self.commit(work)

    def commit(self, work: Work) -> Receipt:
        """Write a finished shard and its receipt.

        Requeued records leave no trace unless one of them is mended, so that the set stays the same.
        """
        if work.receipt is not None:
            return Receipt.from_json(work.receipt)
        begun = time.perf_counter()
        table = work.table.select(self.schema.names).cast(self.schema)
        rejects = pa.concat_tables([REJECTS.empty_table(), *work.rejects])
        broken = pa.concat_tables([QUARANTINE.empty_table(), *work.quarantine])
        if work.origin != "id" and pc.count_distinct(table["id"]).as_py() < table.num_rows:
            counts = pc.value_counts(table["id"]).to_pylist()
            twice = next(one["values"] for one in counts if one["counts"] > 1)
            raise UserError(f"{self.name}: the id {twice!r} was given more than once; expected distinct ids")
        out = pc.unique(table[work.origin])
        broke = _others(broken["origin"], out)
        rejected = _others(rejects["origin"], out, broke)
        receipt = Receipt(
            work.shard,
            StoredFile("", "", 0, 0, ""),
            None,
            None,
            records_in=work.records_in,
            records_out=work.count(out),
            rejected=work.count(rejected),
            quarantined=work.count(broke),
            reasons=count_by_stage(rejects, "reason"),
            errors=count_by_stage(broken, "error"),
            totals=row_totals(table, self.totals),
            requeue_of=work.requeue_of,
        )
        if work.requeue_of and not receipt.mends:
            return receipt
        by = next((stage.parts for stage in self.stages if stage.parts), None)
        table, groups = sorted_by(table, by) if by else (table, range(GROUP_ROWS, table.num_rows, GROUP_ROWS))
        data = store_table(self.url, "data", work.shard, table, groups)
        down = store_table(self.url, "rejects", work.shard, rejects) if rejects.num_rows else None
        held = store_table(self.url, "quarantine", work.shard, broken) if broken.num_rows else None
        work.seconds["commit"] = time.perf_counter() - begun
        attempt = {
            "host": socket.gethostname(),
            "processor": processor.label(),
            "at": round(time.time(), 3),
            "seconds": {key: round(value, 6) for key, value in work.seconds.items()},
            "batches_halved": work.batches_halved,
            "batches_split": work.batches_split,
            "measures": {key: [round(total, 6), count] for key, (total, count) in work.measures.items()},
        }
        made = replace(receipt, data=data, rejects=down, quarantine=held, attempt=attempt)
        return commit(self.url, made, deterministic=self.deterministic)


def _others(origins: pa.ChunkedArray, *before: pa.Array) -> pa.Array:
    """Return distinct origins that are not among those whose fate is decided already."""
    origins = pc.unique(origins)
    for known in before:
        origins = origins.filter(pc.invert(pc.is_in(origins, value_set=known)))
    return origins


def sorted_by(table: pa.Table, column: str) -> tuple[pa.Table, list[int]]:
    """Return rows sorted by a column of whole numbers, equal ones in their order, and where a further number begins."""
    values = table[column].to_numpy()
    if len(values) and values.min() >= 0 and values.max() < 1 << 15:
        values = values.astype(np.int16)  # which numpy sorts by radix
    order = np.argsort(values, kind="stable")
    return table.combine_chunks().take(order), (np.flatnonzero(np.diff(values[order])) + 1).tolist()


def count_by_stage(table: pa.Table, column: str) -> dict[str, int]:
    """Return the counts of each reason or error of a side table, by stage."""
    found: Counter[str] = Counter()
    for group in table.group_by(["stage", column], use_threads=False).aggregate([([], "count_all")]).to_pylist():
        found[f"{group['stage']}: {group[column]}"] += group["count_all"]
    return dict(sorted(found.items()))


def _join(work: Work, partner: pa.Table, columns: tuple[str, ...], on: str) -> pa.Table:
    table = work.table
    place = pc.index_in(table[on], value_set=partner["id"].combine_chunks())
    lost = pc.is_null(place)
    if pc.any(lost).as_py():
        down = table.filter(lost)
        names = [["join"] * len(down), ["no partner"] * len(down)]
        work.rejects.append(pa.table([down["id"], down["id"], *names], schema=REJECTS))
        table, place = table.filter(pc.invert(lost)), place.filter(pc.invert(lost))
    found = partner.take(place)
    for name in columns:
        table = table.append_column(partner.schema.field(name), found[name])
    return table
