"""What a process is set to in which a stage or a training runs.

Imports stay inside, since the command line loads it at its start.
"""

from __future__ import annotations

import os
import sys

ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"  # Arrow's own variable, by which its user chooses the allocator
ALLOCATOR = "system"  # Arrow's own keeps much of what it was given back; the system's is as fast and does not


def choose_allocator() -> None:
    """Let Arrow take memory of the system's allocator, unless its user chose; to be called before Arrow is loaded.

    Arrow looks at the variable as it is loaded; what reads and writes Parquet heeds nothing that is set later.
    """
    os.environ.setdefault(ARROW_POOL, ALLOCATOR)


def prepare() -> None:
    """Let this process add in one thread, and give memory back, from now on.

    How sums of numpy, and of torch if it is loaded, are shared out among threads changes their last bits (law 1).
    """
    import pyarrow as pa
    from threadpoolctl import threadpool_limits

    threadpool_limits(1, user_api="blas")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    if os.environ.get(ARROW_POOL, ALLOCATOR) == ALLOCATOR:  # Arrow may have been loaded before it was chosen
        pa.set_memory_pool(pa.system_memory_pool())
