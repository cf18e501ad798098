"""What a process is set to in which a stage or a training runs."""

from __future__ import annotations

import os
import sys

import pyarrow as pa
from threadpoolctl import threadpool_limits

ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"  # Arrow's own variable, by which its user chooses the allocator


def prepare() -> None:
    """Let this process add in one thread, and give memory back, from now on.

    How sums of numpy, and of torch if it is loaded, are shared out among threads changes their last bits (law 1).
    Arrow's own allocator keeps much of what it was given back; the system's is as fast and does not.
    """
    threadpool_limits(1, user_api="blas")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if ARROW_POOL not in os.environ:
        pa.set_memory_pool(pa.system_memory_pool())
