"""The stored description of an error is the same in every process."""

from __future__ import annotations

import io
import os
import tempfile
import threading

import pyarrow as pa
import pytest

from gristmill.shards.stage import Stage
from gristmill.shards.work import StageWorker, Work

WORDS = "Error opening {}: Format not recognised"


class Opens:
    """Breaks, or turns down, with an error that names an object in memory and a temporary file."""

    def __init__(self, breaks: bool) -> None:
        self.breaks = breaks
        self.kept: list[object] = []

    def __call__(self, batch: pa.Table) -> pa.Table:
        self.kept.append(held := io.BytesIO())  # kept, so that the next lies elsewhere
        handle, name = tempfile.mkstemp()
        os.close(handle)
        os.unlink(name)
        text = f"{WORDS.format(held)} ({name}, pid {os.getpid()}, thread {threading.get_native_id()})"
        if self.breaks:
            raise OSError(text)
        return batch.append_column("reject_reason", pa.array([text] * batch.num_rows))


@pytest.mark.parametrize("breaks", [True, False])
def test_addresses_and_temporary_names_are_not_stored(breaks: bool) -> None:
    stage = Stage("opens", f"{__name__}:Opens", params={"breaks": breaks})
    tables = []
    worker = StageWorker(stage, 0)
    for _ in range(2):
        work = worker(Work("s", pa.table({"id": ["a"]}), 1))
        tables.append((work.quarantine if breaks else work.rejects)[0])
    assert tables[0].equals(tables[1])
    error = tables[0].column(3)[0].as_py().removeprefix("OSError: ")
    assert error == f"{WORDS.format('<_io.BytesIO object at 0x*>')} (tmp*, pid *, thread *)"


def test_details_of_the_record_stay() -> None:
    from gristmill.shards.work import steady

    for text in ("can't decode byte 0xff in position 12", "unexpected tag 0x52494646", "column tmp_word is empty"):
        assert steady(text) == text
