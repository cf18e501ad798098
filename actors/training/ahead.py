"""Batches made ahead of their use, in another thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar, cast

Item = TypeVar("Item")


def ahead(items: Iterator[Item], depth: int = 2) -> Generator[Item, None, None]:
    """Yield items in their order while a thread makes the next ``depth`` of them; with depth 0 there is no thread.

    An error while an item is made is raised where the item would have been yielded. Closing the iterator ends the
    thread.
    """
    if not depth:
        yield from items
        return
    end = object()
    pool = ThreadPoolExecutor(1, thread_name_prefix="ahead")
    try:
        waiting = deque(pool.submit(next, items, end) for _ in range(depth))
        while (item := waiting.popleft().result()) is not end:
            waiting.append(pool.submit(next, items, end))
            yield cast("Item", item)
    finally:
        pool.shutdown(cancel_futures=True)
