"""What Ray Data reads: the planned shards, one read task each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from cluster.envelope import pack, pack_error, pack_receipt
from shards.index import ShardSpec
from shards.step import ShardTask


class ShardSource(Datasource):
    """The shards to make. ``commits`` is for a step of no stages, whose shards are done when they are read."""

    def __init__(self, task: Any, specs: Sequence[ShardSpec], *, commits: bool) -> None:
        super().__init__()
        self.task = task
        self.specs = specs
        self.commits = commits

    def estimate_inmemory_data_size(self) -> int | None:
        """Tell nothing: the files are compressed, and a guess from their size would be wrong."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one task a shard, whatever the parallelism."""
        one = BlockMetadata(num_rows=1, size_bytes=None, exec_stats=None, input_files=None)
        return [ReadTask(self._reader(spec), one) for spec in self.specs]

    def _reader(self, spec: ShardSpec) -> Callable[[], Iterable[pa.Table]]:
        return partial(_read, self.task, spec, self.commits)


def _read(where: Any, spec: ShardSpec, commits: bool) -> Iterable[pa.Table]:
    import ray

    try:
        task: ShardTask = ray.get(where)
        work = task.open(spec)
        return [pack_receipt(task.commit(work)) if commits else pack(work)]
    except Exception as error:
        return [pack_error(error)]
