"""The command ``maintain``."""

from __future__ import annotations

from dataclasses import asdict

import typer

from archiver.program import HotOption, StorageOption, now_us
from pipelines import maintenance
from pipelines.cli.base import open_lake


def maintain_(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Merge small files of closed days, checkpoint the logs, remove what no version needs any more."""
    program, settings, store = open_lake(context, hot, storage)
    report = maintenance.maintain(store, settings, now_us=now_us())
    rows = [(name.replace("_", " "), value) for name, value in asdict(report).items()]
    program.console.table(("what", "now"), rows)
    program.console.result(report)
