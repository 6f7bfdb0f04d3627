"""The archived index: what this store put into the archive, and where."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class ArchivedRow(NamedTuple):
    """One row of the index, in the order of its columns."""

    session_uid: str
    revision: int
    session_id: str
    user_id: str | None
    created_us: int
    updated_us: int | None
    last_activity_us: int
    language: str | None
    title: str | None
    segment: int
    row_group: int | None
    reason: str
    content_sha256: str


_COLUMNS = ", ".join(ArchivedRow._fields)
_INSERT = f"INSERT OR REPLACE INTO archived({_COLUMNS}) VALUES({', '.join('?' * len(ArchivedRow._fields))})"


@dataclass(frozen=True, slots=True)
class ArchivedEntry:
    """Where one archived revision of a session is.

    Attributes:
        row_group: A hint: the reader checks the uid.
        reason: expired, evicted, closed or imported.
    """

    session_uid: str
    revision: int
    session_id: str
    user_id: str | None
    created_us: int
    updated_us: int | None
    last_activity_us: int
    language: str | None
    title: str | None
    archiver_id: str
    sequence: int
    row_group: int | None
    reason: str
    content_sha256: str


_SELECT = (
    "SELECT a.session_uid, a.revision, a.session_id, a.user_id, a.created_us, a.updated_us, a.last_activity_us,"
    " a.language, a.title, g.archiver_id, g.sequence, a.row_group, a.reason, a.content_sha256"
    " FROM archived a JOIN segment g ON g.segment = a.segment"
)


def insert(connection: sqlite3.Connection, rows: Iterable[ArchivedRow]) -> None:
    """Enter revisions; one that is known already is replaced."""
    connection.executemany(_INSERT, rows)


def versions(connection: sqlite3.Connection, session_id: str, created_us: int) -> list[ArchivedEntry]:
    """All archived revisions of a session, oldest first."""
    query = f"{_SELECT} WHERE a.session_id = ? AND a.created_us = ? ORDER BY a.revision"
    rows = connection.execute(query, (session_id, created_us))
    return [ArchivedEntry(*row) for row in rows]


def latest_of_id(connection: sqlite3.Connection, session_id: str) -> ArchivedEntry | None:
    """The newest conversation archived under an id, at its highest revision."""
    row = connection.execute(
        f"{_SELECT} WHERE a.session_id = ? ORDER BY a.created_us DESC, a.revision DESC LIMIT 1", (session_id,)
    ).fetchone()
    return ArchivedEntry(*row) if row else None
