"""Process-wide settings for stages and trainings.

Imports stay inside functions, since the command line loads this module at startup.
"""

from __future__ import annotations

import os
import sys

from gristmill.shards import processor

ARROW_POOL = "ARROW_DEFAULT_MEMORY_POOL"  # Arrow's own environment variable
ALLOCATOR = "system"  # Arrow's default allocator retains much freed memory; the system's is as fast and does not


def choose_allocator() -> None:
    """Make Arrow use the system's allocator, unless the user chose one; to be called before Arrow is loaded.

    Arrow reads the variable on import; its Parquet reader and writer ignore a pool that is set later.
    """
    os.environ.setdefault(ARROW_POOL, ALLOCATOR)


def leave_out_pandas() -> None:
    """Keep Arrow from importing pandas, which it looks for once, at its first array: half a second for nothing.

    What does need pandas imports it as before, and so does Arrow where a table becomes a frame.
    """
    import pyarrow as pa

    sys.meta_path.insert(0, _NoPandas)
    try:
        pa.array([])
    finally:
        sys.meta_path.remove(_NoPandas)


class _NoPandas:
    """Finds that there is no pandas."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        """Raise an error for pandas, and leave all else to the other finders."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not looked for", name=name)


def prepare() -> None:
    """Make this process compute sums in one thread and return freed memory to the system.

    How sums of numpy, and of torch if it is loaded, are split among threads changes their last bits (law 1), and so
    does the instruction set, which is checked.

    Raises:
        UserError: this machine does not offer the instruction set that this process is pinned to.
        LoadedBefore: numpy or torch computes with another one.
    """
    import pyarrow as pa

    processor.loaded_pools().limit(limits=1, user_api="blas")
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    processor.check()
    if os.environ.get(ARROW_POOL, ALLOCATOR) == ALLOCATOR:  # Arrow may have been loaded before the choice
        pa.set_memory_pool(pa.system_memory_pool())
