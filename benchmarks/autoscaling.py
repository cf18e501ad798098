"""Scaling of pools and nodes with the backlog, on Ray's simulated autoscaling cluster.

The head has no CPU, and there are no other nodes at first. A step of three stages decodes on CPU nodes, labels on nodes
with a declared GPU, half of one per worker, and packs on CPU nodes again. Once a second the numbers of remaining
shards, workers and nodes are recorded, until the last node is gone.

The simulated cluster uses fixed ports, and its nodes survive their head. So the benchmark restarts itself in its own
namespaces, for which it must be root; all processes in them end with them.
Run: ``python -m benchmarks.autoscaling [--shards 24] [--seconds 2.0]``.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from gristmill.cluster.inprocess import InProcessRunner
from gristmill.cluster.placement import GpuWorkers, Most, Placement, Workers
from gristmill.cluster.ray_runner import RayRunner
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.receipt import Receipt
from gristmill.shards.stage import Resources
from gristmill.shards.step import Step

from tests.fault.law_actors import copies, corpus, noisy, upper

ALONE = ["unshare", "--pid", "--fork", "--mount-proc", "--net", "--uts", "--mount", "--kill-child"]
ROOT = Path(__file__).resolve().parent.parent
GROUP = "ray.io/node-group"
CPU_NODES, GPU_NODES = 2, 2
PLACEMENT = Placement(
    most=Most(cpus=CPU_NODES, gpus=GPU_NODES),
    cpu=Workers(labels={GROUP: "cpu"}),
    gpu=GpuWorkers(gpus=0.5, cpus=0.1, labels={GROUP: "gpu"}),
)
HEAD = "f" * 51 + "00000"  # its node id, by which the provider identifies it
PROVIDER = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
ATTEMPTS = 5  # to start Ray on a busy machine
PATIENCE = 600.0  # seconds until the last node must be gone


class Backlog(Progress):
    """Tracks the number of remaining shards."""

    def __init__(self) -> None:
        self.left = 0

    def begin(self, name: str, shards: int, done: int, records: int) -> None:
        self.left = shards - done

    def advance(self, receipt: Receipt) -> None:
        self.left -= 1


def mixed_step(source: Any, seconds: float) -> Step:
    """Decode, label (slowly, on a GPU), pack."""
    label = noisy(None, seconds, Resources(gpus=1))
    return Step("mixed", (upper(), label, copies()), source)


def node_type(resources: dict[str, float], group: str, most: int) -> dict[str, Any]:
    return {
        "resources": resources | {"object_store_memory": 100 << 20},
        "labels": {GROUP: group},
        "node_config": {},
        "min_workers": 0,
        "max_workers": most,
    }


def start_cluster(folder: str) -> None:
    """Start a head whose autoscaler starts nodes as local processes.

    Like :class:`ray.cluster_utils.AutoscalingCluster`, but without the dashboard and without ``ray stop`` first.
    """
    groups = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": node_type({"CPU": 1}, "cpu", CPU_NODES),
        "gpu": node_type({"CPU": 1, "GPU": 1}, "gpu", GPU_NODES),
    }
    lists = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    lists += ("head_start_ray_commands", "worker_start_ray_commands", "cluster_synced_files")
    config = {
        "cluster_name": "simulated",
        "max_workers": CPU_NODES + GPU_NODES,
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": 0.1,
        "provider": {
            "type": "external",  # `fake_multinode` needs a file that the package lacks
            "module": PROVIDER,
            "launch_multiple": True,
            "head_node_id": HEAD,
            "disable_node_updaters": True,  # nothing to install
        },
        "available_node_types": groups,
        "head_node_type": "ray.head.default",
        **{key: {} for key in ("auth", "docker", "file_mounts")},
        **{key: [] for key in (*lists, "rsync_exclude", "rsync_filter")},
        "file_mounts_sync_continuously": False,
    }
    path = Path(folder, "autoscaler.json")
    path.write_text(json.dumps(config))
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--num-cpus=0", "--object-store-memory=104857600", "--include-dashboard=false"]
    settings = {
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }
    command.append(f"--autoscaling-config={path}")
    for _ in range(ATTEMPTS):
        if not subprocess.run(command, env=os.environ | settings, stdout=subprocess.DEVNULL).returncode:
            return
        # Ray's own processes have half a minute to end. In these namespaces it sees no others.
        subprocess.run([ray, "stop", "--force"], stdout=subprocess.DEVNULL, check=True)
    raise RuntimeError("Ray did not start")


class Table:
    """Records shards, workers and nodes once a second."""

    def __init__(self, backlog: Backlog) -> None:
        self.backlog, self.begun, self.rows = backlog, time.monotonic(), []
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, daemon=True)

    def look(self) -> dict[str, int]:
        import ray
        from ray._private.state import actors

        groups = {node["NodeID"]: node["Labels"].get(GROUP, "head") for node in ray.nodes() if node["Alive"]}
        pools = [actor for actor in actors().values() if "StageActor" in (actor["ActorClassName"] or "")]
        where = [groups.get(actor["Address"]["NodeID"]) for actor in pools if actor["State"] == "ALIVE"]
        waiting = sum(actor["State"] in ("PENDING_CREATION", "DEPENDENCIES_UNREADY", "RESTARTING") for actor in pools)
        nodes = list(groups.values())
        return {
            "second": round(time.monotonic() - self.begun),
            "shards left": self.backlog.left,
            "workers wait": waiting,
            "CPU workers": where.count("cpu"),
            "GPU workers": where.count("gpu"),
            "CPU nodes": nodes.count("cpu"),
            "GPU nodes": nodes.count("gpu"),
        }

    def _watch(self) -> None:
        while not self.over.wait(1.0):
            self.rows.append(self.look())

    def changes(self) -> list[dict[str, int]]:
        """Return the rows in which anything but the time has changed."""
        changed = [row for place, row in enumerate(self.rows) if not place or _rest(row) != _rest(self.rows[place - 1])]
        return changed if changed[-1:] == self.rows[-1:] else [*changed, self.rows[-1]]


def _rest(row: dict[str, int]) -> list[int]:
    return [value for key, value in row.items() if key != "second"]


def measure(shards: int, seconds: float) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["hostname", "localhost"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/dev/shm"], check=True)
    # A short path, as sockets require; not mounted over /tmp, where Python itself may be installed.
    with tempfile.TemporaryDirectory(prefix="as", dir="/var/tmp") as folder:
        os.environ |= {"RAY_TMPDIR": folder, "TMPDIR": folder, "PYTHONPATH": str(ROOT)}
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "a" * 64, "RAY_USAGE_STATS_ENABLED": "0"}
        source = corpus(f"{folder}/corpus", shards, 8)
        start_cluster(folder)
        os.environ["RAY_ADDRESS"] = "auto"
        import ray

        backlog = Backlog()
        runner = RayRunner(placement=PLACEMENT)
        from gristmill.cluster import session

        session.start()
        table = Table(backlog)
        table.thread.start()
        digest = run_step(mixed_step(source, seconds), f"{folder}/out", runner, 1, backlog).digest
        ended = time.monotonic()
        while table.rows[-1]["CPU nodes"] + table.rows[-1]["GPU nodes"]:
            if time.monotonic() > ended + PATIENCE:
                break
            time.sleep(1.0)
        table.over.set()
        table.thread.join()
        ray.shutdown()
        alone = run_step(mixed_step(source, 0.0), f"{folder}/alone", InProcessRunner(), 1).digest
        rows = table.changes()
        print("| " + " | ".join(rows[0]) + " |\n|" + " ---: |" * len(rows[0]))
        for row in rows:
            print("| " + " | ".join(map(str, row.values())) + " |")
        print(json.dumps({"rows": table.rows, "digest": digest, "in_process": alone}))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shards", type=int, default=24)
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per batch of labelling")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.inside:
        measure(given.shards, given.seconds)
    else:
        command = [*ALONE, sys.executable, "-m", "benchmarks.autoscaling", "--inside", *sys.argv[1:]]
        sys.exit(subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}).returncode)


if __name__ == "__main__":
    main()
