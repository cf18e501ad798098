"""A warm worker: one process that makes shards of any step, and fits, one after the other."""

from __future__ import annotations

import contextlib
import json
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
    """One worker process. Errors travel as bytes, so that Ray does not wrap them."""

    def __init__(self) -> None:
        self.drain = DrainWatch()
        self.loaded: tuple[str, Sequence[StageWorker]] | None = None

    def node(self) -> str:
        """Return the node that it runs on."""
        return self.drain.node

    def fit(self, job: Job, url: str, run: str, log: LogSettings) -> tuple[float, bytes | None]:
        """Fit a job; return the seconds that it took, and its pickled error if it has one."""
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
        self.drain.leave_if_due()
        try:
            if self.loaded is None or self.loaded[0] != key:
                self.loaded = None  # what the last step had loaded
                self.loaded = key, self._workers(task)
            ready = self.loaded[1]
            with contextlib.ExitStack() as stack:
                if suspect:
                    alone = partial(self._workers, task, isolated=True)
                    ready = stack.enter_context(careful(task.url, f"{spec.name}-0", ready, alone))
                return json.dumps(task.make(spec, ready).to_json())
        except Exception as error:
            return pickled_error(error)

    def _workers(self, task: ShardTask, *, isolated: bool = False) -> Sequence[StageWorker]:
        return [task.worker(place, isolated=isolated) for place in range(len(task.stages))]
