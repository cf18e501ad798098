"""The capacity of a cluster, shared by fits and groups of trainings that run in parallel."""

from __future__ import annotations

import threading
from collections.abc import Callable

from gristmill.cluster.pools import Capacity
from gristmill.shards.stage import Resources

_SLACK = 1e-6  # rounding error of summed fractions of a CPU or GPU


class Shares:
    """Allocates the CPUs and GPUs of a cluster; a job that needs more CPUs than the cluster has gets all of them.

    Thread-safe. After :meth:`stop` nothing is allocated any more.
    """

    def __init__(self, capacity: Capacity) -> None:
        self.capacity = capacity
        self._cpus, self._gpus = capacity.cpus, capacity.gpus
        self._changed = threading.Condition()
        self._waiting: list[tuple[float, float]] = []
        self._stopped = False
        self._on_stop: list[Callable[[], object]] = []

    @property
    def stopped(self) -> bool:
        """Whether an error occurred, so that no more work must start."""
        return self._stopped

    def take(self, resources: Resources, ranks: int = 1, *, timeout: float | None = None) -> bool:
        """Wait until the resources of so many ranks are free, and take them.

        Returns whether they were taken; they are not after the timeout, in seconds, or after a stop. Waiting callers
        take precedence over those that do not wait (``timeout`` 0).
        """
        need = self._need(resources, ranks)
        with self._changed:
            if timeout == 0 and any(map(self._is_free, self._waiting)):
                return False
            self._waiting.append(need)
            there = self._changed.wait_for(lambda: self._stopped or self._is_free(need), timeout)
            self._waiting.remove(need)
            if not there or self._stopped:
                return False
            self._cpus -= need[0]
            self._gpus -= need[1]
            return True

    def give(self, resources: Resources, ranks: int = 1) -> None:
        """Release resources."""
        cpus, gpus = self._need(resources, ranks)
        with self._changed:
            self._cpus += cpus
            self._gpus += gpus
            self._changed.notify_all()

    def stop(self) -> None:
        """Stop allocation, and call the functions of :meth:`on_stop`."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            calls, self._on_stop = self._on_stop, []
        for call in calls:
            call()

    def on_stop(self, call: Callable[[], object]) -> None:
        """Register a function to call at the stop."""
        with self._changed:
            self._on_stop.append(call)

    def wait(self, seconds: float) -> None:
        """Wait until resources are released, at most so many seconds."""
        with self._changed:
            self._changed.wait(seconds)

    def _is_free(self, need: tuple[float, float]) -> bool:
        return need[0] <= self._cpus + _SLACK and need[1] <= self._gpus + _SLACK

    def _need(self, resources: Resources, ranks: int) -> tuple[float, float]:
        cpus = resources.cpus or (0.0 if resources.gpus else 1.0)
        return min(ranks * cpus, self.capacity.cpus), ranks * resources.gpus
