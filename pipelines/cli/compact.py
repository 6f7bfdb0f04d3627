"""The command ``compact``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Literal

import typer

from archiver.errors import InputError
from archiver.objects import ObjectStore
from archiver.program import ExitCode, HotOption, Program, StorageOption, now_us, plural
from pipelines import compaction
from pipelines.cli.base import open_lake
from pipelines.runner import prepare_process, worker_count


def compact(
    context: typer.Context,
    runner: Annotated[Literal["local", "dask"] | None, typer.Option(help="[setting runner.kind]")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="processes; 0: one a core [setting runner.workers]")
    ] = None,
    accept_gap: Annotated[
        str | None, typer.Option(metavar="ARCHIVER:SEQ", help="pass a segment that is lost for good; needs --reason")
    ] = None,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="why, kept in the archive")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Bring new segments of the archive into the tables."""
    flags = {"runner.kind": runner, "runner.workers": workers}
    program, settings, store = open_lake(context, hot, storage, **flags)
    if accept_gap is not None:
        _accept_gap(program, store, accept_gap, reason)
    if worker_count(settings.runner) == 1:
        prepare_process()
    with program.console.progress("compacting segments") as progress:
        report = compaction.compact(store, settings, now_us=now_us(), progress=progress)
    _show_compaction(program, report)
    raise typer.Exit(ExitCode.PARTLY if report.incomplete else ExitCode.DONE)


def _accept_gap(program: Program, store: ObjectStore, place: str, reason: str | None) -> None:
    archiver_id, _, sequence = place.rpartition(":")
    if not (archiver_id and sequence.isdecimal() and reason):
        raise InputError(
            "write it as ARCHIVER:SEQ, with --reason TEXT", operation="compact", key=f"--accept-gap {place}",
            hint="compact names the gap in this form",
        )  # fmt: skip
    compaction.accept_gap(store, archiver_id, int(sequence), reason=reason, now_us=now_us())
    program.console.line(f"passed for good: {place} ({reason})")


def _show_compaction(program: Program, report: compaction.CompactReport) -> None:
    console = program.console
    if report.segments:
        console.line(
            f"{plural(report.segments, 'segment')} compacted in {report.seconds:.1f} s, "
            f"lake version {report.lake_version}"
        )
        console.table(("table", "rows added"), list(report.rows_added.items()))
    else:
        console.line(f"nothing new, lake version {report.lake_version}")
    if report.sessions_excluded:
        console.line(f"{report.sessions_excluded:,} sessions stay out: consent withheld or erased")
    for problem in report.problems:
        console.problem(problem)
    console.result({**asdict(report), "problems": report.problems, "incomplete": report.incomplete})
