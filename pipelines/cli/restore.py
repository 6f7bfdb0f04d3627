"""The command ``sessions restore``."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from archiver import restore
from archiver.errors import UnknownSessionError
from archiver.program import HotOption, StorageOption, now_us, plural
from archiver.sessions import SessionManager
from pipelines import catalog
from pipelines.cli.base import open_lake


def sessions_restore(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID")],
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Make an archived session live again in this hot store, its history with it."""
    program, settings, store = open_lake(context, hot, storage)
    with SessionManager.from_settings(settings) as manager:
        was_live = manager.get_session(session_id) is not None
        if not was_live:
            known_to_tables = partial(catalog.locate, store)
            restore.restore_session(manager.hot, store, session_id, now_us=now_us(), locate=known_to_tables)
        session = manager.get_session(session_id)
    if session is None:
        raise UnknownSessionError("no such session, live or archived", operation="restore", key=session_id)
    state = "live already" if was_live else "live again"
    program.console.line(f"{state}: {session_id}, {plural(len(session.chat_history), 'message')}")
    program.console.result({"session_id": session_id, "messages": len(session.chat_history)})
