"""Sums in one thread: how they are shared out among several changes their last bits (law 1)."""

from __future__ import annotations

import sys

from threadpoolctl import threadpool_limits


def one_thread() -> None:
    """Let numpy, and torch if it is loaded, add in one thread from now on, as many cores as the machine may have."""
    threadpool_limits(1, user_api="blas")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
