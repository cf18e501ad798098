"""The driver of :mod:`tests.fault.driver`, which at its point is not killed but stands still until it is woken."""

from __future__ import annotations

import functools
import os
import signal
import sys

from tests.fault import driver


@functools.cache  # once: it goes on behind the point
def stand_still() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


if __name__ == "__main__":
    driver.die = stand_still
    driver.main(*sys.argv[1:])
