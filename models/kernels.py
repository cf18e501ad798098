"""Compute kernels: functions on arrays that numba turns into machine code, without a compiler on the machine.

Modules of kernels import numba, which takes half a second, so they are imported in the functions that call them. A
kernel is compiled when it is first called with arrays of its kinds, which takes seconds, and the code is kept beside
its module, or in the user's cache folder (``NUMBA_CACHE_DIR`` names another) where that cannot be written.

Kernels do not reorder or contract the sums of floats, so their bits are those of the same code in Python.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import extending, njit


def kernel(function: Callable[..., Any]) -> Any:
    """Return the compiled form of a function on arrays; other threads run while it does.

    Example:
        >>> import numpy as np
        >>> @kernel
        ... def largest(values):
        ...     best = values[0]
        ...     for value in values:
        ...         best = max(best, value)
        ...     return best
        >>> largest(np.array([1.0, 3.0, 2.0]))
        3.0
    """
    try:
        made: Any = njit(cache=True, nogil=True)(function)
    except RuntimeError:  # no folder for a cache can be written
        return njit(nogil=True)(function)
    # Numba keeps the code until the function's own file changes, but what it uses of other files is part of the code.
    used = [function.__globals__.get(name) for name in sorted(set(function.__code__.co_names))]
    made._cache._cache_file._source_stamp = (made._cache._cache_file._source_stamp, *map(_stamp, used))
    return made


def is_kept(made: Any) -> bool:
    """Return whether the code of a compiled function is kept for other processes."""
    return hasattr(getattr(made, "_cache", None), "_cache_file")


def _stamp(used: Any) -> Any:
    """Return what changes with something that a kernel uses: a kernel, which has that of all that it uses, or a value.

    Of an intrinsic it is that of its file.
    """
    if is_kept(used):
        return used._cache._cache_file._source_stamp
    if isinstance(used, int | float | np.generic):
        return repr(used)
    if isinstance(used, extending._Intrinsic):
        found = os.stat(used._defn.__code__.co_filename)
        return found.st_mtime, found.st_size
    return None
