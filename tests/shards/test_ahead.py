"""Reading ahead: in order, not without end, and with errors at their place."""

from __future__ import annotations

import threading

import pytest

from gristmill.shards.ahead import AT_ONCE, read_ahead


def test_results_come_in_order_and_errors_at_their_place() -> None:
    def read(number: int) -> int:
        if number == 70:
            raise ValueError("the seventieth")
        return number * number

    results = read_ahead(read, range(100))
    assert [next(results) for _ in range(70)] == [n * n for n in range(70)]
    with pytest.raises(ValueError, match="the seventieth"):
        next(results)


def test_no_more_is_read_than_is_soon_wanted() -> None:
    begun = []
    lock = threading.Lock()

    def read(number: int) -> int:
        with lock:
            begun.append(number)
        return number

    results = read_ahead(read, range(10_000))
    assert next(results) == 0
    assert len(begun) <= 4 * AT_ONCE + 1
    results.close()
    assert len(begun) <= 4 * AT_ONCE + 1
