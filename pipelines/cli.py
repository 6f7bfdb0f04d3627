"""The command ``sessionlake``: commands of the pipeline, and those of :mod:`archiver.cli` mounted beside them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyarrow import csv

from archiver import archive, erasure, restore, service
from archiver.cli import commands, find_session, print_session, sessions_app
from archiver.console import Console
from archiver.errors import InputError, UnknownSessionError
from archiver.events import us_from_datetime
from archiver.hot import HotStore
from archiver.legacy import parse_record
from archiver.objects import ObjectStore, open_store
from archiver.program import ExitCode, HotOption, Program, StorageOption, human_bytes, now_us, plural, run, shown_url
from archiver.sessions import SessionManager
from archiver.settings import Settings
from pipelines import catalog, compaction, demo, demo_run, exports, maintenance, query, report
from pipelines.report.session_page import session_page

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


def _open(
    context: typer.Context, hot: Path | None, storage: str | None, **flags: Any
) -> tuple[Program, Settings, ObjectStore]:
    program: Program = context.obj
    settings = program.settings({"hot.path": hot, "storage.url": storage, **flags})
    return program, settings, open_store(settings.storage)


@app.command("demo")
def demo_(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="where; an earlier demo there is cleared")
    ] = Path("demo"),
    s3: Annotated[
        str | None, typer.Option("--s3", metavar="URL", help="s3://bucket/prefix instead of a directory")
    ] = None,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="how many conversations")] = 300,
) -> None:
    """Play the whole way once, on made-up conversations: live, archive, tables, training set."""
    program: Program = context.obj
    demo.prepare_directory(directory)
    settings = program.settings(
        {
            "hot.path": directory / "sessions",
            "storage.url": s3 or f"file:{directory}/lake",
            "hot.max_sessions": sessions * 2,
            "hot.session_max_age_hours": demo.MAX_AGE_SECONDS / 3600,
        }
    )
    demo_run.show(program.console, settings, sessions=sessions, clock=now_us)


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
    program, settings, store = _open(context, hot, storage, **flags)
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
    program, settings, store = _open(context, hot, storage)
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
    program, settings, store = _open(context, hot, storage)
    program.console.raw(query.sql_views(store, settings, version=version))


@app.command("export")
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
    program, settings, store = _open(context, hot, storage)
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


def _show_export(program: Program, report: exports.ExportReport) -> None:
    console = program.console
    splits = ", ".join(f"{n:,} {split}" for split, n in report.rows.items())
    state = "was there already" if report.existed else f"written in {report.seconds:.1f} s"
    if report.n_rows:
        console.line(f"{report.set_name}: {plural(report.n_rows, 'row')} ({splits}), {state}")
        console.line(shown_url(report.url))
    else:
        console.line(f"{report.set_name}: no rows, nothing written")
    console.line(f"{plural(report.rows_on_default_consent, 'row')} rest on exports.consent_default")
    reasons = {**report.rejected, **report.filtered, **report.dropped}
    if reasons:
        console.table(("no row because of", "count"), sorted(reasons.items(), key=lambda r: -r[1]))
    console.result({**asdict(report), "rows": report.n_rows, "rows_by_split": report.rows})


@app.command("maintain")
def maintain_(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Merge small files of closed days, checkpoint the logs, remove what no version needs any more."""
    program, settings, store = _open(context, hot, storage)
    report = maintenance.maintain(store, settings, now_us=now_us())
    rows = [(name.replace("_", " "), value) for name, value in asdict(report).items()]
    program.console.table(("what", "now"), rows)
    program.console.result(report)


@app.command("erase")
def erase_(
    context: typer.Context,
    user: Annotated[str | None, typer.Option(metavar="ID", help="everything of this user")] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="every conversation under this session id")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="say what would go, touch nothing")] = False,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Erase a user or a session everywhere: live rows, segments with all object versions, tables, exports."""
    program, settings, store = _open(context, hot, storage)
    with HotStore.from_settings(settings.hot) as opened:
        plan = erasure.plan_erasure(opened, store, user_id=user, session_id=session, now_us=now_us())
        if dry_run:
            _show_erasure(program, "would go", plan.live_sessions, plan.segments, {}, ())
            program.console.result({**asdict(plan), "dry_run": True})
            return
        receipt = erasure.erase(
            opened, store, plan, push=lambda: service.sweep(opened, store, settings, now_us=now_us())
        )
    in_tables = maintenance.covered_uids(store)
    tables = maintenance.erase(store, settings, now_us=now_us())
    exported = exports.erase(store, archive.tombstones(store), also=in_tables)
    _show_erasure(program, "gone", receipt.live_sessions, receipt.segments, tables.rows_removed, exported)
    for archiver_id in receipt.pending_archivers:
        program.console.problem(f"archiver {archiver_id} has not acknowledged yet: its next sweep will")
    program.console.result(
        {**asdict(receipt), "tables": asdict(tables), "exports": exported, "complete": receipt.complete}
    )
    raise typer.Exit(ExitCode.DONE if receipt.complete else ExitCode.PARTLY)


def _show_erasure(
    program: Program,
    verb: str,
    live: int,
    segments: Mapping[str, int],
    rows: Mapping[str, int],
    exported: Sequence[str],
) -> None:
    what = [("live store", plural(live, "session"))]
    what += [(key, plural(n, "session")) for key, n in segments.items()]
    what += [(f"table {name}", plural(n, "row")) for name, n in rows.items() if n]
    what += [(key, "the whole export, it held the sessions") for key in exported]
    program.console.table(("where", verb), what)


@app.command("report")
def report_(
    context: typer.Context,
    out: Annotated[Path, typer.Option(metavar="FILE", help="where to write the page")] = Path("report.html"),
    version: VersionOption = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Write one self-contained HTML page: sessions, verdicts, prunes, and what became of them."""
    program, settings, store = _open(context, hot, storage)
    page = report.report(store, settings, version=version, now_us=now_us())
    out.write_bytes(page)
    program.console.line(f"{out} ({human_bytes(len(page))}): open it in a browser, it needs no network")
    program.console.result({"file": out, "bytes": len(page)})


@sessions_app.command("show")
def sessions_show(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID")],
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="write a page with the graph drawn instead")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Show one session, live or archived: its conversation and what was done to its graph."""
    program: Program = context.obj
    session = find_session(program.settings({"hot.path": hot, "storage.url": storage}), session_id)
    if html is None:
        print_session(program.console, session)
    else:
        html.write_bytes(session_page(parse_record(session.to_dict())))
        program.console.line(f"{html}: open it in a browser, it needs no network")
        program.console.result({"file": html})


@sessions_app.command("restore")
def sessions_restore(
    context: typer.Context,
    session_id: Annotated[str, typer.Argument(metavar="ID")],
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Make an archived session live again in this hot store, its history with it."""
    program, settings, store = _open(context, hot, storage)
    with SessionManager.from_settings(settings) as manager:
        if manager.get_session(session_id) is None:
            known_to_tables = partial(catalog.locate, store)
            restore.restore_session(manager.hot, store, session_id, now_us=now_us(), locate=known_to_tables)
        session = manager.get_session(session_id)
    if session is None:
        raise UnknownSessionError("no such session, live or archived", operation="restore", key=session_id)
    program.console.line(f"live again: {session_id}, {len(session.chat_history)} messages")
    program.console.result({"session_id": session_id, "messages": len(session.chat_history)})


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


_ORDER = (
    "demo", "import", "sweep", "status", "verify", "erase", "compact", "query", "sql", "export", "report", "maintain",
    "doctor", "bench",
)  # fmt: skip
app.registered_commands.sort(key=lambda command: _ORDER.index(str(command.name or command.callback.__name__)))  # type: ignore[union-attr]


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run(app, sys.argv[1:]))
