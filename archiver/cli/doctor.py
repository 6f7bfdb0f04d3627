"""The command ``doctor``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from archiver import doctor, service
from archiver.hot import HotStore
from archiver.objects import open_store
from archiver.program import ExitCode, HotOption, StorageOption, now_us, program_of


def doctor_(
    context: typer.Context,
    new_archiver: Annotated[
        bool, typer.Option("--new-archiver", help="give a copied or rolled-back hot store an identity of its own")
    ] = False,
    retire_archiver: Annotated[
        str | None,
        typer.Option("--retire-archiver", metavar="ID", help="wait no longer for a host that is gone for good"),
    ] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Look at storage, clock, disk and versions by really using them, and say what to do about each finding."""
    program, settings = program_of(context, hot, storage)
    store = open_store(settings.storage)
    with HotStore.from_settings(settings.hot) as opened:
        if new_archiver:
            program.console.line(f"archives from now on as {service.new_archiver(opened, store, now_us=now_us())}")
        if retire_archiver is not None:
            service.retire_archiver(opened, store, retire_archiver)
            program.console.line(f"erasures wait no longer for archiver {retire_archiver}")
        report = doctor.examine(settings, store, opened)
    columns = 4 if any(f.remedy for f in report.findings) else 3
    rows = [(f.level, f.check, f.detail, f.remedy or None)[:columns] for f in report.findings]
    program.console.table(("is", "what", "found", "do")[:columns], rows)
    program.console.line(
        f"segments will be proven by {report.verify_by}"
        if report.verify_by
        else "do not archive here before this is mended"
    )
    program.console.result(asdict(report))
    raise typer.Exit(ExitCode.FAILED if report.failures else ExitCode.DONE)
