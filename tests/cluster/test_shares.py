"""CPUs and GPUs are shared by all executions, the most urgent first, and never allocated twice."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from gristmill.cluster.pools import Capacity
from gristmill.cluster.shares import Halted, Shares, Tenant
from gristmill.shards.stage import Resources

ONE, TWO, GPU = (1.0, 0.0), (2.0, 0.0), (1.0, 1.0)


def shares(cpus: float, gpus: float = 0.0, make_way: Callable[[float, float], object] = max) -> Shares:
    made = Shares(make_way)
    made.resize(Capacity(cpus, gpus))
    return made


class Waiting:
    """A thread in which a tenant takes what it needs."""

    def __init__(self, tenant: Tenant, need: tuple[float, float]) -> None:
        self.got: bool | None = None
        self.thread = threading.Thread(target=self._take, args=(tenant, need), daemon=True)
        with tenant.shares._changed:
            self.thread.start()
            while not any(key is not tenant and urgency == tenant.urgency for key, (urgency, _) in self._wants(tenant)):
                tenant.shares._changed.wait(0.01)

    @staticmethod
    def _wants(tenant: Tenant):
        return list(tenant.shares._wants.items())

    def _take(self, tenant: Tenant, need: tuple[float, float]) -> None:
        self.got = tenant.take(need)

    def ended(self) -> bool | None:
        self.thread.join(10)
        return self.got


def test_no_more_is_allocated_than_there_is() -> None:
    with shares(2.0, 1.0).tenant() as tenant:
        assert tenant.take(ONE, timeout=0)
        assert not tenant.take(TWO, timeout=0)
        assert tenant.take(ONE, timeout=0)
        assert not tenant.take(ONE, timeout=0)
        assert tenant.take((0.0, 0.5), timeout=0)
        assert not tenant.take((0.0, 1.0), timeout=0)
        tenant.give(ONE)
        assert tenant.take(ONE, timeout=0)


def test_a_job_with_more_cpus_than_the_cluster_gets_all() -> None:
    all_of = shares(2.0)
    assert all_of.need(Resources(cpus=8.0)) == (2.0, 0.0)
    assert all_of.need(Resources(cpus=1.0), 8) == (2.0, 0.0)
    assert all_of.need(Resources(cpus=0.0, gpus=0.5), 2) == (0.0, 1.0)


def test_who_leaves_gives_all_back() -> None:
    all_of = shares(2.0)
    with all_of.tenant() as tenant:
        assert tenant.take(TWO)
    assert all_of.free == (2.0, 0.0)


def test_the_more_urgent_is_served_first() -> None:
    all_of = shares(1.0)
    with all_of.tenant((1,)) as first, all_of.tenant((2,)) as low, all_of.tenant((3,)) as high:
        assert first.take(ONE)
        later, sooner = Waiting(low, ONE), Waiting(high, ONE)
        first.give(ONE)
        assert sooner.ended()
        assert later.got is None
        high.give(ONE)
        assert later.ended()


def test_what_waits_for_more_than_can_be_yielded_holds_nobody_up() -> None:
    """A training waits for a GPU that is held for hours; meanwhile the free CPUs are for others."""
    all_of = shares(2.0, 1.0)
    with all_of.tenant((3,)) as holds, all_of.tenant((2,)) as training, all_of.tenant((1,), yields=True) as step:
        assert holds.take(GPU)
        waits = Waiting(training, GPU)
        assert step.take(ONE, timeout=0)
        assert not step.is_due(), "its CPU would not help"
        holds.give(GPU)
        assert waits.ended()


def test_who_yields_gives_up_a_share_for_the_more_urgent() -> None:
    all_of = shares(2.0)
    with all_of.tenant((1,), yields=True) as step, all_of.tenant((2,)) as training:
        assert step.take(ONE)
        assert step.take(ONE)
        assert not step.is_due()
        waits = Waiting(training, ONE)
        assert step.is_due()
        step.give(ONE)
        assert waits.ended()
        assert not step.is_due()
        assert not step.take(ONE, timeout=0)
        training.give(ONE)
        assert step.take(ONE, timeout=0), "what the more urgent one gave back"


def test_a_want_of_more_counts_until_it_is_content() -> None:
    all_of = shares(2.0)
    with all_of.tenant((1,), yields=True) as low, all_of.tenant((2,), yields=True) as high:
        assert low.take(ONE)
        assert high.take(ONE)
        assert not high.take(ONE, timeout=0)
        assert low.is_due()
        high.content()
        assert not low.is_due()


def test_idle_workers_make_way_for_what_is_taken() -> None:
    left: list[tuple[float, float]] = []
    with shares(3.0, 1.0, lambda cpus, gpus: left.append((cpus, gpus))).tenant() as tenant:
        assert tenant.take(GPU)
        assert tenant.take(ONE, trims=False)
    assert left == [(2.0, 0.0)]


def test_nothing_is_allocated_after_a_stop() -> None:
    all_of, ended = shares(1.0), []
    with all_of.tenant() as tenant, all_of.tenant() as other:
        tenant.on_stop(lambda: ended.append(True))
        assert other.take(ONE)
        waits = Waiting(tenant, ONE)
        tenant.stop()
        assert waits.ended() is False
        other.give(ONE)
        assert not tenant.take(ONE, timeout=0)
        tenant.stop()
        tenant.on_stop(lambda: ended.append(False))
        assert ended == [True, False], "once, or at once if it was before"
        assert other.take(ONE, timeout=0), "others go on"


def test_a_halt_stops_all_until_it_is_over() -> None:
    all_of = shares(1.0)
    with all_of.tenant() as tenant:
        all_of.halt()
        assert tenant.stopped
        with pytest.raises(Halted):
            all_of.check()
    all_of.reopen()
    with all_of.tenant() as tenant:
        assert tenant.take(ONE, timeout=0)
