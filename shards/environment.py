"""Settings of a machine, from environment variables: no result depends on them."""

from __future__ import annotations

import os

from gristmill.shards.errors import UserError


def seconds(name: str, default: float, *, none: bool = False) -> float:
    """Return the seconds given by an environment variable: above 0, or with ``none`` 0 or more.

    Raises:
        UserError: the variable holds anything else.
    """
    given = os.environ.get(name)
    try:
        value = float(given) if given else default
    except ValueError:
        value = -1.0
    if value > 0 or (none and value == 0):
        return value
    raise UserError(f"{name}={given!r}: expected a number of seconds{', 0 or more' if none else ' above 0'}")
