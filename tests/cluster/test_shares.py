"""CPUs and GPUs are shared by fits and trainings, and never allocated twice."""

from __future__ import annotations

import threading

from gristmill.cluster.pools import Capacity
from gristmill.cluster.shares import Shares
from gristmill.shards.stage import Resources

ONE, TWO = Resources(), Resources(cpus=2.0)


def test_no_more_is_allocated_than_there_is() -> None:
    shares = Shares(Capacity(2.0, 1.0))
    assert shares.take(ONE, timeout=0)
    assert not shares.take(TWO, timeout=0)
    assert shares.take(ONE, timeout=0)
    assert not shares.take(ONE, timeout=0)
    assert shares.take(Resources(cpus=0.0, gpus=0.5), timeout=0)
    assert not shares.take(Resources(cpus=0.0, gpus=1.0), timeout=0)
    shares.give(ONE)
    assert not shares.take(ONE, 2, timeout=0)
    shares.give(ONE)
    assert shares.take(ONE, 2, timeout=0)


def test_a_job_with_more_cpus_than_the_cluster_gets_all() -> None:
    shares = Shares(Capacity(2.0, 0.0))
    assert shares.take(Resources(cpus=8.0), timeout=0)
    assert not shares.take(Resources(cpus=0.1), timeout=0)
    shares.give(Resources(cpus=8.0))
    assert shares.take(TWO, timeout=0)


def test_waiting_callers_take_precedence() -> None:
    shares, taken = Shares(Capacity(2.0, 0.0)), threading.Event()
    assert shares.take(ONE)

    def wait() -> None:
        assert shares.take(TWO)
        taken.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    assert shares.take(ONE, timeout=0), "what is too little for the one that waits is free for others"
    shares.give(ONE)
    shares.give(ONE)
    assert taken.wait(10)
    waiting.join()
    assert not shares.take(ONE, timeout=0)


def test_nothing_is_allocated_after_a_stop() -> None:
    shares, ended = Shares(Capacity(1.0, 0.0)), []
    shares.on_stop(lambda: ended.append(True))
    assert shares.take(ONE)
    found: list[bool] = []
    waiting = threading.Thread(target=lambda: found.append(shares.take(ONE)))
    waiting.start()
    shares.stop()
    waiting.join()
    shares.give(ONE)
    assert found == [False]
    assert not shares.take(ONE, timeout=0)
    shares.stop()
    assert ended == [True]
