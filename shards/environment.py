"""Settings of a machine, from its environment: no result depends on them."""

from __future__ import annotations

import os

from gristmill.shards.errors import UserError


def seconds(name: str, default: float, *, none: bool = False) -> float:
    """Return the seconds that an environment variable sets, above 0 or, with ``none``, from 0 on.

    Raises:
        UserError: it holds something else.
    """
    given = os.environ.get(name)
    try:
        value = float(given) if given else default
    except ValueError:
        value = -1.0
    if value > 0 or (none and value == 0):
        return value
    raise UserError(f"{name}={given!r}: expected a number of seconds{', 0 or more' if none else ' above 0'}")
