"""Runs and cleans that end themselves by SIGKILL at a chosen point: ``python -m tests.fault.clean_driver``.

It reads a line of JSON for each, ``{"verb": ..., "allowed": ..., ...}``, works in a process of its own, which is forked
before any thread is started, and writes its exit status. The points are patched in here; the product knows nothing of
them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any

import gristmill.shards.step
from gristmill.pipelines.command.clean import clean_output
from gristmill.pipelines.command.launch import carry_out
from gristmill.pipelines.config import load
from gristmill.pipelines.progress import RunProgress
from gristmill.pipelines.unused import CleaningChoice
from gristmill.shards import store
from tests.pipelines.cleaned import NOTE


def limited(function: Callable[..., Any], allowed: int) -> Callable[..., Any]:
    """Return the function, which ends the process instead of being called more often than is allowed."""
    lock, count = threading.Lock(), 0

    def called(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        with lock:  # held to the end, so that what is allowed is done
            count += 1
            if count > allowed:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

    return called


def work(given: dict[str, Any]) -> None:
    """Clean an output or run a recipe; ``allowed`` deletions, or commits of shards, are done."""
    if given["verb"] == "clean":
        store.remove_file = limited(store.remove_file, given["allowed"])
        clean_output(given["out"], CleaningChoice(intermediate=given["intermediate"]))
    else:
        os.environ[NOTE] = given["note"]
        gristmill.shards.step.commit = limited(gristmill.shards.step.commit, given["allowed"])
        carry_out(load(given["config"], given["settings"]), RunProgress())


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)
            code = 1
            try:
                work(json.loads(line))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
