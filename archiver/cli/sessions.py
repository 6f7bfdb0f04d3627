"""The command ``sessions list``, and how one session is printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import typer

from archiver.console import Console
from archiver.errors import UnknownSessionError
from archiver.events import SessionRecord
from archiver.program import HotOption, StorageOption, program_of, shown_time
from archiver.sessions import Session, SessionManager
from archiver.settings import Settings

T = TypeVar("T")


def sessions_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="how many, the most recent first")] = 20,
    user: Annotated[str | None, typer.Option(help="only this user's")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """List live sessions, the most recently active first."""
    program, settings = program_of(context, hot, storage)
    with SessionManager.from_settings(settings) as manager:
        found = manager.list_sessions(limit, user_id=user)
    rows = [(s["id"], s["title"], shown_time(s["timestamp"]), s["language"]) for s in found]
    if rows:
        program.console.table(("session", "title", "last activity", "language"), rows)
    else:
        program.console.line("no live sessions")
    program.console.result({"sessions": found})


def find_session(settings: Settings, session_id: str) -> Session:
    """The session, live or else archived, without restoring it; UnknownSessionError if there is none."""
    return _found(settings, session_id, SessionManager.peek)


def find_record(settings: Settings, session_id: str) -> SessionRecord:
    """The same with all that the archive keeps: revision, client ids, earlier states of the graph."""
    return _found(settings, session_id, SessionManager.peek_record)


def _found(settings: Settings, session_id: str, look: Callable[[SessionManager, str], T | None]) -> T:
    with SessionManager.from_settings(settings) as manager:
        found = look(manager, session_id)
    if found is None:
        raise UnknownSessionError(
            "no such session, live or archived", operation="show", key=session_id,
            hint="sessionlake sessions list names live ones; another --hot or --storage may hold it",
        )  # fmt: skip
    return found


def print_session(console: Console, session: Session) -> None:
    """Print its conversation, then what was done to its graph."""
    console.line(session.get_title(80), style="bold")
    created, updated = shown_time(session.created_at), shown_time(session.updated_at)
    console.line(f"{session.session_id}, created {created}, updated {updated}")
    for message in session.chat_history:
        console.line()
        console.line(f"{message.role}:", style="bold")
        console.line(message.content or "")
    rows = [(shown_time(i.timestamp), i.action_type, i.node_id, i.feedback, i.content) for i in session.interactions]
    if rows:
        console.line()
        console.table(("when", "action", "node", "verdict", "text"), rows)
    console.result(session.to_dict())
