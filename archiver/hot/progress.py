"""How archiving goes: what the last sweeps said, and segments by state."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """What this store knows about its own archiving.

    Attributes:
        segments: Number of segments by state: open, closed, verified, released.
        void: Sequence numbers of segments that could not be built, with the reason.
        quarantined: session_uid of sessions set aside, with the reason.
        last_ok_us: When a sweep last ended well.
        last_error: Why the last failed sweep failed, and when; it may be older than last_ok_us.
    """

    archiver_id: str
    segments: dict[str, int]
    void: dict[int, str]
    quarantined: dict[str, str]
    live_sessions: int
    archived_revisions: int
    last_ok_us: int | None
    last_error: str | None
    last_error_us: int | None


def progress(connection: sqlite3.Connection) -> Progress:
    """Read it; one pass over indexes."""
    facts = dict(connection.execute("SELECT name, value FROM store").fetchall())
    return Progress(
        archiver_id=facts["archiver_id"],
        segments=dict(connection.execute("SELECT state, count(*) FROM segment GROUP BY state")),
        void=dict(connection.execute("SELECT sequence, coalesce(note, '') FROM segment WHERE kind = 'void'")),
        quarantined=dict(
            connection.execute("SELECT session_uid, quarantined FROM session WHERE quarantined IS NOT NULL")
        ),
        live_sessions=connection.execute("SELECT count(*) FROM session WHERE state = 0").fetchone()[0],
        archived_revisions=connection.execute("SELECT count(*) FROM archived").fetchone()[0],
        last_ok_us=int(facts["sweep_ok_us"]) if "sweep_ok_us" in facts else None,
        last_error=facts.get("sweep_error"),
        last_error_us=int(facts["sweep_error_us"]) if "sweep_error_us" in facts else None,
    )


def note_sweep(connection: sqlite3.Connection, error: str | None, now_us: int) -> None:
    """Keep how a sweep ended."""
    if error is None:
        values = {"sweep_ok_us": str(now_us)}
    else:
        values = {"sweep_error": error[:500], "sweep_error_us": str(now_us)}
    connection.executemany("INSERT OR REPLACE INTO store(name, value) VALUES(?, ?)", values.items())
