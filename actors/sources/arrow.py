"""Columns of Arrow files, as ``datasets`` saves a set to disk: a stream of batches, or a file with an index of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from gristmill.actors.sources.reading import SourceFile
from gristmill.actors.sources.unlisted import UNREADABLE, FileFault
from gristmill.shards import store
from gristmill.shards.errors import one_line

SUFFIX = ".arrow"
_MAGIC = b"ARROW1"


class ArrowColumns:
    """An Arrow file that is open for reading; its batches are the row groups.

    On local disk it is mapped, so that listing touches no audio; elsewhere each batch is read whole.

    Raises:
        FileFault: the file is damaged or not Arrow.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.rows: list[int] = []
        """Rows of each batch."""
        try:
            self._source: Any = pa.memory_map(store.filesystem(file.url)[1]) if store.is_local(file.url) else file
            self.schema: pa.Schema = self._opened().schema
            self.rows = [len(batch) for batch in self._read()]
        except Exception as error:
            raise self._fault(error) from None

    def batches(self, group: int, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield some columns of a batch.

        Raises:
            FileFault: the batch is damaged.
        """
        try:
            (batch,) = self._read(group)
            chosen = batch.select(list(columns))
            chosen.validate(full=True)
        except Exception as error:
            raise self._fault(error) from None
        yield chosen

    def _opened(self) -> Any:
        self._source.seek(0)
        is_file = self._source.read(len(_MAGIC)) == _MAGIC
        self._source.seek(0)
        return pa.ipc.open_file(self._source) if is_file else pa.ipc.open_stream(self._source)

    def _read(self, only: int | None = None) -> Iterator[pa.RecordBatch]:
        reader = self._opened()
        if isinstance(reader, pa.ipc.RecordBatchFileReader):
            for number in range(reader.num_record_batches) if only is None else (only,):
                yield reader.get_batch(number)
            return
        for number, batch in enumerate(reader):
            if only is None or number == only:
                yield batch
            if number == only:
                return

    def _fault(self, error: Exception) -> FileFault:
        said = f"damaged or not Arrow ({one_line(error)[:200]}); expected an Arrow stream or file that is whole"
        return FileFault(self.file.url, UNREADABLE, said)
