"""The statements behind claims: each function is part of one write transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from archiver.hot.due import FREE, Due
from archiver.hot.segment import Member

RELEASE_SESSIONS: Final = 50
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


def claim_batch(connection: sqlite3.Connection, segment: int | None, batch: Sequence[Due], now_us: int) -> int | None:
    """Add sessions that nobody has written to since they were chosen; the first one makes the segment.

    Restored sessions that nobody continued are dropped instead: the archive has them as they are.
    Returns the segment, None while no session is in it.
    """
    chosen = {due.sid: due for due in batch}
    rows = connection.execute(
        "SELECT s.sid, s.session_uid, s.archived_revision + 1, s.next_seq - 1, s.on_loan, s.last_activity_us"
        f" FROM session s WHERE s.sid IN (SELECT value FROM json_each(?)) AND {FREE}",
        (json.dumps(list(chosen)),),
    ).fetchall()
    unchanged = [row for row in rows if row[5] == chosen[row[0]].last_activity_us]
    delete_rows(connection, [row[0] for row in unchanged if row[4]])
    claimed = [(*row[:4], chosen[row[0]].reason) for row in unchanged if not row[4]]
    if not claimed:
        return segment
    if segment is None:
        segment = _open_segment(connection, now_us)
    connection.executemany(
        "INSERT INTO claim(segment, sid, session_uid, revision, last_seq, reason) VALUES(?, ?, ?, ?, ?, ?)",
        [(segment, *row) for row in claimed],
    )
    connection.execute(
        "UPDATE session SET claimed = 1 WHERE sid IN (SELECT value FROM json_each(?))",
        (json.dumps([row[0] for row in claimed]),),
    )
    return segment


def _open_segment(connection: sqlite3.Connection, now_us: int) -> int:
    row = connection.execute(
        "INSERT INTO segment(archiver_id, sequence, state, kind, claimed_us) VALUES(?, ?, 'open', 'live', ?)"
        " RETURNING segment",
        (archiver_id(connection), next_sequence(connection), now_us),
    ).fetchone()
    return int(row[0])


def delete_rows(connection: sqlite3.Connection, sids: Sequence[int]) -> None:
    """Delete everything of sessions but their claims and archived index."""
    for table in ("event", "graph_state", "session"):
        connection.execute(
            f"DELETE FROM {table} WHERE sid IN (SELECT value FROM json_each(?))", (json.dumps(list(sids)),)
        )


def unclaim(connection: sqlite3.Connection, segment: int) -> int:
    """Free the sessions of a segment to be claimed again, and carry out deletions that waited; returns how many."""
    rows = connection.execute("SELECT sid, drop_rows FROM claim WHERE segment = ?", (segment,)).fetchall()
    connection.execute("DELETE FROM claim WHERE segment = ?", (segment,))
    connection.executemany(
        "UPDATE session SET claimed = 0 WHERE sid = ?", [(sid,) for sid, drop in rows if drop == KEEP]
    )
    delete_rows(connection, [sid for sid, drop in rows if drop != KEEP])
    return len(rows)


# "+": found by their row ids, not by the index on the segment, which has thousands.
_INDEX = """
INSERT OR REPLACE INTO archived(session_uid, revision, session_id, user_id, created_us, updated_us, last_activity_us,
  language, title, segment, row_group, reason, content_sha256)
SELECT c.session_uid, c.revision, s.session_id, CASE c.frozen WHEN 1 THEN c.user_id ELSE s.user_id END, s.created_us,
  CASE c.frozen WHEN 1 THEN c.updated_us ELSE s.updated_us END, s.last_activity_us,
  CASE c.frozen WHEN 1 THEN c.language ELSE s.language END, s.title, c.segment, json_extract(m.value, '$[2]'), c.reason,
  json_extract(m.value, '$[1]')
FROM json_each(?) m JOIN claim c ON c.sid = json_extract(m.value, '$[0]') JOIN session s ON s.sid = c.sid
WHERE +c.segment = ? AND c.drop_rows <> 2
"""
_WRITTEN = """
SELECT c.revision, c.last_seq, c.sid FROM claim c JOIN session s ON s.sid = c.sid
WHERE c.sid IN (SELECT value FROM json_each(?)) AND +c.segment = ? AND c.drop_rows = 0
  AND (c.frozen = 1 OR s.next_seq > c.last_seq + 1)
"""
_KEEP = """
UPDATE session SET claimed = 0, archived_revision = ?, archived_seq = ?, archived_sha256 = ? WHERE sid = ?
"""


def index_batch(connection: sqlite3.Connection, segment: int, members: Mapping[int, Member]) -> None:
    """Enter claimed sessions of a segment into the archived index, but those erased since; ``members`` by row id."""
    connection.execute(_INDEX, (json.dumps([(sid, *member) for sid, member in members.items()]), segment))


def release_batch(connection: sqlite3.Connection, segment: int, members: Mapping[int, Member | None]) -> Released:
    """Delete claimed sessions of a segment that are in the archived index; those written to since stay.

    ``members`` by row id of the session; None for an erased one. Whole sets in a few statements: the
    interpreter is free for building the next segment meanwhile.
    """
    named = json.dumps(list(members))
    written = connection.execute(_WRITTEN, (named, segment)).fetchall()
    digests = {sid: member.content_sha256 for sid, member in members.items() if member is not None}
    connection.executemany(_KEEP, [(revision, last_seq, digests[sid], sid) for revision, last_seq, sid in written])
    # Claims first: with its claim gone, the loss of a graph is no longer a change to be kept.
    claims = connection.execute(
        "DELETE FROM claim WHERE sid IN (SELECT value FROM json_each(?)) AND +segment = ? RETURNING sid",
        (named, segment),
    ).fetchall()
    gone = sorted({row[0] for row in claims} - {row[2] for row in written})
    delete_rows(connection, gone)
    return Released(len(gone), len(written))


def erase(connection: sqlite3.Connection, sids: Sequence[int]) -> None:
    """Delete sessions; those in a closed segment at its release."""
    named = json.dumps(list(sids))
    later = connection.execute(
        "UPDATE claim SET drop_rows = ? WHERE sid IN (SELECT value FROM json_each(?))"
        " AND segment IN (SELECT segment FROM segment WHERE state <> 'open') RETURNING sid",
        (ERASE, named),
    ).fetchall()
    now = sorted(set(sids) - {row[0] for row in later})
    connection.executemany("DELETE FROM claim WHERE sid = ?", [(sid,) for sid in now])
    delete_rows(connection, now)
