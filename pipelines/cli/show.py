"""The command ``sessions show``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archiver.cli.sessions import find_session, print_session
from archiver.legacy import parse_record
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
    session = find_session(settings, session_id)
    if html is None:
        print_session(program.console, session)
    else:
        html.write_bytes(session_page(parse_record(session.to_dict())))
        program.console.line(f"{html}: open it in a browser, it needs no network")
        program.console.result({"file": html})
