"""Leaving a node that is about to go: a spot machine that was called back, or one that the autoscaler takes away."""

from __future__ import annotations

import os
import time

EVERY = 2.0  # seconds between two looks; the shortest notice of a cloud is 25


class DrainWatch:
    """Looks whether this worker's node drains. Ray gives such a node no new actor, but those there go on being fed."""

    def __init__(self) -> None:
        import ray

        self.node = ray.get_runtime_context().get_node_id()
        self.looked = time.monotonic()

    def leave_if_due(self) -> None:
        """End this process if its node drains: Ray starts the actor elsewhere, with the shards that waited for it.

        To be called between two shards, so that no work is lost.
        """
        if time.monotonic() - self.looked < EVERY:
            return
        from ray._private.state import state  # what Ray's own libraries ask; there is no public call

        if self.node in state.get_draining_nodes():
            # Not by ray.actor.exit_actor: an actor that ends in order is not started again.
            os._exit(1)
        self.looked = time.monotonic()
