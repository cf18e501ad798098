"""Actors and steps by which the laws are tried. Workers import this module, so it needs the checkout on their path."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.random import RecordRandom
from gristmill.shards.stage import BatchLimits, Resources, Stage
from gristmill.shards.step import Step

HERE = "tests.fault.law_actors"
ROWS = pa.schema([("id", pa.string()), ("text", pa.string()), ("duration", pa.float64())])


def corpus(url: str, shards: int = 6, rows: int = 20) -> SealedSet:
    """Seal rows whose cost differs, so that batches are not in the order of the rows."""
    return seal_tables(url, "corpus", (table(number, rows) for number in range(shards)))


def table(number: int, rows: int) -> pa.Table:
    ids = [f"r{number:03d}-{row:04d}" for row in range(rows)]
    costs = [1.0 + (row * 7 + number) % 11 for row in range(rows)]
    return pa.table([ids, [f"text {name}" for name in ids], costs], schema=ROWS)


class Note:
    """Notes each call in a folder, one file a call, so that calls are counted over processes and their deaths."""

    def __init__(self, folder: str | None) -> None:
        self.folder = folder and Path(folder)

    def call(self, batch: pa.Table) -> None:
        if self.folder:
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / f"{time.time_ns()}-{os.getpid()}").write_text("\n".join(batch["id"].to_pylist()))


class Noisy:
    """Draws a number for each record; with ``note`` its calls are noted, with ``seconds`` it takes its time."""

    def __init__(self, note: str | None = None, seconds: float = 0.0, rng: RecordRandom | None = None) -> None:
        assert rng is not None
        self.note, self.seconds, self.rng = Note(note), seconds, rng

    def __call__(self, batch: pa.Table) -> pa.Table:
        self.note.call(batch)
        time.sleep(self.seconds)
        draws = [float(self.rng(record).normal()) for record in batch["id"].to_pylist()]
        return batch.append_column("draw", pa.array(draws))


class Stopped(Noisy):
    """Stands still for good, as a process does whose device hangs, when it first sees ``record``; ``flag`` tells."""

    def __init__(self, record: str, flag: str, rng: RecordRandom | None = None) -> None:
        super().__init__(rng=rng)
        self.record, self.flag = record, Path(flag)

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self.record in batch["id"].to_pylist() and not self.flag.exists():
            self.flag.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGSTOP)
        return super().__call__(batch)


class Copies:
    """Makes two rows of each record and turns some down."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        rows = [dict(row) for row in batch.to_pylist() for _ in range(2)]
        for place, row in enumerate(rows):
            row["parent_id"] = row["id"]
            row["id"] = f"{row['id']}~{place % 2}"
            row["reject_reason"] = "low" if row["draw"] < -1.0 and place % 2 else None
        schema = batch.schema.append(pa.field("parent_id", pa.string())).append(pa.field("reject_reason", pa.string()))
        return pa.Table.from_pylist(rows, schema=schema)


class Upper:
    """Writes the text in capitals; breaks on the records of ``poison``."""

    def __init__(self, poison: list[str] | None = None) -> None:
        self.poison = set(poison or ())

    def __call__(self, batch: pa.Table) -> pa.Table:
        for record in batch["id"].to_pylist():
            if record.split("~")[0] in self.poison:
                raise ValueError("this record is poison")
        return batch.append_column("upper", pc.utf8_upper(batch["text"]))


class Deadly(Upper):
    """Ends its process, as a fault in native code does, on the records of ``poison``."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        if self.poison & set(batch["id"].to_pylist()):
            os.kill(os.getpid(), signal.SIGSEGV)
        return super().__call__(batch)


class OutOfMemoryError(RuntimeError):
    """Named as a device's error is."""


class SmallDevice:
    """Holds at most ``rows`` rows at once."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def __call__(self, batch: pa.Table) -> pa.Table:
        if batch.num_rows > self.rows:
            raise OutOfMemoryError(f"{batch.num_rows} rows do not fit")
        return batch.append_column("upper", pc.utf8_upper(batch["text"]))


class Clock:
    """Not deterministic: writes what time it is."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch.append_column("at", pa.array([time.time_ns()] * len(batch), pa.int64()))


class Unbuildable:
    """Cannot be loaded."""

    def __init__(self) -> None:
        from gristmill.shards.errors import UserError

        raise UserError("the model is not there")


def noisy(note: Path | str | None = None, seconds: float = 0.0, resources: Resources | None = None) -> Stage:
    return Stage(
        "noisy",
        f"{HERE}:Noisy",
        adds=(pa.field("draw", pa.float64()),),
        params={"note": None if note is None else str(note), "seconds": seconds},
        batch=BatchLimits(rows=8, cost="duration", max_cost=40.0),
        seeded=True,
        resources=resources or Resources(),
    )


def copies(resources: Resources | None = None) -> Stage:
    return Stage("copies", f"{HERE}:Copies", fan_out=True, resources=resources or Resources())


def upper(poison: list[str] | None = None, resources: Resources | None = None) -> Stage:
    adds = (pa.field("upper", pa.string()),)
    return Stage("upper", f"{HERE}:Upper", adds, params={"poison": poison or []}, resources=resources or Resources())


def law_step(source: SealedSet, note: Path | str | None = None, seconds: float = 0.0, *, apart: bool = False) -> Step:
    """A step of three stages; ``apart`` gives each its own pool."""
    pools = [Resources(max_workers=most) for most in ((4, 3, 2) if apart else (None, None, None))]
    return Step("law", (noisy(note, seconds, pools[0]), copies(pools[1]), upper(None, pools[2])), source)
