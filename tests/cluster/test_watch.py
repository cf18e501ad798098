"""When an execution on Ray is given up, with a clock that the test sets."""

from __future__ import annotations

import pytest

pytest.importorskip("ray")

from gristmill.cluster import watch
from gristmill.shards.errors import UserError
from gristmill.shards.receipt import Receipt, StoredFile


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class Cluster:
    """Nodes as they are seen, without looking."""

    lost = 0
    silent: frozenset[str] = frozenset()


def receipt(seconds: float) -> Receipt:
    return Receipt("s", StoredFile("", "", 0, 0, ""), None, None, 1, 1, 0, 0, attempt={"seconds": {"stage": seconds}})


def given_up_after(watched: watch.Watch, clock: Clock, nodes: Cluster) -> float:
    """Return the seconds without a shard after which an execution that begins now is given up."""
    watched.begin()
    begun = clock.now
    while True:
        clock.now += 1.0
        try:
            watched.check(nodes)
        except watch.Stalled:
            return clock.now - begun - 1.0


def test_patience_follows_the_pace_of_the_shards() -> None:
    clock, nodes = Clock(), Cluster()
    watched = watch.Watch(clock)
    assert given_up_after(watched, clock, nodes) == 3600  # models may be loaded
    for _ in range(watch.KNOWN):
        watched.heard(receipt(1.0))
    assert given_up_after(watched, clock, nodes) == 60
    for _ in range(9):
        watched.heard(receipt(30.0))
    assert given_up_after(watched, clock, nodes) == 300


def test_a_lost_node_makes_it_short() -> None:
    clock, nodes = Clock(), Cluster()
    nodes.lost = 1
    watched = watch.Watch(clock)
    for _ in range(watch.KNOWN):
        watched.heard(receipt(1.0))
    assert given_up_after(watched, clock, nodes) == 20
    slow = watch.Watch(clock)
    slow.heard(receipt(300.0))
    assert given_up_after(slow, clock, nodes) == 600  # Ray makes again by itself what was lost, as a rule


def test_the_next_execution_stays_away_from_silent_nodes() -> None:
    clock, nodes = Clock(), Cluster()
    nodes.lost, nodes.silent = 1, frozenset({"n1"})
    watched = watch.Watch(clock)
    clock.now = 1e6
    with pytest.raises(watch.Stalled) as stall:
        watched.check(nodes)
    assert stall.value.nodes == {"n1"}


def test_each_time_in_vain_doubles_it() -> None:
    clock, nodes = Clock(), Cluster()
    watched = watch.Watch(clock)
    for _ in range(watch.KNOWN):
        watched.heard(receipt(1.0))
    assert [given_up_after(watched, clock, nodes) for _ in range(3)] == [60, 120, 240]
    watched.heard(receipt(1.0))
    assert given_up_after(watched, clock, nodes) == 60


def test_the_setting_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(watch.SETTING, "soon")
    with pytest.raises(UserError, match="expected a number of seconds above 0"):
        watch.Watch()
