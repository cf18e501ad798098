"""Envelopes: a shard between processes is one row of a table, so that Ray Data cannot split, merge or drop it."""

from __future__ import annotations

import json
import pickle
import traceback
from typing import Any

import numpy as np
import pyarrow as pa

from gristmill.shards.index import ShardSpec
from gristmill.shards.receipt import Receipt
from gristmill.shards.work import QUARANTINE, REJECTS, Work

STATE = (
    "shard",
    "records_in",
    "origin",
    "seconds",
    "batches_halved",
    "batches_split",
    "measures",
    "requeue_of",
    "receipt",
)
COLUMNS = {
    "spec": pa.binary(),
    "state": pa.string(),
    "table": pa.large_binary(),
    "rejects": pa.large_binary(),
    "quarantine": pa.large_binary(),
    "groups": pa.large_binary(),
    "receipt": pa.string(),
    "error": pa.binary(),
}


def pack_spec(spec: ShardSpec) -> pa.Table:
    """Return the envelope of a planned shard."""
    return _row(spec=pa.array([pickle.dumps(spec)], pa.binary()))


def find_spec(envelope: pa.Table) -> ShardSpec | None:
    """Return the plan of a shard that was not opened yet, else ``None``."""
    data = envelope["spec"][0].as_py()
    return None if data is None else pickle.loads(data)


def shard_name(envelope: pa.Table) -> str:
    """Return the name of the shard in an envelope, planned or in progress."""
    spec = find_spec(envelope)
    return json.loads(envelope["state"][0].as_py())["shard"] if spec is None else spec.name


def pack(work: Work) -> pa.Table:
    """Return the envelope of a shard in progress."""
    return _row(
        state=pa.array([json.dumps({name: getattr(work, name) for name in STATE})]),
        table=_wrap(work.table),
        rejects=_wrap(pa.concat_tables([REJECTS.empty_table(), *work.rejects])),
        quarantine=_wrap(pa.concat_tables([QUARANTINE.empty_table(), *work.quarantine])),
        **({} if work.groups is None else {"groups": _wrap(work.groups)}),
    )


def unpack(envelope: pa.Table) -> Work:
    """Return the shard of an envelope without copying its rows."""
    state = json.loads(envelope["state"][0].as_py())
    rejects, quarantine = _unwrap(envelope["rejects"]), _unwrap(envelope["quarantine"])
    return Work(
        table=_unwrap(envelope["table"]),
        rejects=[rejects] if rejects.num_rows else [],
        quarantine=[quarantine] if quarantine.num_rows else [],
        groups=None if envelope["groups"].null_count else _unwrap(envelope["groups"]),
        **state,
    )


def pack_receipt(receipt: Receipt) -> pa.Table:
    """Return the envelope of a committed shard."""
    return _row(receipt=pa.array([json.dumps(receipt.to_json())]))


def pack_error(error: Exception) -> pa.Table:
    """Return the envelope that carries an error to the driver; all stages pass it on unchanged."""
    return _row(error=pa.array([pickled_error(error)], pa.binary()))


def pickled_error(error: Exception) -> bytes:
    """Return an error as bytes, with its traceback as a note; one that cannot be pickled is replaced by its text."""
    error.add_note("raised in a worker:\n" + "".join(traceback.format_exception(error)).rstrip())
    try:
        data = pickle.dumps(error)
        pickle.loads(data)  # fails for an error that pickles but whose constructor takes more than its text
    except Exception:
        plain = RuntimeError(f"{type(error).__name__}: {error}")
        plain.__notes__ = error.__notes__
        data = pickle.dumps(plain)
    return data


def is_error(envelope: pa.Table) -> bool:
    """Return whether an envelope carries an error."""
    return envelope["error"].null_count == 0


def open_receipt(envelope: pa.Table) -> Receipt:
    """Return the receipt in an envelope, or raise the worker's error that it carries."""
    if is_error(envelope):
        raise pickle.loads(envelope["error"][0].as_py())
    return Receipt.from_json(json.loads(envelope["receipt"][0].as_py()))


def _row(**columns: pa.Array) -> pa.Table:
    return pa.table({name: columns.get(name, pa.nulls(1, kind)) for name, kind in COLUMNS.items()})


def _wrap(table: pa.Table) -> pa.Array:
    """Return a table as one binary value: written once, into a buffer of exactly its size."""
    size = pa.MockOutputStream()
    _write(size, table)
    data = pa.allocate_buffer(size.size(), resizable=False)
    _write(pa.FixedSizeBufferWriter(data), table)
    offsets = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    return pa.Array.from_buffers(pa.large_binary(), 1, [None, offsets, data])


def _write(sink: Any, table: pa.Table) -> None:
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)


def _unwrap(column: pa.ChunkedArray) -> pa.Table:
    return pa.ipc.open_stream(column[0].as_buffer()).read_all()
