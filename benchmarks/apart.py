"""A function in a process of its own, so that what it holds is not that of others."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any


def _child(pipe: Any, function: Callable[..., dict[str, Any]], *given: Any) -> None:
    found = function(*given)
    pipe.send({"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, **found})


def apart(function: Callable[..., dict[str, Any]], *given: Any) -> dict[str, Any]:
    """Return what a function of a module returns in a new process; with the process's peak of resident memory as
    ``peak_mb``, unless the function measures its own."""
    context = multiprocessing.get_context("spawn")
    mine, other = context.Pipe()
    process = context.Process(target=_child, args=(other, function, *given))
    process.start()
    other.close()
    found = mine.recv()
    process.join()
    return found
