"""The line a sweep's segments pass: while one is built, the one before it is sent, and the one before that released."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Final, Self

from archiver.hot.segment import Segment
from archiver.pushing import Pusher

AHEAD: Final = 2
"""Segments that are sent or wait for their release while the next is built: what the spool holds beside it."""


class PushLine:
    """Pushes segments in the order they come, in two threads; the first failure stops all that follow.

    As a context manager it waits at the end for what is under way, and raises what went wrong there; if the
    block ended by another error, that one is raised and what went wrong is in ``failure``.
    """

    def __init__(self, pusher: Pusher, *, now_us: int) -> None:
        self._pusher = pusher
        self._now_us = now_us
        self._senders = ThreadPoolExecutor(1, thread_name_prefix="send")
        self._releasers = ThreadPoolExecutor(1, thread_name_prefix="release")
        self._proof: Future[bool] | None = None
        self._under_way: deque[Future[None]] = deque()
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._senders.shutdown()
        self._releasers.shutdown()
        if error is None:
            self._wait_until_left(0)
        else:
            failures = (future.exception() for future in self._under_way)
            self.failure = next((f for f in failures if f is not None and f is not error), None)

    def wait(self) -> None:
        """Until the next segment can be sent; raises what went wrong with an earlier one."""
        if self._proof is not None:
            self._proof.result()
        self._wait_until_left(AHEAD - 1)

    def add(self, segment: Segment) -> None:
        """Send a closed segment, and release it once it is proven. Wait first."""
        before = self._under_way[-1] if self._under_way else None
        self._proof = self._senders.submit(self._pusher.prove, segment, now_us=self._now_us)
        self._under_way.append(self._releasers.submit(self._release, segment, self._proof, before))

    def _release(self, segment: Segment, proof: Future[bool], before: Future[None] | None) -> None:
        if before is not None:
            before.result()
        if proof.result():
            self._pusher.release(segment, now_us=self._now_us)

    def _wait_until_left(self, count: int) -> None:
        while len(self._under_way) > count:
            self._under_way.popleft().result()
