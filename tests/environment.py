"""The environment of processes that tests start."""

from __future__ import annotations

import os


def without_ray() -> dict[str, str]:
    """Return this process's environment without what it or its user set of Ray.

    Ray's workers give way to all else on the machine unless told otherwise: here to the tests of other processes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_worker_niceness": "0"}
