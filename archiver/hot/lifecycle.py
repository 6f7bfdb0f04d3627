"""How sessions begin and end in the store, as functions over an open write transaction."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

from archiver.errors import SessionConflictError
from archiver.events import GRAPH_SNAPSHOT, SessionRecord, canonical_json, session_uid
from archiver.hot import live, reading
from archiver.hot.rows import INTERACTION, MESSAGE, NewEvent, SessionRow
from archiver.hot.schema import CLOSED, MINUTE_US, SNAPSHOT


def start(
    connection: sqlite3.Connection, session_id: str, now_us: int, *, user_id: str | None, language: str | None
) -> SessionRow:
    """Insert an empty live session whose created_at is later than that of every earlier one with this id."""
    (latest,) = connection.execute(
        """SELECT max(created_us) FROM (SELECT created_us FROM session WHERE session_id = ?1 AND state = 0
           UNION ALL SELECT created_us FROM session WHERE session_id = ?1 AND state = 1
           UNION ALL SELECT created_us FROM archived WHERE session_id = ?1)""",
        (session_id,),
    ).fetchone()
    created_us = now_us if latest is None else max(now_us, latest + 1)
    values = {
        "session_uid": session_uid(session_id, created_us), "session_id": session_id, "user_id": user_id,
        "created_us": created_us, "updated_us": created_us, "last_activity_us": now_us,
        "minute": now_us // MINUTE_US, "language": language,
    }  # fmt: skip
    return _inserted(connection, values)


def _inserted(connection: sqlite3.Connection, values: dict[str, Any]) -> SessionRow:
    query = f"INSERT INTO session({', '.join(values)}) VALUES({', '.join('?' * len(values))})"
    sid = connection.execute(query, tuple(values.values())).lastrowid
    row = reading.by_sid(connection, int(sid or 0))
    assert row is not None  # noqa: S101  inserted in this transaction
    return row


def close(connection: sqlite3.Connection, row: SessionRow, reason: Literal["closed", "expired"]) -> None:
    """End a live session: gone for its users, archived by the next sweep."""
    connection.execute(
        "UPDATE session SET state = ?, close_reason = ?, version = version + 1 WHERE sid = ?", (CLOSED, reason, row.sid)
    )
    if reason == "closed":
        connection.execute("UPDATE claim SET reason = 'closed' WHERE sid = ?", (row.sid,))
        forget_archived(connection, row.session_id)


def delete(connection: sqlite3.Connection, row: SessionRow) -> None:
    """Delete a session's rows, or note that the release of its claim must."""
    forget_archived(connection, row.session_id)
    if row.claimed:
        close(connection, row, "closed")
        connection.execute("UPDATE claim SET drop_rows = 1 WHERE sid = ?", (row.sid,))
        return
    for table in ("event", "graph_state", "session"):
        connection.execute(f"DELETE FROM {table} WHERE sid = ?", (row.sid,))


def forget_archived(connection: sqlite3.Connection, session_id: str) -> int:
    """Keep archived revisions of an id from coming back by themselves; returns how many there are."""
    return connection.execute("UPDATE archived SET reason = 'closed' WHERE session_id = ?", (session_id,)).rowcount


def sid_of(connection: sqlite3.Connection, session_id: str, created_us: int) -> int | None:
    """The row of one conversation, live or closed."""
    found = connection.execute(
        """SELECT sid FROM session WHERE session_id = ?1 AND created_us = ?2 AND state = 0
           UNION ALL SELECT sid FROM session WHERE session_id = ?1 AND created_us = ?2 AND state = 1""",
        (session_id, created_us),
    ).fetchone()
    return None if found is None else int(found[0])


def seen(connection: sqlite3.Connection, session_id: str, created_us: int) -> bool:
    """Whether this conversation is, or was, here or in the archive as this store knows it."""
    query = "SELECT 1 FROM archived WHERE session_id = ? AND created_us = ?"
    return (
        sid_of(connection, session_id, created_us) is not None
        or connection.execute(query, (session_id, created_us)).fetchone() is not None
    )


class Whereabouts(NamedTuple):
    """What became of a session id without a live row.

    Attributes:
        ended: The latest conversation was closed, here or in the archive.
    """

    session_uid: str
    reason: str
    last_activity_us: int
    ended: bool


def whereabouts(connection: sqlite3.Connection, session_id: str) -> Whereabouts | None:
    """The latest conversation of an id that has no live row; None if the id was never seen."""
    found = connection.execute(
        """SELECT session_uid, reason, last_activity_us, reason = 'closed' FROM (
             SELECT session_uid, reason, last_activity_us, created_us, revision FROM archived WHERE session_id = ?1
             UNION ALL
             SELECT session_uid, 'closed', last_activity_us, created_us, 1 << 30 FROM session
             WHERE session_id = ?1 AND state = 1)
           ORDER BY created_us DESC, revision DESC LIMIT 1""",
        (session_id,),
    ).fetchone()
    return None if found is None else Whereabouts(found[0], found[1], found[2], bool(found[3]))


def insert_record(
    connection: sqlite3.Connection,
    record: SessionRecord,
    *,
    last_activity_us: int,
    restored_us: int | None,
    archived_sha256: str | None,
) -> SessionRow:
    """Insert a whole session as live; if this uid is here already, return it unchanged.

    With ``restored_us`` its events count as archived in ``record.revision`` and it is on loan.
    """
    known = sid_of(connection, record.session_id, record.created_at_us)
    if known is not None:
        row = reading.by_sid(connection, known)
        assert row is not None  # noqa: S101  found in this transaction
        return row
    if reading.live(connection, record.session_id) is not None:
        raise SessionConflictError(
            "a newer conversation with this id is live", operation="insert session", key=record.session_id,
            hint="close it first, or read the archived one without restoring it",
        )  # fmt: skip
    values: dict[str, Any] = {
        "session_uid": record.session_uid, "session_id": record.session_id, "user_id": record.user_id,
        "created_us": record.created_at_us, "updated_us": record.updated_at_us, "last_activity_us": last_activity_us,
        "minute": last_activity_us // MINUTE_US, "tz_assumed": int(record.tz_assumed), "language": record.language,
        "metadata": record.metadata, "extra": record.extra,
        "reported": None if record.reported is None else canonical_json(list(record.reported)),
    }  # fmt: skip
    if restored_us is not None:
        values |= {
            "restored_us": restored_us, "on_loan": 1, "archived_revision": record.revision,
            "archived_seq": len(record.messages) + len(record.interactions) - 1, "archived_sha256": archived_sha256,
        }  # fmt: skip
    row = _inserted(connection, values)
    seqs, _ = live.insert_events(connection, row.sid, 0, _events_of(record), last_activity_us)
    connection.execute("UPDATE session SET next_seq = ? WHERE sid = ?", (len(seqs), row.sid))
    live.recount(connection, row.sid)
    if record.graph_state is not None:
        connection.execute("INSERT INTO graph_state(sid, state) VALUES(?, ?)", (row.sid, record.graph_state))
    stored = reading.by_sid(connection, row.sid)
    assert stored is not None  # noqa: S101  inserted in this transaction
    return stored


def _events_of(record: SessionRecord) -> Iterator[NewEvent]:
    """Messages and interactions as one sequence: each kind in its own order, between them by time."""
    client_ids = _client_ids(record.extra)
    turns = [
        NewEvent(MESSAGE, m.created_at_us, m.role, m.content, language=m.language, client_id=client_ids.get(str(i)))
        for i, m in enumerate(record.messages)
    ]
    acts = [
        NewEvent(
            SNAPSHOT if i.action_type == GRAPH_SNAPSHOT else INTERACTION,
            i.created_at_us, i.action_type, i.content, i.node_id, i.feedback, None, i.metadata,
        )
        for i in record.interactions
    ]  # fmt: skip
    yield from merged_by_time(turns, acts)


def merged_by_time(turns: list[NewEvent], acts: list[NewEvent]) -> Iterator[NewEvent]:
    """Merge two lists of events without reordering either; at equal or unknown times the turns go first."""
    at = 0
    for act in acts:
        while at < len(turns) and (turns[at].created_us or 0) <= (act.created_us or 0):
            yield turns[at]
            at += 1
        yield act
    yield from turns[at:]


def _client_ids(extra: str | None) -> dict[str, str]:
    """Client ids of messages by index, where the record's unknown fields hold them; a repeated id counts once."""
    messages = json.loads(extra).get("messages", {}) if extra else {}
    found: dict[str, str] = {}
    for index, fields in messages.items():
        client_id = fields.get("id") if isinstance(fields, dict) else None
        if isinstance(client_id, str) and client_id not in found.values():
            found[index] = client_id
    return found
