"""A cluster of two nodes, one of which is killed while a step runs: ``python -m tests.fault.node_loss SOURCE OUT``."""

from __future__ import annotations

import os
import sys

os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"}

from ray.cluster_utils import Cluster

from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.dataset import open_sealed
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.receipt import Receipt
from tests.fault.law_actors import law_step


class NodeKiller(Progress):
    """Kills the second node at the second receipt."""

    def __init__(self, cluster: Cluster, node: object) -> None:
        self.cluster, self.node, self.heard = cluster, node, 0

    def advance(self, receipt: Receipt) -> None:
        self.heard += 1
        if self.heard == 2:
            self.cluster.remove_node(self.node, allow_graceful=False)


def main(source: str, out: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "object_store_memory": 128 << 20})
    node = cluster.add_node(num_cpus=2, object_store_memory=128 << 20)
    cluster.wait_for_nodes()
    os.environ["RAY_ADDRESS"] = cluster.address
    sealed = run_step(law_step(open_sealed(source), None, 0.1), out, RayRunner(), 1, NodeKiller(cluster, node))
    print(sealed.digest)
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
