"""The in-process runner: one core, no Ray. For tests, debugging and machines where Ray is not installed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from shards.index import ShardSpec
from shards.receipt import Receipt
from shards.step import ShardTask


class InProcessRunner:
    """Runs the stages of each shard one after the other, in this process."""

    def execute(self, task: ShardTask, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Make the shards in order; actors are loaded once, when the first shard needs them."""
        workers = [task.worker(place) for place in range(len(task.stages))] if specs else []
        for spec in specs:
            work = task.open(spec)
            for worker in workers:
                work = worker(work)
            yield task.commit(work)
