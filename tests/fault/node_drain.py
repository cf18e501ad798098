"""A cluster of two nodes, one of which is called back in mid-step: ``python -m tests.fault.node_drain SOURCE OUT``.

Prints the digest, how many shards were left when the last worker had left the node, and how often one was seen there
afterwards.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from typing import Any

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"}

import psutil
from ray.cluster_utils import Cluster

from gristmill.cluster import session
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.dataset import open_sealed
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.receipt import Receipt
from tests.fault.law_actors import law_step


class Drainer(Progress):
    """Tells the cluster at the second receipt that the second node is called back, and watches its workers."""

    def __init__(self, cluster: Cluster, node: Any) -> None:
        self.cluster, self.node = cluster, node
        self.left, self.heard, self.left_then, self.after = 0, 0, 0, 0

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        self.left = shards

    def advance(self, receipt: Receipt) -> None:
        self.heard, self.left = self.heard + 1, self.left - 1
        if self.heard == 2:
            self._drain()
        elif self.heard > 2:
            here = bool(workers(self.node))
            if self.left_then:
                self.after += here
            elif not here:
                self.left_then = self.left

    def _drain(self) -> None:
        import ray
        from ray.core.generated.autoscaler_pb2 import DrainNodeReason

        assert workers(self.node), "the node has no work to lose"
        client = ray._raylet.GcsClient(address=self.cluster.address)
        until = int(time.time() + 120) * 1000
        reason = DrainNodeReason.DRAIN_NODE_REASON_PREEMPTION
        accepted, why = client.drain_node(self.node.node_id, reason, "the machine is called back", until)
        assert accepted, why


def workers(node: Any) -> list[psutil.Process]:
    """Return the processes on a node that make shards."""
    found = []
    for info in node.all_processes["raylet"]:
        with contextlib.suppress(psutil.Error):  # the node itself is gone meanwhile
            for child in psutil.Process(info.process.pid).children(recursive=True):
                with contextlib.suppress(psutil.Error):  # this process is, and only it
                    found += [child] if "StageActor" in " ".join(child.cmdline()) else []
    return found


def main(source: str, out: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 128 << 20})
    node = cluster.add_node(num_cpus=2, object_store_memory=128 << 20)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    drainer = Drainer(cluster, node)
    sealed = run_step(law_step(open_sealed(source), None, 0.4), out, RayRunner(), 1, drainer)
    print(sealed.digest, drainer.left_then, drainer.after)
    session.stop()
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
