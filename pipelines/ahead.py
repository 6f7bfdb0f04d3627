"""Calls that wait for a store, made ahead of whoever uses their results."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Final, TypeVar

MOST: Final = 4
"""Enough to hide the way to a store; each may hold a file in memory."""

ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


def ahead(function: Callable[[ItemT], ResultT], items: Iterable[ItemT], *, most: int = MOST) -> Iterator[ResultT]:
    """``function`` of every item, in order; threads are at most ``most`` items ahead of the one the caller works on.

    The first exception is raised in its turn. Whoever stops before the end waits for what is under way, no more.
    """
    with ThreadPoolExecutor(most) as pool:
        under_way: deque[Future[ResultT]] = deque()
        for item in items:
            under_way.append(pool.submit(function, item))
            if len(under_way) > most:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
