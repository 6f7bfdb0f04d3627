"""The command ``sessions show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archiver.cli.sessions import find_record, find_session, print_session
from archiver.program import HotOption, StorageOption, program_of
from pipelines.report.session_page import session_page


def sessions_show(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page with the graph drawn instead")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Show one session, live or archived: its conversation and what was done to its graph."""
    program, settings = program_of(context, hot, storage)
    if html is None:
        print_session(program.console, find_session(settings, session_id))
    else:
        html.write_bytes(session_page(find_record(settings, session_id)))
        program.console.line(f"{html}: open it in a browser, it needs no network")
        program.console.result({"file": html})
