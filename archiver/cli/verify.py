"""The command ``verify``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from archiver import archive
from archiver.hot import HotStore
from archiver.objects import open_store
from archiver.program import ExitCode, HotOption, StorageOption, human_bytes, plural, program_of
from archiver.settings import Settings


def verify(
    context: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="read every row and recompute every digest")] = False,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Check every segment of the archive: name, bytes, counts, sequence; each fault is named."""
    program, settings = program_of(context, hot, storage)
    with program.console.progress("verifying segments") as progress:
        report = archive.verify(
            open_store(settings.storage), deep=deep, expected=_released_here(settings), progress=progress
        )
    console = program.console
    console.line(
        f"{plural(report.segments, 'segment')} of {plural(report.archivers, 'archiver')}, "
        f"{plural(report.sessions, 'session')}, {human_bytes(report.bytes)}"
    )
    for void in report.voids:
        console.line(f"holds nothing on purpose: {void}")
    for finding in report.findings:
        console.problem(f"{finding.kind} {finding.key}: {finding.detail}")
    console.line("nothing is wrong" if report.ok else f"{plural(len(report.findings), 'fault')} found")
    console.result({**asdict(report), "ok": report.ok})
    raise typer.Exit(ExitCode.DONE if report.ok else ExitCode.FAILED)


def _released_here(settings: Settings) -> dict[str, int]:
    """The last segment this host saw proven: one that is gone since cannot be told from the archive alone."""
    if not (settings.hot.path / "hot.db").is_file():
        return {}
    with HotStore.from_settings(settings.hot) as opened:
        last = opened.claims.last_released()
        return {opened.claims.archiver_id: last} if last else {}
