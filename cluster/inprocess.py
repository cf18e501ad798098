"""The in-process runner: one core, no Ray. For tests, debugging and machines without Ray."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence

from gristmill.cluster.checkpoints import Checkpoints
from gristmill.cluster.training_log import RUN, LogSettings, TrainingLog
from gristmill.shards import interrupts
from gristmill.shards.errors import UserError
from gristmill.shards.index import ShardSpec
from gristmill.shards.job import Job, TrainListener
from gristmill.shards.receipt import Receipt, check_files
from gristmill.shards.step import ShardTask


class InProcessRunner:
    """Runs the stages of each shard one after the other, in this process."""

    waited = 0.0

    def __init__(self, run: str = RUN, log: LogSettings | None = None) -> None:
        self.run, self.log = run, log or LogSettings()

    def execute(self, task: ShardTask, specs: Sequence[ShardSpec]) -> Iterator[Receipt]:
        """Make the shards in order; actors are loaded once, when the first shard needs them."""
        workers = [task.worker(place) for place in range(len(task.stages))] if specs else []
        for spec in specs:
            yield task.make(spec, workers)

    def verify(self, url: str, receipts: Sequence[Receipt]) -> None:
        """Compare the files of committed shards with their digests, one shard after the other."""
        for receipt in receipts:
            check_files(url, receipt)

    def train(self, jobs: Sequence[tuple[Job, str]], listener: TrainListener | None = None) -> None:
        """Train the jobs one after another; each resumes from its newest checkpoint.

        Raises:
            UserError: a job has several ranks, which need several processes.
        """
        for job, url in jobs:
            if job.ranks > 1:
                raise UserError(
                    f"training {job.name} is set to {job.ranks} ranks, and runner=inprocess has one process; "
                    "give runner=ray or 1 rank"
                )
            begun = time.monotonic()
            with TrainingLog(self.log, self.run, job) as log:
                job.run(url, InProcessContext(url, log, listener))
            if listener is not None:
                listener.ended(url, time.monotonic() - begun)

    def at(self, urgency: tuple[float, ...]) -> InProcessRunner:
        """Return itself: one thing is done at a time."""
        return self

    def parallel(self) -> int:
        """Return 0: one thing is done at a time."""
        return 0

    def side_by_side(self) -> contextlib.AbstractContextManager[None]:
        """Enter nothing: one thing is done at a time."""
        return contextlib.nullcontext()


class InProcessContext:
    """The only rank of a training in this process."""

    rank = 0
    world_size = 1
    trial_steps: int | None = None

    def __init__(self, url: str, log: TrainingLog | None = None, listener: TrainListener | None = None) -> None:
        self.url, self.checkpoints, self.log, self.listener = url, Checkpoints(url), log, listener

    def resume(self) -> bytes | None:
        """Return the newest checkpoint."""
        name = self.checkpoints.newest()
        return None if name is None else self.checkpoints.read(name)

    def report(self, metrics: Mapping[str, float], checkpoint: bytes | None = None) -> None:
        """Store the checkpoint; log the metrics, and tell them to those who listen."""
        interrupts.check()
        if self.listener is not None:
            self.listener.point(self.url, metrics)
        if self.log is not None:
            self.log.point(metrics)
        self.checkpoints.note(metrics)
        if checkpoint is not None:
            self.checkpoints.write(checkpoint)
