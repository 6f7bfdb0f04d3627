"""Commands of the live side and the archive; :mod:`pipelines.cli` mounts them."""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from archiver import archive, doctor, importer, service
from archiver.console import Console
from archiver.errors import UnknownSessionError
from archiver.events import format_time
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
    per_second,
    plural,
)
from archiver.sessions import Session, SessionManager
from archiver.settings import Settings

commands = typer.Typer()
sessions_app = typer.Typer(help="Look at sessions, live and archived.", no_args_is_help=True)
config_app = typer.Typer(help="Show or check the settings.", no_args_is_help=True)
commands.add_typer(sessions_app, name="sessions")
commands.add_typer(config_app, name="config")


def _settings(context: typer.Context, hot: Path | None = None, storage: str | None = None, **more: Any) -> Settings:
    program: Program = context.obj
    return program.settings({"hot.path": hot, "storage.url": storage, **more})


@commands.command("import")
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
    program: Program = context.obj
    settings = _settings(context, hot, storage, **{"time.assume_tz": assume_tz})
    options = importer.ImportOptions(assume_tz=settings.time.zone, live=live, max_rejects=max_rejects)
    started = now_us()
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
    console.line(
        f"{report.imported:,} new, {report.revised:,} later revisions, {report.made_live:,} live, "
        f"{report.identical:,} known already, {report.older:,} older than known, {len(report.rejects):,} rejected"
    )
    if report.rejects:
        console.table(("rejected by rule", "records"), list(report.by_rule.items()))
        console.line(f"each with its reason: {reject_file}")
    counts = {k: getattr(report, k) for k in ("records", "imported", "revised", "made_live", "identical", "older")}
    rejected = {"rejected": len(report.rejects), "rejected_by_rule": report.by_rule, "rejects_file": reject_file}
    console.result({**counts, **rejected, "seconds": seconds})


@commands.command()
def sweep(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="stay and sweep again and again, until SIGTERM")] = False,
    quarantine: Annotated[str | None, typer.Option(metavar="SESSION", help="set an unreadable session aside")] = None,
    unquarantine: Annotated[str | None, typer.Option(metavar="SESSION", help="take it back into sweeps")] = None,
    health: Annotated[Path | None, typer.Option(metavar="FILE", help="with --watch: JSON health file")] = None,
    metrics_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="with --watch: Prometheus text file")
    ] = None,
    metrics_port: Annotated[int | None, typer.Option(help="with --watch: Prometheus port on 127.0.0.1")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Move expired sessions to the archive: claim, seal, push, verify, release."""
    program: Program = context.obj
    settings = _settings(context, hot, storage)
    with HotStore.from_settings(settings.hot) as opened:
        store = open_store(settings.storage)
        if quarantine is not None:
            opened.claims.quarantine(quarantine, "set aside by hand")
            program.console.line(f"set aside, rows kept: {quarantine}")
        if unquarantine is not None:
            opened.claims.unquarantine(unquarantine)
            program.console.line(f"swept again from now on: {unquarantine}")
        if watch:
            outlets = service.Outlets(health=health, textfile=metrics_file, port=metrics_port)
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
        console.problem(f"{report.voided} segments could not be built and were passed; sessionlake status names them")
    console.result({**asdict(report), "ok": report.ok})


def _sweep_code(report: service.SweepReport) -> ExitCode:
    if report.failures:
        return exit_code_of_kind(report.failures[0].kind)
    return ExitCode.PARTLY if report.voided else ExitCode.DONE


def status_of(program: Program, settings: Settings) -> dict[str, Any]:
    """Print how the hot store and the archive stand; returns the same as plain values."""
    with HotStore.from_settings(settings.hot) as opened:
        report = service.status(opened, open_store(settings.storage), settings, now_us=now_us())
    progress, backlog = report.progress, report.backlog
    due = report.oldest_due_seconds
    rows: list[tuple[str, Any]] = [
        ("live sessions", progress.live_sessions),
        ("waiting to be archived", backlog.sessions),
        ("oldest of them due for", None if due is None else f"{due / 60:,.1f} minutes"),
        ("above max_sessions", backlog.above_limit),
        ("archived revisions", progress.archived_revisions),
        ("segments waiting", len(report.waiting)),
        ("spool", human_bytes(report.spool_bytes)),
        ("last sweep that ended well", progress.last_ok_us and format_time(progress.last_ok_us)),
        ("last error", progress.last_error),
        ("this archiver", progress.archiver_id),
        ("archivers of this archive", report.storage_error or len(report.archivers or ())),
        ("set aside", ", ".join(progress.quarantined) or None),
        ("void segments", ", ".join(map(str, progress.void)) or None),
    ]
    program.console.table(("what", "now"), rows)
    return asdict(report)


@sessions_app.command("list")
def sessions_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, help="how many, the most recent first")] = 20,
    user: Annotated[str | None, typer.Option(help="only this user's")] = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """List live sessions, the most recently active first."""
    program: Program = context.obj
    with SessionManager.from_settings(_settings(context, hot, storage)) as manager:
        found = manager.list_sessions(limit, user_id=user)
    rows = [(s["id"], s["title"], s["timestamp"], s["language"]) for s in found]
    if rows:
        program.console.table(("session", "title", "last activity", "language"), rows)
    else:
        program.console.line("no live sessions")
    program.console.result({"sessions": found})


def find_session(settings: Settings, session_id: str) -> Session:
    """The session, live or else archived, without restoring it; UnknownSessionError if there is none."""
    with SessionManager.from_settings(settings) as manager:
        session = manager.peek(session_id)
    if session is None:
        raise UnknownSessionError("no such session, live or archived", operation="show", key=session_id)
    return session


def print_session(console: Console, session: Session) -> None:
    """Print its conversation, then what was done to its graph."""
    console.line(session.get_title(80), style="bold")
    console.line(f"{session.session_id}  created {session.created_at}  updated {session.updated_at}")
    for message in session.chat_history:
        console.line()
        console.line(f"{message.role}:", style="bold")
        console.line(message.content or "")
    rows = [(i.timestamp, i.action_type, i.node_id, i.feedback, i.content) for i in session.interactions]
    if rows:
        console.line()
        console.table(("when", "action", "node", "verdict", "text"), rows)
    console.result(session.to_dict())


@commands.command()
def verify(
    context: typer.Context,
    deep: Annotated[bool, typer.Option("--deep", help="read every row and recompute every digest")] = False,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Check every segment of the archive: name, bytes, counts, sequence; each fault is named."""
    program: Program = context.obj
    settings = _settings(context, hot, storage)
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
        return {opened.claims.archiver_id: opened.claims.last_released()}


@commands.command("doctor")
def doctor_(
    context: typer.Context,
    new_archiver: Annotated[
        bool, typer.Option("--new-archiver", help="give a copied or rolled-back hot store an identity of its own")
    ] = False,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Look at storage, clock, disk and versions by really using them, and say what to do about each finding."""
    program: Program = context.obj
    settings = _settings(context, hot, storage)
    store = open_store(settings.storage)
    with HotStore.from_settings(settings.hot) as opened:
        if new_archiver:
            program.console.line(f"archives from now on as {service.new_archiver(opened, store, now_us=now_us())}")
        report = doctor.examine(settings, store, opened)
    rows = [(f.level, f.check, f.detail, f.remedy or None) for f in report.findings]
    program.console.table(("is", "what", "found", "do"), rows)
    program.console.line(
        f"segments will be proven by {report.verify_by}"
        if report.verify_by
        else "do not archive here before this is mended"
    )
    program.console.result(asdict(report))
    raise typer.Exit(ExitCode.FAILED if report.failures else ExitCode.DONE)


@config_app.command("show")
def config_show(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Show every setting with its value, whatever it came from. Credentials are no settings, so none can show."""
    program: Program = context.obj
    dump = _settings(context, hot, storage).model_dump(mode="json")
    rows = [(f"{section}.{key}", value) for section, values in dump.items() for key, value in values.items()]
    program.console.table(("setting", "value"), rows)
    program.console.result(dump)


@config_app.command("check")
def config_check(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Check the settings; a wrong one is named with its place and what is permitted."""
    program: Program = context.obj
    _settings(context, hot, storage)
    program.console.line("settings are in order")
    program.console.result({"settings": "in order"})
