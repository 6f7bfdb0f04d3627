"""The statements behind claims: each function is part of one write transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, NamedTuple

from archiver.hot import archived
from archiver.hot.archived import ArchivedRow
from archiver.hot.due import FREE, Due

RELEASE_SESSIONS: Final = 200
KEEP: Final = 0
DROP: Final = 1
ERASE: Final = 2
"""claim.drop_rows: what the release does with a session that was written to since."""


class Released(NamedTuple):
    """What a release did: sessions deleted, and sessions that stay because they were written to meanwhile."""

    deleted: int
    kept: int


def archiver_id(connection: sqlite3.Connection) -> str:
    """Who this store is in the archive."""
    return str(connection.execute("SELECT value FROM store WHERE name = 'archiver_id'").fetchone()[0])


def next_sequence(connection: sqlite3.Connection) -> int:
    """The number of this archiver's next segment, from 1."""
    query = "SELECT coalesce(max(sequence), 0) + 1 FROM segment WHERE archiver_id = ?"
    return int(connection.execute(query, (archiver_id(connection),)).fetchone()[0])


class ClaimedBatch(NamedTuple):
    """What one claim did; ``segment`` is None while no session is in it."""

    segment: int | None
    claimed: int
    dropped: int


def claim_batch(connection: sqlite3.Connection, segment: int | None, batch: Sequence[Due], now_us: int) -> ClaimedBatch:
    """Add sessions that nobody has written to since they were chosen; the first one makes the segment.

    Restored sessions that nobody continued are dropped instead: the archive has them as they are.
    """
    claimed = dropped = 0
    for due in batch:
        row = connection.execute(
            "SELECT s.session_uid, s.archived_revision, s.next_seq, s.on_loan FROM session s"
            f" WHERE s.sid = ? AND s.last_activity_us = ? AND {FREE}",
            (due.sid, due.last_activity_us),
        ).fetchone()
        if row is None:
            continue
        uid, revision, next_seq, on_loan = row
        if on_loan:
            delete_rows(connection, due.sid)
            dropped += 1
            continue
        if segment is None:
            segment = _open_segment(connection, now_us)
        connection.execute(
            "INSERT INTO claim(segment, session_uid, sid, revision, last_seq, reason) VALUES(?, ?, ?, ?, ?, ?)",
            (segment, uid, due.sid, revision + 1, next_seq - 1, due.reason),
        )
        connection.execute("UPDATE session SET claimed = 1 WHERE sid = ?", (due.sid,))
        claimed += 1
    return ClaimedBatch(segment, claimed, dropped)


def _open_segment(connection: sqlite3.Connection, now_us: int) -> int:
    row = connection.execute(
        "INSERT INTO segment(archiver_id, sequence, state, kind, claimed_us) VALUES(?, ?, 'open', 'live', ?)"
        " RETURNING segment",
        (archiver_id(connection), next_sequence(connection), now_us),
    ).fetchone()
    return int(row[0])


def delete_rows(connection: sqlite3.Connection, sid: int) -> None:
    """Delete everything of a session but its claim and its archived index."""
    for table in ("event", "graph_state", "session"):
        connection.execute(f"DELETE FROM {table} WHERE sid = ?", (sid,))


def unclaim(connection: sqlite3.Connection, segment: int) -> int:
    """Free the sessions of a segment to be claimed again, and carry out deletions that waited; returns how many."""
    rows = connection.execute("SELECT sid, drop_rows FROM claim WHERE segment = ?", (segment,)).fetchall()
    connection.execute("DELETE FROM claim WHERE segment = ?", (segment,))
    for sid, drop_rows in rows:
        if drop_rows == KEEP:
            connection.execute("UPDATE session SET claimed = 0 WHERE sid = ?", (sid,))
        else:
            delete_rows(connection, sid)
    return len(rows)


_CLAIMED = """
SELECT c.sid, c.session_uid, c.revision, c.last_seq, c.reason, c.drop_rows, c.frozen, c.content_sha256, c.row_group,
  c.n_messages, c.n_interactions, s.session_id, s.created_us, s.last_activity_us, s.title, s.next_seq,
  CASE c.frozen WHEN 1 THEN c.user_id ELSE s.user_id END,
  CASE c.frozen WHEN 1 THEN c.updated_us ELSE s.updated_us END,
  CASE c.frozen WHEN 1 THEN c.language ELSE s.language END
FROM claim c JOIN session s USING(sid) WHERE c.segment = ? LIMIT ?
"""


class _Claimed(NamedTuple):
    sid: int
    session_uid: str
    revision: int
    last_seq: int
    reason: str
    drop_rows: int
    frozen: int
    content_sha256: str
    row_group: int
    n_messages: int
    n_interactions: int
    session_id: str
    created_us: int
    last_activity_us: int
    title: str | None
    next_seq: int
    user_id: str | None
    updated_us: int | None
    language: str | None

    @property
    def written_to(self) -> bool:
        return bool(self.frozen) or self.next_seq > self.last_seq + 1


def release_batch(connection: sqlite3.Connection, segment: int) -> Released | None:
    """Delete the rows of up to RELEASE_SESSIONS claimed sessions and their claims; None when none is left."""
    rows = connection.execute(_CLAIMED, (segment, RELEASE_SESSIONS)).fetchall()
    if not rows:
        return None
    deleted = 0
    entries: list[ArchivedRow] = []
    for claimed in map(_Claimed._make, rows):
        if claimed.drop_rows != ERASE:
            entries.append(_entry(claimed, segment))
        connection.execute("DELETE FROM claim WHERE segment = ? AND session_uid = ?", (segment, claimed.session_uid))
        if claimed.written_to and claimed.drop_rows == KEEP:
            connection.execute(
                "UPDATE session SET claimed = 0, archived_revision = ?, archived_seq = ?, archived_sha256 = ?"
                " WHERE sid = ?",
                (claimed.revision, claimed.last_seq, claimed.content_sha256, claimed.sid),
            )
        else:
            delete_rows(connection, claimed.sid)
            deleted += 1
    archived.insert(connection, entries)
    return Released(deleted, len(rows) - deleted)


def _entry(claimed: _Claimed, segment: int) -> ArchivedRow:
    return ArchivedRow(
        session_uid=claimed.session_uid,
        revision=claimed.revision,
        session_id=claimed.session_id,
        user_id=claimed.user_id,
        created_us=claimed.created_us,
        updated_us=claimed.updated_us,
        last_activity_us=claimed.last_activity_us,
        language=claimed.language,
        title=claimed.title,
        segment=segment,
        row_group=claimed.row_group,
        reason=claimed.reason,
        content_sha256=claimed.content_sha256,
        n_messages=claimed.n_messages,
        n_interactions=claimed.n_interactions,
    )


def erase(connection: sqlite3.Connection, sids: Sequence[int]) -> None:
    """Delete sessions; those in a closed segment at its release."""
    for sid in sids:
        found: tuple[str] | None = connection.execute(
            "SELECT g.state FROM claim c JOIN segment g USING(segment) WHERE c.sid = ?", (sid,)
        ).fetchone()
        if found is not None and found[0] != "open":
            connection.execute("UPDATE claim SET drop_rows = ? WHERE sid = ?", (ERASE, sid))
        else:
            connection.execute("DELETE FROM claim WHERE sid = ?", (sid,))
            delete_rows(connection, sid)
