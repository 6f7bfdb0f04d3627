"""The command ``sessionlake``: commands of the pipeline, and those of :mod:`archiver.cli` mounted beside them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyarrow import csv

from archiver.cli import commands
from archiver.console import Console
from archiver.errors import InputError
from archiver.objects import ObjectStore, open_store
from archiver.program import ExitCode, Program, StorageOption, now_us, plural, run
from archiver.settings import Settings
from pipelines import compaction, query

app = typer.Typer(
    name="sessionlake",
    help="From live chat and reasoning sessions to trustworthy training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
"""Every command of the program."""

VersionOption = Annotated[int | None, typer.Option("--version", min=0, help="lake version to read; absent: the latest")]


def _show_version(wanted: bool) -> None:
    if wanted:
        Console().line(f"sessionlake {distribution_version('sessionlake')}")
        raise typer.Exit(ExitCode.DONE)


@app.callback()
def _globals(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file of settings")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and debug log lines")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="print the version and leave", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    context.obj = Program(config=config, console=Console(as_json=as_json), debug=debug)


app.registered_commands += commands.registered_commands
app.registered_groups += commands.registered_groups


def _open(context: typer.Context, storage: str | None, **flags: Any) -> tuple[Program, Settings, ObjectStore]:
    program: Program = context.obj
    settings = program.settings({"storage.url": storage, **flags})
    return program, settings, open_store(settings.storage)


@app.command()
def compact(
    context: typer.Context,
    runner: Annotated[Literal["local", "dask"] | None, typer.Option(help="[setting runner.kind]")] = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="processes; 0: one a core [setting runner.workers]")
    ] = None,
    storage: StorageOption = None,
) -> None:
    """Bring new segments of the archive into the tables."""
    flags = {"runner.kind": runner, "runner.workers": workers}
    program, settings, store = _open(context, storage, **flags)
    with program.console.progress("compacting segments") as progress:
        report = compaction.compact(store, settings, now_us=now_us(), progress=progress)
    _show_compaction(program, report)
    raise typer.Exit(ExitCode.PARTLY if report.incomplete else ExitCode.DONE)


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
    storage: StorageOption = None,
) -> None:
    """Run SQL over the tables, at one version of all six."""
    program, settings, store = _open(context, storage)
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
    storage: StorageOption = None,
) -> None:
    """Print DuckDB views over the exact files of one lake version, for use anywhere DuckDB runs."""
    program, settings, store = _open(context, storage)
    program.console.raw(query.sql_views(store, settings, version=version))


@app.command()
def bench(
    context: typer.Context,
    what: Annotated[Literal["hot", "archive", "compact", "export", "all"], typer.Argument()] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="small inputs: seconds instead of minutes")] = False,
) -> None:
    """Measure this machine, peers side by side, and print the ratios (needs the source tree)."""
    program: Program = context.obj
    directory = Path(__file__).parents[1] / "tests" / "bench"
    if not directory.is_dir():
        raise InputError(
            "the benchmarks are part of the source tree, not of the installed package",
            operation="bench", key=str(directory), hint="clone the repository and run make bench",
        )  # fmt: skip
    names = ("hot", "archive", "compact", "export") if what == "all" else (what,)
    for name in names:
        program.console.line(f"== {name}", style="bold")
        command = [sys.executable, str(directory / f"{name}.py"), *(["--quick"] if quick else [])]
        if subprocess.run(command, check=False).returncode:  # noqa: S603  our own file, no user text
            raise typer.Exit(ExitCode.FAILED)


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(app, sys.argv[1:]))
