"""The command ``export``."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Literal

import typer

from archiver.events import us_from_datetime
from archiver.objects import open_store
from archiver.program import ExitCode, HotOption, Program, StorageOption, now_us, plural, shown_url
from pipelines import exports
from pipelines.cli.base import VersionOption, open_lake


def export_(
    context: typer.Context,
    set_name: Annotated[str, typer.Argument(metavar="SET", help="sft, preferences, unpaired, stepwise or prompts")],
    version: VersionOption = None,
    language: Annotated[list[str] | None, typer.Option(help="only sessions in this language; repeatable")] = None,
    since: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="sessions created from this day")] = None,
    until: Annotated[datetime | None, typer.Option(formats=["%Y-%m-%d"], help="and before this day")] = None,
    actor_kind: Annotated[list[str] | None, typer.Option(help="whose acts count; repeatable")] = None,
    pair_kind: Annotated[list[str] | None, typer.Option(help="kinds of preference pairs; repeatable")] = None,
    min_agreement: Annotated[float | None, typer.Option(min=0, max=1, help="least agreement of annotators")] = None,
    where: Annotated[str | None, typer.Option(metavar="SQL", help="condition on the columns of sessions")] = None,
    output: Annotated[Literal["parquet", "jsonl"], typer.Option("--format", help="of the files")] = "parquet",
    push_to: Annotated[str | None, typer.Option(metavar="URL", help="write there instead of beside the tables")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Write a training set from one version of the tables, ready for TRL and `datasets`."""
    program, settings, store = open_lake(context, hot, storage)
    filters = exports.ExportFilters(
        languages=tuple(language or ()),
        since_us=_day_us(since),
        until_us=_day_us(until),
        actor_kinds=tuple(actor_kind or ()),
        pair_kinds=tuple(pair_kind or ()),
        min_agreement=min_agreement,
        where=where,
    )
    target = open_store(program.settings({"storage.url": push_to}).storage) if push_to else None
    with program.console.progress(f"exporting {set_name}") as progress:
        report = exports.export(
            store, settings, set_name,
            version=version, filters=filters, now_us=now_us(), progress=progress, file_format=output, target=target,
        )  # fmt: skip
    _show_export(program, report)
    raise typer.Exit(ExitCode.DONE if report.n_rows else ExitCode.PARTLY)


def _day_us(day: datetime | None) -> int | None:
    return None if day is None else us_from_datetime(day.replace(tzinfo=UTC))


def _resting(rows: int) -> str:
    return "1 row rests" if rows == 1 else f"{rows:,} rows rest"


def _show_export(program: Program, report: exports.ExportReport) -> None:
    console = program.console
    splits = ", ".join(f"{n:,} {split}" for split, n in report.rows.items())
    state = "was there already" if report.existed else f"written in {report.seconds:.1f} s"
    if report.n_rows:
        console.line(f"{report.set_name}: {plural(report.n_rows, 'row')} ({splits}), {state}")
        console.line(shown_url(report.url))
    else:
        console.line(f"{report.set_name}: no rows, nothing written")
    if report.rows_on_default_consent:
        console.line(f"{_resting(report.rows_on_default_consent)} on exports.consent_default")
    reasons = {**report.rejected, **report.filtered, **report.dropped}
    if not (report.n_rows or reasons):
        console.line("the tables hold no sessions: sessionlake compact brings them in from the archive")
    if reasons:
        console.table(("no row because of", "count"), sorted(reasons.items(), key=lambda r: -r[1]))
    console.result({**asdict(report), "rows": report.n_rows, "rows_by_split": report.rows})
