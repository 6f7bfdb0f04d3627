"""Calls that wait for a store, made ahead of whoever uses their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

MOST: Final = 4
"""Calls under way at a time: enough to hide the way to a store, and each may hold a file in memory."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def ahead(function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, most: int = MOST) -> Iterator[ResultT]:
    """``function`` of every item, in order, by ``most`` threads, which are at most so many items ahead of the caller.

    The first exception is raised in its turn. Whoever stops before the end waits for what is under way, no more.
    """
    with ThreadPoolExecutor(most) as pool:
        under_way: deque[Future[ResultT]] = deque()
        try:
            for item in items:
                if len(under_way) == most:
                    yield under_way.popleft().result()
                under_way.append(pool.submit(function, item))
            while under_way:
                yield under_way.popleft().result()
        finally:
            for future in under_way:
                future.cancel()
