"""The async edge: the same manager, no second implementation, and cancellation that leaves no half write."""

from __future__ import annotations

import asyncio
import inspect
import threading
from pathlib import Path

import pytest
from live_sessions import texts

from archiver import SessionManager
from archiver.aio import AsyncSessionManager
from archiver.errors import UnknownSessionError

NOT_CALLS = {"close", "from_settings", "iter_rlhf_data"}


def test_every_public_call_of_the_manager_is_awaitable(tmp_path: Path) -> None:
    async def main() -> None:
        async with AsyncSessionManager(SessionManager(tmp_path / "s")) as sessions:
            calls = {n for n, _ in inspect.getmembers(SessionManager, inspect.isfunction) if not n.startswith("_")}
            for name in calls - NOT_CALLS:
                assert inspect.iscoroutinefunction(getattr(sessions, name)), name

    asyncio.run(main())


def test_many_tasks_append_to_one_session_and_nothing_is_lost(tmp_path: Path) -> None:
    async def main() -> None:
        async with await AsyncSessionManager.open(tmp_path / "s", threads=8) as sessions:
            session = await sessions.create_session("s", user_id="u")
            await asyncio.gather(*(sessions.add_message("s", "user", f"m{i}", durability="power") for i in range(64)))
            session.add_message("assistant", "from the loop")
            await sessions.save_session("s")
            assert sorted(texts(session)) == sorted([f"m{i}" for i in range(64)] + ["from the loop"])
            assert [r["session_id"] async for r in sessions.iter_rlhf_data()] == ["s"]
            with pytest.raises(UnknownSessionError):
                await sessions.add_feedback("nobody", "n", "correct")

    asyncio.run(main())


def test_a_cancelled_call_is_written_wholly_or_not_at_all(tmp_path: Path) -> None:
    async def main() -> None:
        async with await AsyncSessionManager.open(tmp_path / "s", threads=4) as sessions:
            session = await sessions.create_session("s")
            held, release = threading.Event(), threading.Event()

            def hold() -> None:
                with sessions.manager.hot.transaction():
                    held.set()
                    release.wait(10)

            holder = asyncio.create_task(asyncio.to_thread(hold))
            await asyncio.to_thread(held.wait, 10)
            session.add_message("user", "one")
            session.add_message("assistant", "two")
            session.metadata["k"] = 1
            save = asyncio.create_task(sessions.save_session("s"))
            await asyncio.sleep(0.05)
            save.cancel()
            with pytest.raises(asyncio.CancelledError):
                await save
            release.set()
            await holder
            await sessions.flush()
            stored = await sessions.peek("s")
            assert stored is not None
            assert (texts(stored), stored.metadata) in (([], {}), (["one", "two"], {"k": 1}))
            await sessions.save_session("s")
            stored = await sessions.peek("s")
            assert texts(stored) == ["one", "two"]

    asyncio.run(main())
