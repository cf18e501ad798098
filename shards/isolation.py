"""Law 6 without an exception: a record that kills its process (a fault in native code) costs only itself.

A dead worker cannot report which record killed it. So a restarted worker marks each shard before it begins it; a shard
that was begun too often is processed by an actor in a process of its own, whose death is an exception like any other:
the batch is bisected, and the record is quarantined.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import pickle
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from gristmill.shards import store
from gristmill.shards.runs import LargeGroup
from gristmill.shards.scratch import scratch
from gristmill.shards.stage import BatchFunction, Stage

ATTEMPTS = 2  # at a shard, by restarted workers, before its actors are isolated
_MARKS = "attempts"


class Closing(Protocol):
    """What is closed after use."""

    def close(self) -> None:
        """End what it holds."""
        ...


W = TypeVar("W", bound=Closing)


class ProcessDied(Exception):
    """The process of an isolated actor ended."""


class IsolatedActor:
    """The actor of a stage in a process of its own, which is restarted after it died."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self._given = stage, seed
        self._process: Any = None
        self._pipe: Connection | None = None

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Return the actor's result for a batch, or raise the actor's error.

        Raises:
            ProcessDied: the process ended instead of answering.
        """
        return pa.ipc.open_stream(self._answer(b"", _to_bytes(batch))).read_all()

    def large(self, group: LargeGroup) -> Iterator[pa.Table]:
        """Yield what a reducer gives for a group that is larger than memory: both go through files.

        Raises:
            ProcessDied: as above.
        """
        with scratch() as folder:
            with pa.ipc.new_stream(str(folder / "given"), group.schema) as writer:
                for table in group:
                    writer.write_table(table)
            self._answer(b"large", str(folder).encode())
            if (folder / "made").exists():
                with pa.ipc.open_stream(pa.OSFile(str(folder / "made"))) as made:
                    for batch in made:
                        yield pa.Table.from_batches([batch])

    def _answer(self, kind: bytes, data: bytes) -> bytes:
        pipe = self._pipe or self._start()
        try:
            for part in (kind, data):
                pipe.send_bytes(part)
            failed, answer = pipe.recv_bytes(), pipe.recv_bytes()
        except (EOFError, OSError):
            self._pipe = None
            self._process.join()
            raise ProcessDied(f"this record ended the process ({_ending(self._process.exitcode)})") from None
        if failed == b"1":
            raise _unpacked(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        if self._pipe is not None:
            self._pipe.close()
            self._process.join()
            self._pipe = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")  # a fork would copy locks that threads hold
        self._pipe, other = context.Pipe()
        self._process = context.Process(target=_serve, args=(*self._given, other), daemon=True)
        self._process.start()
        other.close()
        return self._pipe


def _serve(stage: Stage, seed: int, pipe: Connection) -> None:
    actor: BatchFunction | None = None
    while True:
        try:
            kind, data = pipe.recv_bytes(), pipe.recv_bytes()
        except EOFError:
            return
        try:
            actor = actor or stage.build(seed)
            failed, answer = b"0", b""
            if kind == b"large":
                _reduce_large(actor, Path(data.decode()))
            else:
                answer = _to_bytes(actor(pa.ipc.open_stream(data).read_all()))
        except Exception as error:
            failed, answer = b"1", _packed(error)
        pipe.send_bytes(failed)
        pipe.send_bytes(answer)


def _reduce_large(reducer: Any, folder: Path) -> None:
    with pa.ipc.open_stream(pa.OSFile(str(folder / "given"))) as given:
        tables = (pa.Table.from_batches([batch]) for batch in given)
        writer = None
        for table in reducer.large(LargeGroup(next(tables), tables)):
            writer = writer or pa.ipc.new_stream(str(folder / "made"), table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()


def _to_bytes(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


def _packed(error: Exception) -> bytes:
    description = (type(error).__name__, str(error))
    try:
        data = pickle.dumps((error, *description))
        pickle.loads(data)
    except Exception:
        return pickle.dumps((None, *description))  # not every exception can be pickled; name and text are stored
    return data


def _unpacked(data: bytes) -> Exception:
    error, name, text = pickle.loads(data)  # from our own child process, never from a file
    return error or type(name, (Exception,), {})(text)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    return signal.Signals(-code).name if -code in set(signal.Signals) else f"signal {-code}"


def begin_attempt(url: str, shard: str) -> int:
    """Mark that an attempt at a shard begins; return the number of marks, this one included."""
    number = 0
    while not store.put_if_absent(store.join(url, _MARKS, f"{shard}.{number}"), uuid.uuid4().bytes):
        number += 1
    return number + 1


@contextlib.contextmanager
def careful(url: str, shard: str, workers: Sequence[W], isolated: Callable[[], Sequence[W]]) -> Iterator[Sequence[W]]:
    """Yield the workers for a shard of the set at a URL that may have ended a process: the given ones, or, if the shard
    was begun too often, ones whose actors have processes of their own."""
    marks = begin_attempt(url, shard)
    apart = isolated() if marks > ATTEMPTS else ()
    try:
        yield apart or workers
    finally:
        end_attempts(url, shard, marks)
        for worker in apart:
            worker.close()


def end_attempts(url: str, shard: str, marks: int) -> None:
    """Remove the marks of a shard that was finished."""
    for number in range(marks):
        store.remove_file(store.join(url, _MARKS, f"{shard}.{number}"))
