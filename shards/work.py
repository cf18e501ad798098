"""A shard on its way through the stages of a step: its rows, and the records that were rejected or quarantined."""

from __future__ import annotations

import os
import re
import tempfile
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards import interrupts
from gristmill.shards.batching import canonical_batches
from gristmill.shards.errors import BrokenRecords, GristmillError
from gristmill.shards.index import Slice
from gristmill.shards.isolation import IsolatedActor
from gristmill.shards.safe_text import redacted
from gristmill.shards.stage import BatchFunction, Stage

REJECTS = pa.schema([(name, pa.string()) for name in ("id", "origin", "stage", "reason")])
QUARANTINE = pa.schema([(name, pa.string()) for name in ("id", "origin", "stage", "error")])


class ContractError(Exception):
    """An actor's result violates the contract of its stage: a bug in the actor, never a bad record."""


@dataclass
class Work:
    """A shard in the making. ``origin`` names the column that holds the id of the step's input record."""

    shard: str
    table: pa.Table
    records_in: int
    rejects: list[pa.Table] = field(default_factory=list)
    quarantine: list[pa.Table] = field(default_factory=list)
    origin: str = "id"
    seconds: dict[str, float] = field(default_factory=dict)
    batches_halved: int = 0  # because memory ran out
    batches_split: int = 0  # because of any other error, to find the broken record
    measures: dict[str, list[float]] = field(default_factory=dict)  # "stage.column" -> sum and count of values
    requeue_of: str | None = None
    receipt: dict[str, Any] | None = None  # of another attempt that committed the shard: nothing is left to do
    slices: tuple[Slice, ...] = ()  # of a shard to merge: its rows, which may be more than memory holds
    only: tuple[str, ...] | None = None  # the groups to merge, if not all
    groups: pa.Table | None = None  # (group, records) of the merged ones: the records of each origin

    def count(self, origins: pa.Array) -> int:
        """Return the number of records that some distinct origins are: each one, or a group of several."""
        if self.groups is None:
            return len(origins)
        place = pc.index_in(origins, value_set=self.groups["group"].combine_chunks())
        return pc.sum(self.groups["records"].take(place)).as_py() or 0


class StageWorker:
    """One worker of a stage: owns the actor, feeds it batches and accounts for every record.

    ``isolated`` runs the actor in a process of its own, so that even a record that kills it is survived.
    """

    def __init__(self, stage: Stage, seed: int, *, isolated: bool = False) -> None:
        self.stage = stage
        self.actor: BatchFunction = IsolatedActor(stage, seed) if isolated else stage.build(seed)

    def close(self) -> None:
        """End the actor's process, if it has one."""
        if isinstance(self.actor, IsolatedActor):
            self.actor.close()

    def __call__(self, work: Work) -> Work:
        """Run the stage over a shard (law 6: an error costs one record)."""
        if work.receipt is not None:
            return work
        begun = time.perf_counter()
        stage, given = self.stage, work.table
        self._reset(given.schema)
        outputs: list[pa.Table] = []
        places: list[np.ndarray] = []
        for rows in canonical_batches(given, stage.batch):
            self._run(given, rows, outputs, places)
            interrupts.check()
        if self._broken:
            broken = given.take([row for row, _ in self._broken])
            errors = [error for _, error in self._broken]
            work.quarantine.append(quarantined(broken["id"], broken[work.origin], stage.name, errors))
        if stage.fan_out:
            work.origin = "parent_id"
        table = self._in_order(outputs, places)
        work.table = self._split_rejects(table, work)
        self._note(work, begun)
        return work

    def _reset(self, given: pa.Schema) -> None:
        self._expected = self.stage.output_schema(given)
        self._broken: list[tuple[int, str]] = []
        self._halved = self._split = 0
        self._measured: dict[str, list[float]] = {f"{self.stage.name}.{name}": [0.0, 0] for name in self.stage.measures}

    def _note(self, work: Work, begun: float) -> None:
        work.batches_halved += self._halved
        work.batches_split += self._split
        work.measures |= self._measured
        name = self.stage.name
        work.seconds[name] = work.seconds.get(name, 0.0) + time.perf_counter() - begun

    def _count_retry(self, error: Exception) -> None:
        self._halved += is_memory(error)
        self._split += not is_memory(error)
        if is_memory(error):
            _free_device_memory()

    def _run(self, given: pa.Table, rows: np.ndarray, outputs: list[pa.Table], places: list[np.ndarray]) -> None:
        batch = given.take(rows)
        try:
            out = self.actor(batch)
        except (GristmillError, ContractError):
            raise  # a fault of the run, not of a record
        except BrokenRecords as found:
            self._broken += [(int(rows[place]), _steady_line(text)) for place, text in found.errors.items()]
            self._split += 1
            if len(left := np.delete(rows, list(found.errors))):
                self._run(given, left, outputs, places)
            return
        except Exception as error:
            if len(rows) == 1:
                self._broken.append((int(rows[0]), describe(error)))
                return
            self._count_retry(error)
            middle = len(rows) // 2
            self._run(given, rows[:middle], outputs, places)
            self._run(given, rows[middle:], outputs, places)
            return
        outputs.append(self._checked(out))
        places.append(rows[self._parents(batch, out)])

    def _parents(self, batch: pa.Table, out: pa.Table) -> np.ndarray:
        """Return the position in the batch of each output row's record."""
        name, ids = self.stage.name, batch["id"]
        if not self.stage.fan_out:
            if out.num_rows != batch.num_rows or not out["id"].equals(ids):
                raise ContractError(f"stage {name} must give every row back, in order, with its id")
            return np.arange(batch.num_rows)
        place = {record: number for number, record in enumerate(ids.to_pylist())}
        try:
            parents = np.array([place[parent] for parent in out["parent_id"].to_pylist()], dtype=np.int64)
        except KeyError as error:
            raise ContractError(f"stage {name} gave a row of parent_id {error}, which was not in its batch") from None
        if len(np.unique(parents)) != batch.num_rows:
            raise ContractError(f"stage {name} gave no row for some record; it must set reject_reason instead")
        return parents

    def _checked(self, out: pa.Table) -> pa.Table:
        """Return the rows with exactly the declared columns, and the reject reason last."""
        name = self.stage.name
        missing = [f.name for f in self._expected if f.name not in out.column_names]
        if missing:
            raise ContractError(f"stage {name} declares the columns {missing} and did not give them")
        if "reject_reason" in out.column_names:
            reason = out["reject_reason"].cast(pa.string())
        else:
            reason = pa.nulls(out.num_rows, pa.string())
        if self.stage.measures:
            self._measure(out.filter(pc.is_null(reason)))
        out = out.select(self._expected.names)
        for field_, declared in zip(out.schema, self._expected, strict=True):
            if field_.type != declared.type and not pa.types.is_null(field_.type):
                raise ContractError(f"stage {name} declares {declared.name} as {declared.type} and gave {field_.type}")
        return out.cast(self._expected).append_column("reject_reason", reason)

    def _measure(self, kept: pa.Table) -> None:
        """Add the values of the rows that are not rejected to the sums reported with the receipt."""
        for name in self.stage.measures:
            if name not in kept.column_names:
                raise ContractError(f"stage {self.stage.name} declares the measure {name} and did not give it")
            values = kept[name].drop_null().to_numpy().astype(np.float64)
            values = values[np.isfinite(values)]
            total = self._measured[f"{self.stage.name}.{name}"]
            total[:] = [total[0] + float(values.sum()), total[1] + len(values)]

    def _in_order(self, outputs: list[pa.Table], places: list[np.ndarray]) -> pa.Table:
        if not outputs:
            return self._expected.empty_table().append_column("reject_reason", pa.array([], pa.string()))
        table = pa.concat_tables(outputs)
        order = np.argsort(np.concatenate(places), kind="stable")
        if not np.array_equal(order, np.arange(len(order))):
            table = table.take(order)
        return table.replace_schema_metadata(self._expected.metadata)

    def _split_rejects(self, table: pa.Table, work: Work) -> pa.Table:
        """Move the rejected rows to ``work.rejects`` and return the others."""
        reason = table["reject_reason"]
        if reason.null_count < table.num_rows:
            rejected = table.filter(pc.is_valid(reason))
            given = rejected["reject_reason"].to_pylist()
            texts = {text: steady(text) for text in set(given)}
            reasons = [texts[text] for text in given]
            work.rejects.append(
                pa.table(
                    [rejected["id"], rejected[work.origin], [self.stage.name] * len(rejected), reasons],
                    schema=REJECTS,
                )
            )
            table = table.filter(pc.is_null(reason))
        return table.drop_columns("reject_reason")


def quarantined(ids: Any, origins: Any, stage: str, errors: list[str]) -> pa.Table:
    """Return the quarantine of a stage's broken records."""
    return pa.table([ids, origins, [stage] * len(errors), errors], schema=QUARANTINE)


def describe(error: Exception) -> str:
    """Return an error as one line, without a traceback, which would name a machine's folders."""
    return _steady_line(f"{type(error).__name__}: {error}")


def _steady_line(text: str) -> str:
    return " ".join(steady(text).split())[:500]


# Parts of a message that differ between processes for the same error: they must not reach stored bytes (law 1).
_VOLATILE = (
    (re.compile(r"\bat 0x[0-9A-Fa-f]+"), "at 0x*"),
    (re.compile(r"\b0x[0-9A-Fa-f]{9,16}\b"), "0x*"),
    (re.compile(r"(?<![\w.])(tmp|gristmill-[0-9a-f]{8}-\d+-\d*-)[a-z0-9_]{8}(?![a-z0-9_])"), "tmp*"),  # of tempfile
    (re.compile(r"\b(pid|thread)([ =:]+)\d+", re.IGNORECASE), r"\1\2*"),
)


def steady(text: str) -> str:
    """Return a text without memory addresses, names of temporary files, ids of processes and threads, and secrets."""
    text = redacted(text).replace(tempfile.gettempdir() + os.sep, "")
    for pattern, plain in _VOLATILE:
        text = pattern.sub(plain, text)
    return text


def is_memory(error: Exception) -> bool:
    """Return whether memory ran out."""
    # By name, since this package does not import torch: device errors arrive as torch's OutOfMemoryError.
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def _free_device_memory() -> None:
    import sys

    if "torch" in sys.modules:
        sys.modules["torch"].cuda.empty_cache()
