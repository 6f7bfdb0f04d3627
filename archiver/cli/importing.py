"""The command ``import``."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from archiver import importer
from archiver.batch import collect_rarely
from archiver.hot import HotStore
from archiver.objects import open_store
from archiver.program import ExitCode, HotOption, Program, StorageOption, now_us, per_second, plural, program_of


def import_(
    context: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="JSON, JSON Lines (.gz, .zst) or directories of them")],
    live: Annotated[bool, typer.Option("--live", help="put sessions that have not expired into the hot store")] = False,
    assume_tz: Annotated[
        str | None, typer.Option(help="IANA zone of naive timestamps [setting time.assume_tz]")
    ] = None,
    max_rejects: Annotated[int | None, typer.Option(min=0, help="stop when more records are rejected")] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="where to write the rejects [DIR of the hot store]/rejects")
    ] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Import sessions from files into the archive; importing again adds nothing."""
    program, settings = program_of(context, hot, storage, **{"time.assume_tz": assume_tz})
    options = importer.ImportOptions(assume_tz=settings.time.zone, live=live, max_rejects=max_rejects)
    started = now_us()
    collect_rarely()
    with HotStore.from_settings(settings.hot) as opened, program.console.progress("importing sessions") as progress:
        report = importer.import_files(
            paths, opened, open_store(settings.storage), settings, now_us=started, options=options, progress=progress
        )
    seconds = (now_us() - started) / 1e6
    reject_file = _write_rejects(report, rejects or settings.hot.path / "rejects", started)
    _show_import(program, report, reject_file, seconds)
    raise typer.Exit(ExitCode.PARTLY if report.rejects else ExitCode.DONE)


def _write_rejects(report: importer.ImportReport, target: Path, started: int) -> Path | None:
    """The rejects as JSON Lines; ``target`` is a file, or a directory that gets one named by time."""
    if not report.rejects:
        return None
    if not target.suffix:
        stamp = datetime.fromtimestamp(started // 1_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
        target = target / f"import-{stamp}.jsonl"
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(asdict(reject), ensure_ascii=False) + "\n" for reject in report.rejects)
    target.write_text("".join(lines), encoding="utf-8", errors="backslashreplace")
    return target


def _show_import(program: Program, report: importer.ImportReport, reject_file: Path | None, seconds: float) -> None:
    console = program.console
    rate = per_second(report.records, seconds)
    console.line(f"{plural(report.records, 'record')} read in {seconds:.1f} s ({rate:,} a second)")
    outcomes = {
        "new": report.imported, "later revisions": report.revised, "live": report.made_live,
        "known already": report.identical, "older than known": report.older, "rejected": len(report.rejects),
    }  # fmt: skip
    console.line(", ".join(f"{count:,} {name}" for name, count in outcomes.items() if count))
    if report.rejects:
        console.table(("rejected by rule", "records"), list(report.by_rule.items()))
        console.line(f"each with its reason: {reject_file}")
    counts = {k: getattr(report, k) for k in ("records", "imported", "revised", "made_live", "identical", "older")}
    rejected = {"rejected": len(report.rejects), "rejected_by_rule": report.by_rule, "rejects_file": reject_file}
    console.result({**counts, **rejected, "seconds": seconds})
