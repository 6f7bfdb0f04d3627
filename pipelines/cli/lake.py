"""Commands on the tables: status, compact, query, sql, maintain."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyarrow import csv

from archiver.cli import status_of
from archiver.console import Console
from archiver.errors import InputError
from archiver.objects import ObjectStore
from archiver.program import ExitCode, HotOption, Program, StorageOption, human_bytes, now_us, plural
from pipelines import compaction, lake, maintenance, query
from pipelines.cli.base import VersionOption, app, open_lake


@app.command()
def status(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Show what is live, what waits for the archive, what the tables hold, and what is wrong."""
    program, settings, store = open_lake(context, hot, storage)
    values = status_of(program, settings)
    tables = lake.statistics(store) if lake.exists(store) else []
    program.console.line()
    rows = [(t.table, t.version, t.rows, t.files, human_bytes(t.size_bytes)) for t in tables]
    program.console.table(("table", "version", "rows", "files", "size"), rows)
    program.console.result({**values, "tables": tables})


@app.command()
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


@app.command("query")
def query_(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="SQL over the six tables, DuckDB's dialect")],
    version: VersionOption = None,
    output: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="how to print the rows")
    ] = "table",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write the rows to a Parquet file instead")] = None,
    limit: Annotated[int, typer.Option(min=1, help="rows of a printed table")] = 100,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Run SQL over the tables, at one version of all six."""
    program, settings, store = open_lake(context, hot, storage)
    rows = query.query(store, settings, sql, version=version)
    if out is not None:
        pq.write_table(rows, out, compression="zstd")
        program.console.line(f"{rows.num_rows:,} rows written to {out}")
        program.console.result({"rows_written": rows.num_rows, "file": out})
    else:
        _print_rows(program, rows, output, limit)


def _print_rows(program: Program, rows: pa.Table, output: str, limit: int) -> None:
    console = program.console
    if output == "csv":
        sink = pa.BufferOutputStream()
        csv.write_csv(rows, sink)
        console.raw(sink.getvalue().to_pybytes().decode())
    elif console.as_json or output == "json":
        Console(as_json=True).result({"columns": rows.column_names, "rows": rows.to_pylist()})
    else:
        shown = rows.slice(0, limit).to_pylist()
        console.table(rows.column_names, [tuple(row.values()) for row in shown])
        if rows.num_rows > limit:
            console.line(f"… {rows.num_rows - limit:,} rows more; --limit, --format csv or --out FILE show them")


@app.command("sql")
def sql_(
    context: typer.Context,
    views: Annotated[bool, typer.Option("--views", help="print the views (the only choice so far)")] = True,  # noqa: ARG001
    version: VersionOption = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Print DuckDB views over the exact files of one lake version, for use anywhere DuckDB runs."""
    program, settings, store = open_lake(context, hot, storage)
    program.console.raw(query.sql_views(store, settings, version=version))


@app.command("maintain")
def maintain_(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Merge small files of closed days, checkpoint the logs, remove what no version needs any more."""
    program, settings, store = open_lake(context, hot, storage)
    report = maintenance.maintain(store, settings, now_us=now_us())
    rows = [(name.replace("_", " "), value) for name, value in asdict(report).items()]
    program.console.table(("what", "now"), rows)
    program.console.result(report)
