"""Sessions as records: claimed ones exactly as they were when they were claimed, live ones as they are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from archiver.errors import CorruptDataError
from archiver.events import FeedbackCounts, Interaction, Message, SessionRecord
from archiver.hot.schema import MESSAGE
from archiver.hot.transactions import Transactions

_SESSIONS = """
SELECT c.sid, c.session_uid, s.text_bytes, s.session_id, s.created_us, s.extra, s.reported, c.revision, g.claimed_us,
  c.last_seq, EXISTS (SELECT 1 FROM event e WHERE e.sid = c.sid AND e.client_id IS NOT NULL),
  CASE c.frozen WHEN 1 THEN c.updated_us ELSE s.updated_us END,
  CASE c.frozen WHEN 1 THEN c.user_id ELSE s.user_id END,
  CASE c.frozen WHEN 1 THEN c.language ELSE s.language END,
  CASE c.frozen WHEN 1 THEN c.tz_assumed ELSE s.tz_assumed END,
  CASE c.frozen WHEN 1 THEN c.metadata ELSE s.metadata END,
  CASE c.frozen WHEN 1 THEN c.graph_state ELSE (SELECT state FROM graph_state WHERE sid = c.sid) END
FROM claim c JOIN segment g ON g.segment = c.segment JOIN session s ON s.sid = c.sid
WHERE c.sid IN (SELECT value FROM json_each(?)) AND +c.segment = ? ORDER BY c.session_uid
"""
_LIVE = """
SELECT sid, session_uid, text_bytes, session_id, created_us, extra, reported, archived_revision + (on_loan = 0), 0,
  next_seq - 1, EXISTS (SELECT 1 FROM event e WHERE e.sid = session.sid AND e.client_id IS NOT NULL),
  updated_us, user_id, language, tz_assumed, metadata, (SELECT state FROM graph_state WHERE sid = session.sid)
FROM session WHERE session_id = ? AND state = 0
"""
# The columns of Message and of Interaction: SQLite hands out the values as they are kept, and no Python runs per event.
_MESSAGES = f"""
SELECT tag, content, created_us, language FROM event WHERE sid = ? AND seq <= ? AND kind = {MESSAGE} ORDER BY seq
"""
_INTERACTIONS = f"""
SELECT created_us, tag, node_id, content, feedback, coalesce(nullif(metadata, ''), '{{}}')
FROM event WHERE sid = ? AND seq <= ? AND kind <> {MESSAGE} ORDER BY seq
"""
_message = partial(tuple.__new__, Message)
_interaction = partial(tuple.__new__, Interaction)
_CLIENT_IDS = "SELECT kind, client_id FROM event WHERE sid = ? AND seq <= ? ORDER BY seq"


def live_record(connection: sqlite3.Connection, session_id: str) -> SessionRecord | None:
    """A live session as the archive would keep it, with the revision it would get there."""
    row = connection.execute(_LIVE, (session_id,)).fetchone()
    return None if row is None else _record(connection, row)


def claimed_records(
    database: Transactions, segment: int, *, group_sessions: int, group_bytes: int
) -> Iterator[list[SessionRecord]]:
    """The sessions of an unreleased segment sorted by session_uid, in groups of so many, or of so much text.

    Every group is one short read transaction. CorruptDataError names a session whose rows cannot be read.
    """
    with database.reader() as connection:
        query = "SELECT session_uid, sid FROM claim WHERE segment = ?"
        claimed = sorted(connection.execute(query, (segment,)).fetchall())
    at = 0
    while at < len(claimed):
        part = claimed[at : at + group_sessions]
        with database.reader() as connection:
            found = connection.execute(_SESSIONS, (json.dumps([sid for _, sid in part]), segment)).fetchall()
            sessions = _head(found, group_bytes)
            records = [_record(connection, row) for row in sessions]
        if records:
            yield records
        left = sum(uid > sessions[-1][1] for uid, _ in part) if len(sessions) < len(found) else 0
        at += len(part) - left


def _head(sessions: list[tuple[Any, ...]], group_bytes: int) -> list[tuple[Any, ...]]:
    """The head whose texts fill a group: its events are all in memory at once."""
    total = 0
    for count, row in enumerate(sessions, start=1):
        total += row[2]
        if total >= group_bytes:
            return sessions[:count]
    return sessions


def _record(connection: sqlite3.Connection, row: tuple[Any, ...]) -> SessionRecord:
    sid, uid, _, session_id, created_us, extra, reported, revision, claimed_us, last_seq, has_client_ids = row[:11]
    updated_us, user_id, language, tz_assumed, metadata, graph_state = row[11:]
    upto = (sid, last_seq)
    record = SessionRecord(
        session_id=session_id,
        created_at_us=created_us,
        updated_at_us=updated_us,
        user_id=user_id,
        language=language,
        tz_assumed=bool(tz_assumed),
        messages=tuple(map(_message, connection.execute(_MESSAGES, upto))),
        interactions=tuple(map(_interaction, connection.execute(_INTERACTIONS, upto))),
        graph_state=graph_state,
        metadata=metadata,
        extra=_with_client_ids(extra, connection.execute(_CLIENT_IDS, upto)) if has_client_ids else extra,
        reported=FeedbackCounts(*json.loads(reported)) if reported else None,
        revision=revision,
        archived_at_us=claimed_us,
    )
    if record.session_uid != uid:
        raise CorruptDataError(
            f"is stored under {uid}, its id and creation time make it {record.session_uid}",
            operation="read session", key=session_id, hint=f"set it aside: sessionlake sweep --quarantine {uid}",
        )  # fmt: skip
    return record


def _with_client_ids(extra: str | None, events: Iterable[tuple[int, str | None]]) -> str | None:
    """The unknown fields, and the client ids of events where the format keeps them: beside those."""
    fields: dict[str, Any] = json.loads(extra) if extra else {}
    counts = {"messages": 0, "interactions": 0}
    found = False
    for kind, client_id in events:
        group = "messages" if kind == MESSAGE else "interactions"
        if client_id is not None:
            fields.setdefault(group, {}).setdefault(str(counts[group]), {}).setdefault("id", client_id)
            found = True
        counts[group] += 1
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")) if found else extra
