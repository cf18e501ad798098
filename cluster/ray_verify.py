"""Verification of committed shards on Ray: a task compares the files of several with their digests."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from gristmill.cluster.envelope import pickled_error
from gristmill.cluster.pools import TASK_CPUS
from gristmill.shards.receipt import Receipt, check_files

TOGETHER = 16  # shards per task, at most


def verify_shards(url: str, receipts: Sequence[Receipt], cpus: int) -> None:
    """Compare the files of committed shards of the set at ``url`` with their digests, on up to ``cpus`` CPUs.

    Ray retries tasks whose worker or node is lost.

    Raises:
        Damaged: a file is missing or is not what was committed.
    """
    import ray

    verify: Any = ray.remote(_verify).options(num_cpus=TASK_CPUS, scheduling_strategy="SPREAD")
    size = max(1, min(TOGETHER, len(receipts) // (4 * cpus)))
    running: list[Any] = []
    for at in range(0, len(receipts), size):
        if len(running) >= cpus:
            running = _next(running)
        running.append(verify.remote(url, receipts[at : at + size]))
    while running:
        running = _next(running)


def _next(running: list[Any]) -> list[Any]:
    """Wait for one of the running tasks, raise its error if it has one, and return the others."""
    import ray

    ended, running = ray.wait(running)
    for error in ray.get(ended):
        if error is not None:
            raise pickle.loads(error)
    return running


def _verify(url: str, receipts: Sequence[Receipt]) -> bytes | None:
    """Return the error of the first damaged shard, if any."""
    try:
        for receipt in receipts:
            check_files(url, receipt)
    except Exception as error:
        return pickled_error(error)
    return None
