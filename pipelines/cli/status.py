"""The command ``status``."""

from __future__ import annotations

import typer

from archiver.cli.status import print_status
from archiver.program import HotOption, StorageOption, human_bytes
from pipelines import lake
from pipelines.cli.base import open_lake


def status(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Show what is live, what waits for the archive, what the tables hold, and what is wrong."""
    program, settings, store = open_lake(context, hot, storage)
    values = print_status(program, settings)
    tables = lake.statistics(store) if lake.exists(store) else []
    program.console.line()
    rows = [(t.table, t.version, t.rows, t.files, human_bytes(t.size_bytes)) for t in tables]
    if rows:
        program.console.table(("table", "version", "rows", "files", "size"), rows)
    else:
        program.console.line("no tables yet: sessionlake compact makes them from the archive")
    program.console.result({**values, "tables": tables})
