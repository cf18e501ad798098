"""A driver that ends itself by SIGKILL at a chosen point: ``python -m tests.fault.driver OUT RUNNER POINT NOTE``.

The points are patched in here; the product knows nothing of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import gristmill.shards.engine
import gristmill.shards.step
import gristmill.shards.work
from gristmill.shards.dataset import open_sealed
from gristmill.shards.engine import Progress, run_step
from gristmill.shards.receipt import Receipt
from tests.fault.law_actors import law_step

AT = 3  # the shard that is hit


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def nth(function: Callable[..., Any], before: bool) -> Callable[..., Any]:
    """Return the function, which at its third call ends the process, before or after it does its work."""
    count = 0

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if before and count == AT:
            die()
        result = function(*args, **kwargs)
        if not before and count == AT:
            die()
        return result

    return called


class Watch(Progress):
    """Ends the driver when it hears of the third receipt."""

    def __init__(self) -> None:
        self.heard = 0

    def advance(self, receipt: Receipt) -> None:
        self.heard += 1
        if self.heard == AT:
            die()


def main(source: str, out: str, runner: str, point: str, note: str) -> None:
    progress = Progress()
    if point == "mid-shard":
        step_call = gristmill.shards.work.StageWorker.__call__
        count = 0

        def call(worker: Any, work: Any) -> Any:
            nonlocal count
            count += worker.stage.name == "copies"
            if count == AT:
                die()
            return step_call(worker, work)

        gristmill.shards.work.StageWorker.__call__ = call  # type: ignore[method-assign]
    elif point == "after-data":
        gristmill.shards.step.commit = nth(gristmill.shards.step.commit, before=True)
    elif point == "after-receipt":
        gristmill.shards.step.commit = nth(gristmill.shards.step.commit, before=False)
    elif point == "seal":
        link = os.link

        def linked(source: Any, target: Any) -> None:
            if str(target).endswith("seal.json"):
                die()
            link(source, target)

        os.link = linked  # type: ignore[assignment]
    elif point == "heard":
        progress = Watch()
    cluster: Any
    if runner == "ray":
        from gristmill.cluster.ray_runner import RayRunner

        cluster = RayRunner(2)
    else:
        from gristmill.cluster.inprocess import InProcessRunner

        cluster = InProcessRunner()
    seconds = 0.05 if runner == "ray" else 0.0
    sealed = run_step(law_step(open_sealed(source), note, seconds), out, cluster, 1, progress)
    print(sealed.digest)


if __name__ == "__main__":
    main(*sys.argv[1:])
