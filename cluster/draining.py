"""Leaving a node that is about to go: a spot machine being reclaimed, or one that the autoscaler removes."""

from __future__ import annotations

import os
import time

EVERY = 2.0  # seconds between checks; the shortest notice that a cloud gives is 25


class DrainWatch:
    """Checks whether this worker's node is draining: Ray places no new actor there but keeps feeding the old ones."""

    def __init__(self) -> None:
        import ray

        self.node = ray.get_runtime_context().get_node_id()
        self.looked = time.monotonic()

    def leave_if_due(self) -> None:
        """End this process if its node is draining: Ray restarts the actor elsewhere, with the shards queued for it.

        To be called between two shards, so that no work is lost.
        """
        if time.monotonic() - self.looked < EVERY:
            return
        from ray._private.state import state  # as in Ray's own libraries; there is no public call

        if self.node in state.get_draining_nodes():
            # Not by ray.actor.exit_actor: an actor that exits normally is not restarted.
            os._exit(1)
        self.looked = time.monotonic()
