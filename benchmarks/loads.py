"""Workloads of the engine's benchmarks: rows, actors, steps. Workers import it as ``benchmarks.loads``."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from gristmill.shards.dataset import SealedSet, seal_tables
from gristmill.shards.stage import BatchLimits, Stage
from gristmill.shards.step import Step

import pyarrow as pa
import pyarrow.compute as pc

ROWS = pa.schema([("id", pa.string()), ("text", pa.string()), ("duration", pa.float64())])
SHARD = 2000


def tables(records: int) -> Iterator[pa.Table]:
    """Yield rows in tables of a shard's size."""
    for start in range(0, records, SHARD):
        numbers = range(start, min(records, start + SHARD))
        text = [f"the utterance of the number {number} of them all" for number in numbers]
        yield pa.table([[f"r{number:08d}" for number in numbers], text, [float(n % 17) for n in numbers]], schema=ROWS)


def corpus(url: str, records: int) -> SealedSet:
    """Seal so many rows."""
    return seal_tables(url, "corpus", tables(records))


class Light:
    """Does almost nothing, so that the engine is measured."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        return batch.append_column("upper", pc.utf8_upper(batch["text"]))


class Heavy:
    """Keeps one core busy for a fixed number of rounds per record."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    def __call__(self, batch: pa.Table) -> pa.Table:
        made = []
        for text in batch["text"].to_pylist():
            value = text.encode()
            for _ in range(self.rounds):
                value = hashlib.sha256(value).digest()
            made.append(value.hex())
        return batch.append_column("upper", pa.array(made))


UPPER = (pa.field("upper", pa.string()),)


def light(source: SealedSet) -> Step:
    return Step("light", (Stage("light", "benchmarks.loads:Light", UPPER, batch=BatchLimits(rows=64)),), source)


def heavy(source: SealedSet, rounds: int) -> Step:
    stage = Stage("heavy", "benchmarks.loads:Heavy", UPPER, params={"rounds": rounds}, batch=BatchLimits(rows=64))
    return Step("heavy", (stage,), source)
