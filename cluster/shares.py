"""The CPUs and GPUs of a cluster, shared by all that a run does side by side.

Ray alone starts whatever asks first, and each execution plans with the whole cluster. So whoever is to start workers
takes their CPUs and GPUs here. Who is more urgent is served first, and those that hold theirs only until the next
shard ends, give it up for them.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

from gristmill.cluster.pools import Capacity
from gristmill.shards.errors import GristmillError
from gristmill.shards.stage import Resources

Urgency = tuple[float, ...]  # the greater, the more urgent
SLACK = 1e-6  # rounding error of summed fractions of a CPU or GPU
_Need = tuple[float, float]  # CPUs and GPUs


class Halted(GristmillError):
    """The work was halted, because of an error in work beside it or an interruption, which is told instead."""


class Shares:
    """Allocates the CPUs and GPUs of a cluster to tenants; what needs more CPUs than there are gets all of them.

    Thread-safe. ``make_way`` is called after something was taken, with the CPUs and GPUs that are left: idle workers
    that hold more must end.
    """

    def __init__(self, make_way: Callable[[float, float], object] = lambda cpus, gpus: None) -> None:
        self.capacity = Capacity(0.0, 0.0)
        self.halted = self.halts_now = False
        self._cpus = self._gpus = 0.0  # free
        self._changed = threading.Condition(threading.RLock())
        self._make_way = make_way
        self._tenants: list[Tenant] = []
        self._wants: dict[object, tuple[Urgency, _Need]] = {}

    def resize(self, capacity: Capacity) -> None:
        """Take the capacity that the cluster has now."""
        with self._changed:
            self._cpus += capacity.cpus - self.capacity.cpus
            self._gpus += capacity.gpus - self.capacity.gpus
            self.capacity = capacity
            self._changed.notify_all()

    @contextlib.contextmanager
    def tenant(self, urgency: Urgency = (), *, yields: bool = False) -> Iterator[Tenant]:
        """Enter as a tenant, who leaves with nothing taken; with ``yields``, one who looks whether others are more
        urgent whenever a shard ends."""
        tenant = Tenant(self, urgency, yields)
        with self._changed:
            self._tenants.append(tenant)
        try:
            yield tenant
        finally:
            with self._changed:
                self._tenants.remove(tenant)
                self._wants.pop(tenant, None)
                self._cpus += tenant.held[0]
                self._gpus += tenant.held[1]
                self._changed.notify_all()

    def halt(self, *, now: bool = False) -> None:
        """Allocate nothing any more, and stop all tenants, until :meth:`reopen`: trainings that run go on to their end,
        unless they are to stop ``now``."""
        with self._changed:
            self.halted, self.halts_now = True, now
            tenants = list(self._tenants)
            self._changed.notify_all()
        for tenant in tenants:
            tenant.stop()

    def reopen(self) -> None:
        """End the halt."""
        with self._changed:
            self.halted = self.halts_now = False

    @property
    def free(self) -> _Need:
        """The CPUs and GPUs that nobody has taken."""
        with self._changed:
            return self._cpus, self._gpus

    def check(self) -> None:
        """Raise :class:`Halted` during a halt."""
        if self.halted:
            raise Halted("halted")

    def _take(self, tenant: Tenant, need: _Need, timeout: float | None, trims: bool) -> bool:
        key: object = tenant if timeout == 0 else object()
        with self._changed:
            self._wants[key] = tenant.urgency, need
            there = self._changed.wait_for(lambda: tenant.stopped or self._may(tenant, need), timeout)
            if not there or tenant.stopped:
                if timeout != 0 or tenant.stopped:
                    self._wants.pop(key, None)
                return False
            del self._wants[key]
            self._give(tenant, (-need[0], -need[1]))
        if trims:
            self._make_way(*self.free)
        return True

    def _give(self, tenant: Tenant, given: _Need) -> None:
        with self._changed:
            tenant.held = tenant.held[0] - given[0], tenant.held[1] - given[1]
            self._cpus += given[0]
            self._gpus += given[1]
            self._changed.notify_all()

    def _may(self, tenant: Tenant, need: _Need) -> bool:
        """Return whether a tenant may take what it needs: what others may get who are more urgent is theirs."""
        kept = [other for urgency, other in self._before(tenant) if self._is_attainable(urgency, other)]
        cpus, gpus = (sum(other[kind] for other in kept) for kind in (0, 1))
        return self._fits((need[0] + cpus if need[0] else 0.0, need[1] + gpus if need[1] else 0.0))

    def _is_due(self, tenant: Tenant) -> bool:
        with self._changed:
            before = self._before(tenant)
            return any(not self._fits(need) and self._is_attainable(urgency, need) for urgency, need in before)

    def _before(self, tenant: Tenant) -> list[tuple[Urgency, _Need]]:
        """Return what others want who are more urgent."""
        return [(urgency, need) for urgency, need in self._wants.values() if urgency > tenant.urgency]

    def _is_attainable(self, urgency: Urgency, need: _Need) -> bool:
        """Return whether enough is free as soon as those who are less urgent yield.

        For a GPU that is held for hours nobody has to wait with CPUs that are free.
        """
        yielding = sum(one.held[0] for one in self._tenants if one.yields and one.urgency < urgency)
        return need[0] <= self._cpus + yielding + SLACK and need[1] <= self._gpus + SLACK

    def _fits(self, need: _Need) -> bool:
        return need[0] <= self._cpus + SLACK and need[1] <= self._gpus + SLACK

    def need(self, resources: Resources, ranks: int = 1) -> _Need:
        """Return the CPUs and GPUs of so many ranks."""
        cpus = resources.cpus or (0.0 if resources.gpus else 1.0)
        return min(ranks * cpus, self.capacity.cpus), ranks * resources.gpus


class Tenant:
    """One execution that shares the cluster: of a step, or of trainings."""

    def __init__(self, shares: Shares, urgency: Urgency, yields: bool) -> None:
        self.shares, self.urgency, self.yields = shares, urgency, yields
        self.held: _Need = (0.0, 0.0)
        self._stopped = False
        self._on_stop: list[Callable[[], object]] = []

    @property
    def stopped(self) -> bool:
        """Whether no more work must start, because of an error in it or a halt."""
        return self._stopped or self.shares.halted

    def take(self, need: _Need, *, timeout: float | None = None, trims: bool = True) -> bool:
        """Wait until what is needed is free, and take it; returns whether it was taken. After a stop it is not.

        With a ``timeout`` of 0 the tenant does not wait, but wants it until it takes it or is :meth:`content`: those
        who are less urgent yield. Without ``trims`` the caller ends idle workers.
        """
        return self.shares._take(self, need, timeout, trims)

    def give(self, need: _Need) -> None:
        """Release some of what was taken."""
        self.shares._give(self, need)

    def content(self) -> None:
        """Want no more."""
        with self.shares._changed:
            if self.shares._wants.pop(self, None) is not None:
                self.shares._changed.notify_all()

    def is_due(self) -> bool:
        """Return whether others who are more urgent wait for what this one could yield."""
        return self.yields and self.shares._is_due(self)

    def stop(self) -> None:
        """Take nothing more, and call the functions of :meth:`on_stop`."""
        with self.shares._changed:
            self._stopped = True
            self.shares._changed.notify_all()
            calls, self._on_stop = self._on_stop, []
        for call in calls:
            call()

    def on_stop(self, call: Callable[[], object]) -> None:
        """Register a function to call at the stop, or now if that was before."""
        with self.shares._changed:
            if not self.stopped:
                self._on_stop.append(call)
                return
        call()
