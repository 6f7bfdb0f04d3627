"""What ``status`` says about the hot store and the archive."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from archiver import service
from archiver.events import format_time
from archiver.hot import HotStore
from archiver.objects import open_store
from archiver.program import Program, human_bytes, now_us, shown_time
from archiver.settings import Settings


def print_status(program: Program, settings: Settings) -> dict[str, Any]:
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
        ("last sweep that ended well", progress.last_ok_us and shown_time(format_time(progress.last_ok_us))),
        ("last error", progress.last_error),
        ("this archiver", progress.archiver_id),
        ("archivers of this archive", report.storage_error or len(report.archivers or ())),
        ("erasures not yet carried out by", ", ".join(f"{a} ({n})" for a, n in report.unacknowledged.items()) or None),
        ("set aside", ", ".join(progress.quarantined) or None),
        ("void segments", ", ".join(map(str, progress.void)) or None),
    ]
    program.console.table(("what", "now"), rows)
    return asdict(report)
