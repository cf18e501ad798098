"""Compute kernels: functions on arrays that numba turns into machine code, without a compiler on the machine.

Modules of kernels import numba, which takes half a second, so they are imported in the functions that call them. A
kernel is compiled when it is first called with arrays of its kinds, which takes seconds, and the code is kept beside
its module, or in the user's cache folder (``NUMBA_CACHE_DIR`` names another) where that cannot be written.

Kernels do not reorder or contract the sums of floats, so their bits are those of the same code in Python.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numba import njit


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
    # Numba keeps the code until the function's own module changes, but those that it calls are part of the code.
    names = function.__code__.co_names
    called: list[Any] = [function.__globals__.get(name) for name in names]
    stamps = [one._cache._cache_file._source_stamp for one in called if is_kept(one)]
    made._cache._cache_file._source_stamp = (made._cache._cache_file._source_stamp, *stamps)
    return made


def is_kept(made: Any) -> bool:
    """Return whether the code of a compiled function is kept for other processes."""
    return hasattr(getattr(made, "_cache", None), "_cache_file")
