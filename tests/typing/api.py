"""The public API as a typed program uses it; checked by mypy, never run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from archiver import ChatMessage, Session, SessionManager, UserInteraction, generate_session_id, get_session_manager
from archiver.aio import AsyncSessionManager


def live() -> None:
    with SessionManager(Path("x"), max_sessions=10, session_max_age_hours=0.5, durability="power") as manager:
        session: Session = manager.get_or_create(generate_session_id(), user_id="u")
        found: Session | None = manager.get_session("s", restore=True)
        manager.add_message("s", "user", "hi", language="en", client_id="m-1", durability="interval")
        manager.record_interaction("s", "prune", node_id="n", metadata={"over": "a"}, actor="human:u", level="step")
        manager.add_feedback("s", "n", "correct", context="", annotator="ann")
        page: list[ChatMessage] = manager.messages("s", after=3, last=10)
        acts: list[UserInteraction] = session.interactions
        listed: list[dict[str, Any]] = manager.list_sessions(limit=5, user_id="u")
        del found, page, acts, listed
    shared: SessionManager = get_session_manager()
    shared.close()


async def asynchronous() -> None:
    async with AsyncSessionManager(SessionManager(Path("x"))) as manager:
        await manager.add_message("s", "user", "hi")
        session: Session | None = await manager.get_session("s")
        del session
