"""Classes and functions by name, ``module:name``: how plans, workers and configs refer to code."""

from __future__ import annotations

import importlib
from typing import Any

from gristmill.shards.errors import UserError


def name_of(thing: Any) -> str:
    """Return the name by which :func:`named` finds a class or function.

    Example:
        >>> from gristmill.shards.canonical import digest
        >>> name_of(digest)
        'gristmill.shards.canonical:digest'
    """
    return f"{thing.__module__}:{thing.__qualname__}"


def named(name: str) -> Any:
    """Return the class or function of a name such as ``lab.filters:TooShort``.

    Raises:
        UserError: there is no such module, or nothing of that name in it.
    """
    module, colon, inner = name.partition(":")
    if not colon or not module or not inner:
        raise UserError(f"{name!r} names no class or function; expected module:name, such as lab.filters:TooShort")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise  # the module is there and lacks something itself
        raise UserError(f"{name}: there is no module {error.name!r} here; expected module:name") from None
    for part in inner.split("."):
        if not hasattr(found, part):
            raise UserError(f"{name}: {module} has no {inner}; expected the name of a class or function in it")
        found = getattr(found, part)
    return found
