"""A warm worker: one process that makes shards of any step, and fits, one after the other."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from functools import partial

from gristmill.cluster.draining import DrainWatch
from gristmill.cluster.envelope import pickled_error
from gristmill.cluster.ray_fit import fit
from gristmill.cluster.training_log import LogSettings
from gristmill.shards.index import ShardSpec
from gristmill.shards.isolation import careful
from gristmill.shards.job import Job
from gristmill.shards.step import ShardTask
from gristmill.shards.work import StageWorker


class WarmStageActor:
    """One worker process. Errors travel as bytes, so that Ray does not wrap them.

    One with a GPU is called by several threads: a shard is read, and another committed, while the stages run on a
    third, so that no GPU waits for the storage.
    """

    def __init__(self) -> None:
        self.drain = DrainWatch()
        self.lock = threading.Lock()  # of the stages
        self.loaded: tuple[str, Sequence[StageWorker]] | None = None

    def node(self) -> str:
        """Return the node that it runs on."""
        return self.drain.node

    def fit(self, job: Job, url: str, run: str, log: LogSettings) -> tuple[float, bytes | None]:
        """Fit a job; return the seconds that it took, and its pickled error if it has one."""
        with self.lock:
            self.drain.leave_if_due()
            self.loaded = None
            begun = time.monotonic()
            error = fit(job, url, run, log)
            return time.monotonic() - begun, error

    def make(self, key: str, task: ShardTask, spec: ShardSpec, suspect: bool) -> str | bytes:
        """Make a shard and return its receipt as JSON, or the pickled error.

        ``key`` tells what the stages are made of: they are loaded once for all tasks of which it is equal, one after
        the other. ``suspect``: the shard may have ended a process.
        """
        try:
            if suspect:
                with self.lock:
                    alone = partial(self._workers, task, isolated=True)
                    with careful(task.url, f"{spec.name}-0", self._ready(key, task), alone) as workers:
                        return json.dumps(task.make(spec, workers).to_json())
            work = task.open(spec)
            with self.lock:
                for worker in self._ready(key, task):
                    work = worker(work)
            return json.dumps(task.commit(work).to_json())
        except Exception as error:
            return pickled_error(error)

    def _ready(self, key: str, task: ShardTask) -> Sequence[StageWorker]:
        """Return loaded workers of the stages, between two shards."""
        self.drain.leave_if_due()
        if self.loaded is None or self.loaded[0] != key:
            self.loaded = None  # what the last step had loaded
            self.loaded = key, self._workers(task)
        return self.loaded[1]

    def _workers(self, task: ShardTask, *, isolated: bool = False) -> Sequence[StageWorker]:
        return [task.worker(place, isolated=isolated) for place in range(len(task.stages))]
