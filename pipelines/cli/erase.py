"""The command ``erase``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from archiver import archive, erasure, service
from archiver.hot import HotStore
from archiver.program import ExitCode, HotOption, Program, StorageOption, now_us, plural
from pipelines import exports, maintenance
from pipelines.cli.base import open_lake


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
            if plan.live_sessions or plan.segments:
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
