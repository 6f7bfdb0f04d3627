"""AsyncSessionManager: the same manager for asyncio programs, every call in a thread of a small pool.

There is no second implementation: a call runs to its end in its thread even if the task that waits
for it is cancelled, so that a write happens wholly or not at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

from archiver.sessions import SessionManager

_P = ParamSpec("_P")
_T = TypeVar("_T")


class AsyncSessionManager:
    """Awaitable calls of a :class:`SessionManager`: ``await sessions.add_message(…)``.

    Every public method of the manager is here under its name, with its arguments, as a coroutine.
    Session objects are shared as in a threaded program: change them in the event loop, then await
    ``save_session``.

    Args:
        manager: The manager to call; closed with this object.
        threads: Calls under way at once. Appends of many threads share one commit and one fdatasync.
    """

    def __init__(self, manager: SessionManager, *, threads: int = 16) -> None:
        self.manager = manager
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="sessionlake")
        self.get_session = self._awaitable(manager.get_session)
        self.create_session = self._awaitable(manager.create_session)
        self.get_or_create = self._awaitable(manager.get_or_create)
        self.messages = self._awaitable(manager.messages)
        self.peek = self._awaitable(manager.peek)
        self.peek_record = self._awaitable(manager.peek_record)
        self.save_session = self._awaitable(manager.save_session)
        self.add_message = self._awaitable(manager.add_message)
        self.record_interaction = self._awaitable(manager.record_interaction)
        self.add_feedback = self._awaitable(manager.add_feedback)
        self.update_graph_state = self._awaitable(manager.update_graph_state)
        self.update_language = self._awaitable(manager.update_language)
        self.update_metadata = self._awaitable(manager.update_metadata)
        self.delete_session = self._awaitable(manager.delete_session)
        self.cleanup_stale_sessions = self._awaitable(manager.cleanup_stale_sessions)
        self.list_sessions = self._awaitable(manager.list_sessions)
        self.export_all_rlhf_data = self._awaitable(manager.export_all_rlhf_data)
        self.get_stats = self._awaitable(manager.get_stats)
        self.flush = self._awaitable(manager.flush)

    @classmethod
    async def open(cls, *args: Any, threads: int = 16, **options: Any) -> Self:
        """Open a manager with these arguments without blocking the event loop."""
        manager = await asyncio.to_thread(SessionManager, *args, **options)
        return cls(manager, threads=threads)

    async def iter_rlhf_data(self) -> AsyncIterator[dict[str, Any]]:
        """Unexpired live sessions in the original's export form, one in memory at a time."""
        records = self.manager.iter_rlhf_data()
        advance = self._awaitable(partial(next, records, None))
        while (record := await advance()) is not None:
            yield record

    async def close(self) -> None:
        """Let calls under way end, then sync and close the store."""
        await asyncio.to_thread(self._pool.shutdown)
        await asyncio.to_thread(self.manager.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _awaitable(self, call: Callable[_P, _T]) -> Callable[_P, Coroutine[Any, Any, _T]]:
        async def awaitable(*args: _P.args, **options: _P.kwargs) -> _T:
            return await asyncio.get_running_loop().run_in_executor(self._pool, partial(call, *args, **options))

        return awaitable
