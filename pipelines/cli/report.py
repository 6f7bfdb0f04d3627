"""The command ``report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archiver.program import HotOption, StorageOption, human_bytes, now_us
from pipelines.cli.base import VersionOption, open_lake
from pipelines.report.page import report


def report_(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="FILE", help="where to write the page")] = Path("report.html"),
    version: VersionOption = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Write one self-contained HTML page: sessions, verdicts, prunes, and what became of them."""
    program, settings, store = open_lake(context, hot, storage)
    page = report(store, settings, version=version, now_us=now_us())
    out.write_bytes(page)
    program.console.line(f"{out} ({human_bytes(len(page))}): open it in a browser, it needs no network")
    program.console.result({"file": out, "bytes": len(page)})
