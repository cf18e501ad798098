"""The driver's memory from a thousand to a million records: sealing a stream, and a step on each runner. Goal: 50 MB.

Each size runs in a process of its own; the result is its peak memory (``VmHWM``), including the start of Ray.
Run: ``python -m benchmarks.driver_memory``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SIZES = (1_000, 10_000, 100_000, 1_000_000)


def peak() -> float:
    """Return the peak memory of this process, in MB."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) / 1000 for line in status.splitlines() if line.startswith("VmHWM"))


def one(kind: str, records: int) -> None:
    from gristmill.cluster.inprocess import InProcessRunner
    from gristmill.cluster.ray_runner import RayRunner
    from gristmill.shards.engine import run_step

    from benchmarks.loads import corpus, light

    with tempfile.TemporaryDirectory() as folder:
        runner = RayRunner(2) if kind == "ray" else InProcessRunner()
        sealed = run_step(light(corpus(f"{folder}/corpus", records)), folder, runner, 0)
        assert sealed.records == records
    print(peak())


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    result = {}
    for kind in ("inprocess", "ray"):
        held = {}
        for records in SIZES:
            command = [sys.executable, "-m", "benchmarks.driver_memory", kind, str(records)]
            held[records] = float(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
            print(f"{kind:10} {records:>9} records: {held[records]:7.1f} MB")
        result[f"{kind}_growth_mb"] = max(held.values()) - held[SIZES[0]]
    print(json.dumps({**result, "goal_mb": 50}))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        one(sys.argv[1], int(sys.argv[2]))
    else:
        main()
