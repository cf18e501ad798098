"""Batches are prefetched: in order, with their errors, and without leftover threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from gristmill.actors.training.ahead import ahead


def made(count: int, log: list[int], wrong: int | None = None) -> Iterator[int]:
    for i in range(count):
        if i == wrong:
            raise ValueError(f"item {i}")
        log.append(threading.get_ident())
        yield i


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")]


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_items_come_in_order_from_another_thread(count: int) -> None:
    log: list[int] = []
    assert list(ahead(made(count, log))) == list(range(count))
    assert threading.get_ident() not in log
    assert threads() == []


def test_two_items_are_made_while_one_is_used() -> None:
    ready = [threading.Event() for _ in range(4)]

    def items() -> Iterator[int]:
        for i, event in enumerate(ready):
            event.set()
            yield i

    with closing(ahead(items())) as found:
        assert next(found) == 0
        assert ready[1].wait(30)
        assert ready[2].wait(30)
        assert not ready[3].is_set()


def test_an_error_comes_after_what_was_made_before_it() -> None:
    found = ahead(made(5, [], wrong=3))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="item 3"):
        next(found)
    assert threads() == []


def test_who_stops_early_leaves_no_thread() -> None:
    log: list[int] = []
    with closing(ahead(made(1000, log))) as found:
        assert next(found) == 0
    assert threads() == []
    assert len(log) <= 3
