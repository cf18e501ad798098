"""Pools and nodes follow the backlog on a simulated autoscaling cluster, in namespaces of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

from benchmarks.autoscaling import ALONE, CPU_NODES, GPU_NODES


def alone_is_possible() -> bool:
    if os.geteuid() != 0:
        return False
    probe = "ip link set lo up && hostname localhost && mount -t tmpfs tmpfs /dev/shm"
    try:
        return subprocess.run([*ALONE, "sh", "-c", probe], capture_output=True, timeout=60).returncode == 0
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pools_and_nodes_follow_the_backlog() -> None:
    if not alone_is_possible():
        pytest.skip("namespaces of its own need root, unshare and ip")
    command = [sys.executable, "-m", "benchmarks.autoscaling", "--shards", "12", "--seconds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=850, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["digest"] == result["in_process"]
    rows = result["rows"]
    assert (rows[0]["CPU nodes"], rows[0]["GPU nodes"]) == (0, 0), "nodes were there before any work"
    assert max(row["CPU nodes"] for row in rows) == CPU_NODES
    assert max(row["GPU nodes"] for row in rows) == GPU_NODES
    assert max(row["GPU workers"] for row in rows) == 2 * GPU_NODES, "two workers share a GPU, and no other runs there"
    assert all(row["GPU workers"] <= 2 * row["GPU nodes"] for row in rows)
    assert all(value == 0 for key, value in rows[-1].items() if key != "second"), "something is left at the end"
