"""The command ``sweep``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from archiver import service
from archiver.batch import collect_rarely
from archiver.errors import InputError
from archiver.hot import HotStore
from archiver.objects import open_store
from archiver.program import (
    ExitCode,
    HotOption,
    Program,
    StorageOption,
    exit_code_of_kind,
    human_bytes,
    now_us,
    plural,
    program_of,
)


def sweep(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="stay and sweep again and again, until SIGTERM")] = False,
    quarantine: Annotated[str | None, typer.Option(metavar="SESSION", help="set an unreadable session aside")] = None,
    unquarantine: Annotated[str | None, typer.Option(metavar="SESSION", help="take it back into sweeps")] = None,
    health: Annotated[Path | None, typer.Option(metavar="FILE", help="with --watch: JSON health file")] = None,
    metrics_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="with --watch: Prometheus text file")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="with --watch: Prometheus port on 127.0.0.1")
    ] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Move expired sessions to the archive: claim, seal, push, verify, release."""
    program, settings = program_of(context, hot, storage)
    outlets = service.Outlets(health=health, textfile=metrics_file, port=metrics_port)
    if outlets != service.Outlets() and not watch:
        raise InputError("a single sweep has no health file and no metrics", operation="sweep", hint="add --watch")
    collect_rarely()
    with HotStore.from_settings(settings.hot) as opened:
        store = open_store(settings.storage)
        if quarantine is not None:
            opened.claims.quarantine(quarantine, "set aside by hand")
            program.console.line(f"set aside, rows kept: {quarantine}")
        if unquarantine is not None:
            opened.claims.unquarantine(unquarantine)
            program.console.line(f"swept again from now on: {unquarantine}")
        if watch:
            with service.until_signalled() as stop:
                watched = service.watch(opened, store, settings, now_us=now_us, stop=stop, outlets=outlets)
            program.console.result(watched)
            return
        report = service.sweep(opened, store, settings, now_us=now_us())
    _show_sweep(program, report)
    raise typer.Exit(_sweep_code(report))


def _show_sweep(program: Program, report: service.SweepReport) -> None:
    console = program.console
    if report.segments or report.backlog or report.failures:
        console.line(
            f"{plural(report.sessions_released, 'session')} archived in {plural(report.segments, 'segment')} "
            f"({human_bytes(report.bytes)}), {report.backlog:,} still waiting"
        )
    else:
        console.line("nothing has expired")
    for failure in report.failures:
        console.problem(f"error: {failure.message}")
    if report.voided:
        voided = plural(report.voided, "void segment")
        console.problem(f"{voided} passed over, could not be built: see sessionlake status")
    console.result({**asdict(report), "ok": report.ok})


def _sweep_code(report: service.SweepReport) -> ExitCode:
    if report.failures:
        return exit_code_of_kind(report.failures[0].kind)
    return ExitCode.PARTLY if report.voided else ExitCode.DONE
