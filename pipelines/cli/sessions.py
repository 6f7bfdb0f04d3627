"""Commands on single sessions and users, through archive, tables and exports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from archiver import archive, erasure, restore, service
from archiver.cli import find_session, print_session, sessions_app
from archiver.errors import UnknownSessionError
from archiver.hot import HotStore
from archiver.legacy import parse_record
from archiver.program import ExitCode, HotOption, Program, StorageOption, now_us, plural
from archiver.sessions import SessionManager
from pipelines import catalog, exports, maintenance
from pipelines.cli.base import app, open_lake
from pipelines.report.session_page import session_page


@app.command("erase")
def erase_(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(metavar="ID", help="everything of this user")] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="every conversation under this session id")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, touch nothing")] = False,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Erase a user or a session everywhere: live rows, segments with all object versions, tables, exports."""
    program, settings, store = open_lake(context, hot, storage)
    with HotStore.from_settings(settings.hot) as opened:
        plan = erasure.plan_erasure(opened, store, user_id=user, session_id=session, now_us=now_us())
        if dry_run:
            _show_erasure(program, "would go", plan.live_sessions, plan.segments, {}, ())
            program.console.line("and every row in the tables and every export that comes from these sessions")
            program.console.result({**asdict(plan), "dry_run": True})
            return
        receipt = erasure.erase(
            opened, store, plan, push=lambda: service.sweep(opened, store, settings, now_us=now_us())
        )
    in_tables = maintenance.covered_uids(store)
    tables = maintenance.erase(store, settings, now_us=now_us())
    exported = exports.erase(store, archive.tombstones(store), also=in_tables)
    _show_erasure(program, "gone", receipt.live_sessions, receipt.segments, tables.rows_removed, exported)
    for archiver_id in receipt.pending_archivers:
        program.console.problem(f"archiver {archiver_id} has not acknowledged yet: its next sweep will")
    program.console.result(
        {**asdict(receipt), "tables": asdict(tables), "exports": exported, "complete": receipt.complete}
    )
    raise typer.Exit(ExitCode.DONE if receipt.complete else ExitCode.PARTLY)


def _show_erasure(
    program: Program,
    verb: str,
    live: int,
    segments: Mapping[str, int],
    rows: Mapping[str, int],
    exported: Sequence[str],
) -> None:
    what = [("live store", plural(live, "session"))]
    what += [(key, plural(n, "session")) for key, n in segments.items()]
    what += [(f"table {name}", plural(n, "row")) for name, n in rows.items() if n]
    what += [(key, "the whole export, it held the sessions") for key in exported]
    if live or segments or rows or exported:
        program.console.table(("where", verb), what)
    else:
        program.console.line("nothing of it is here")


@sessions_app.command("show")
def sessions_show(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page with the graph drawn instead")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Show one session, live or archived: its conversation and what was done to its graph."""
    program: Program = context.obj
    session = find_session(program.settings({"hot.path": hot, "storage.url": storage}), session_id)
    if html is None:
        print_session(program.console, session)
    else:
        html.write_bytes(session_page(parse_record(session.to_dict())))
        program.console.line(f"{html}: open it in a browser, it needs no network")
        program.console.result({"file": html})


@sessions_app.command("restore")
def sessions_restore(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID")],
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Make an archived session live again in this hot store, its history with it."""
    program, settings, store = open_lake(context, hot, storage)
    with SessionManager.from_settings(settings) as manager:
        if manager.get_session(session_id) is None:
            known_to_tables = partial(catalog.locate, store)
            restore.restore_session(manager.hot, store, session_id, now_us=now_us(), locate=known_to_tables)
        session = manager.get_session(session_id)
    if session is None:
        raise UnknownSessionError("no such session, live or archived", operation="restore", key=session_id)
    program.console.line(f"live again: {session_id}, {len(session.chat_history)} messages")
    program.console.result({"session_id": session_id, "messages": len(session.chat_history)})
