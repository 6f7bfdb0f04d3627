"""Sessions as records: claimed ones exactly as they were when they were claimed, live ones as they are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from typing import Any, Final

from archiver.errors import CorruptDataError
from archiver.events import FeedbackCounts, Interaction, Message, SessionRecord
from archiver.hot.schema import MESSAGE
from archiver.hot.transactions import Transactions

GROUP_SESSIONS: Final = 128  # a segment's row group; not imported from there: that brings Arrow,
GROUP_BYTES: Final = 8 * 1024**2  # a quarter of a second at start-up, which no chat handler needs
_SESSIONS = """
SELECT c.sid, c.session_uid, s.text_bytes, s.session_id, s.created_us, s.extra, s.reported, c.revision, g.claimed_us,
  CASE c.frozen WHEN 1 THEN c.updated_us ELSE s.updated_us END,
  CASE c.frozen WHEN 1 THEN c.user_id ELSE s.user_id END,
  CASE c.frozen WHEN 1 THEN c.language ELSE s.language END,
  CASE c.frozen WHEN 1 THEN c.tz_assumed ELSE s.tz_assumed END,
  CASE c.frozen WHEN 1 THEN c.metadata ELSE s.metadata END,
  CASE c.frozen WHEN 1 THEN c.graph_state ELSE (SELECT state FROM graph_state WHERE sid = c.sid) END
FROM claim c JOIN segment g ON g.segment = c.segment JOIN session s ON s.sid = c.sid
WHERE c.segment = ? AND c.session_uid > ? ORDER BY c.session_uid LIMIT ?
"""
_EVENTS = """
SELECT e.sid, e.kind, e.created_us, e.tag, e.content, e.language, e.node_id, e.feedback, e.metadata, e.client_id
FROM claim c JOIN event e ON e.sid = c.sid AND e.seq <= c.last_seq
WHERE c.segment = ? AND c.session_uid > ? AND c.session_uid <= ? ORDER BY c.session_uid, e.seq
"""
_LIVE = """
SELECT sid, session_uid, text_bytes, session_id, created_us, extra, reported, archived_revision + (on_loan = 0), 0,
  updated_us, user_id, language, tz_assumed, metadata, (SELECT state FROM graph_state WHERE sid = session.sid)
FROM session WHERE session_id = ? AND state = 0
"""
_EVENTS_OF = """
SELECT sid, kind, created_us, tag, content, language, node_id, feedback, metadata, client_id
FROM event WHERE sid = ? ORDER BY seq
"""


def live_record(connection: sqlite3.Connection, session_id: str) -> SessionRecord | None:
    """A live session as the archive would keep it, with the revision it would get there."""
    row = connection.execute(_LIVE, (session_id,)).fetchone()
    return None if row is None else _records([row], connection.execute(_EVENTS_OF, (row[0],)).fetchall())[0]


def claimed_records(database: Transactions, segment: int) -> Iterator[list[SessionRecord]]:
    """The sessions of an unreleased segment sorted by session_uid, a row group at a time.

    Every group is one short read transaction. CorruptDataError names a session whose rows cannot be read.
    """
    after = ""
    while True:
        with database.reader() as connection:
            found = connection.execute(_SESSIONS, (segment, after, GROUP_SESSIONS)).fetchall()
            if not found:
                return
            sessions = _within_a_group(found)
            last = sessions[-1][1]
            events = connection.execute(_EVENTS, (segment, after, last)).fetchall()
        yield _records(sessions, events)
        after = last


def _within_a_group(sessions: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """The head whose texts fill a row group: its events are all in memory at once."""
    total = 0
    for count, row in enumerate(sessions, start=1):
        total += row[2]
        if total >= GROUP_BYTES:
            return sessions[:count]
    return sessions


def _records(sessions: list[tuple[Any, ...]], events: list[tuple[Any, ...]]) -> list[SessionRecord]:
    said: dict[int, list[Message]] = {row[0]: [] for row in sessions}
    done: dict[int, list[Interaction]] = {row[0]: [] for row in sessions}
    client_ids: dict[int, dict[str, dict[str, str]]] = {}
    for sid, kind, created_us, tag, content, language, node_id, feedback, metadata, client_id in events:
        if kind == MESSAGE:
            group, index = "messages", len(said[sid])
            said[sid].append(Message(tag, content, created_us, language))
        else:
            group, index = "interactions", len(done[sid])
            done[sid].append(Interaction(created_us, tag, node_id, content, feedback, metadata or "{}"))
        if client_id is not None:
            client_ids.setdefault(sid, {}).setdefault(group, {})[str(index)] = client_id
    return [_record(row, said[row[0]], done[row[0]], client_ids.get(row[0], {})) for row in sessions]


def _record(
    row: tuple[Any, ...],
    messages: list[Message],
    interactions: list[Interaction],
    client_ids: dict[str, dict[str, str]],
) -> SessionRecord:
    (_, uid, _, session_id, created_us, extra, reported, revision, claimed_us, *frozen) = row
    updated_us, user_id, language, tz_assumed, metadata, graph_state = frozen
    record = SessionRecord(
        session_id=session_id,
        created_at_us=created_us,
        updated_at_us=updated_us,
        user_id=user_id,
        language=language,
        tz_assumed=bool(tz_assumed),
        messages=tuple(messages),
        interactions=tuple(interactions),
        graph_state=graph_state,
        metadata=metadata,
        extra=_with_client_ids(extra, client_ids),
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


def _with_client_ids(extra: str | None, client_ids: dict[str, dict[str, str]]) -> str | None:
    """The unknown fields, and the client ids of events where the format keeps them: beside those."""
    if not client_ids:
        return extra
    fields: dict[str, Any] = json.loads(extra) if extra else {}
    for group, ids in client_ids.items():
        known = fields.setdefault(group, {})
        for index, client_id in ids.items():
            known.setdefault(index, {}).setdefault("id", client_id)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
