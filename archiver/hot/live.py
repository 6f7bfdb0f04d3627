"""Writes to live sessions, as functions over an open write transaction.

All of them keep the session's counters, activity and version in step with its events, and none
reads a clock: ``now_us`` is the time of the call. Times of one session never run backwards, even
when the host's clock does.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from archiver.errors import InputError, SessionConflictError
from archiver.events import GRAPH_SNAPSHOT, canonical_json
from archiver.hot import reading
from archiver.hot.graphs import lost_nodes
from archiver.hot.rows import INTERACTION, MESSAGE, Base, Changes, NewEvent, SessionRow, Stored
from archiver.hot.schema import MINUTE_US, SNAPSHOT

TITLE_CHARS: Final = 80

_ADVANCE: Final = """
  next_seq = next_seq + 1, version = version + 1, text_bytes = text_bytes + ?2,
  updated_us = max(coalesce(updated_us, 0), ?3), last_activity_us = max(last_activity_us, ?3)"""
_FOUND: Final = """
  WHERE session_id = ?1 AND state = 0 AND on_loan = 0 AND version IS coalesce(?4, version)
  RETURNING sid, next_seq - 1, updated_us, minute, title IS NULL"""
_ADD_MESSAGE: Final = f"UPDATE session SET n_messages = n_messages + 1, {_ADVANCE} {_FOUND}"
_ADD_INTERACTION: Final = f"""
  UPDATE session SET n_interactions = n_interactions + 1, fb_correct = fb_correct + (?5 IS 'correct'),
    fb_incorrect = fb_incorrect + (?5 IS 'incorrect'), fb_partial = fb_partial + (?5 IS 'partial'),
  {_ADVANCE} {_FOUND}"""
_INSERT_EVENT: Final = """
  INSERT INTO event(sid, seq, kind, created_us, tag, content, node_id, feedback, language, metadata, client_id)
  VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""


class Appended(NamedTuple):
    """Where and when an event was stored; ``seq`` None: its client_id was there already."""

    seq: int | None
    created_us: int
    updated_us: int


def append(
    connection: sqlite3.Connection, session_id: str, event: NewEvent, now_us: int, version: int | None = None
) -> Appended | None:
    """Append one event to a live session; None if there is none that can be written to right away.

    With ``version`` also if the session has another one by now. An event whose client_id the
    session already has is not added again.
    """
    if event.client_id is not None and _has_client_id(connection, session_id, event.client_id):
        return Appended(None, now_us, now_us)
    arguments = (session_id, event.text_bytes, now_us, version)
    if event.kind == MESSAGE:
        found = connection.execute(_ADD_MESSAGE, arguments).fetchone()
    else:
        found = connection.execute(_ADD_INTERACTION, (*arguments, event.feedback)).fetchone()
    if found is None:
        return None
    sid, seq, updated_us, minute, untitled = found
    created_us = updated_us if event.created_us is None else event.created_us
    connection.execute(_INSERT_EVENT, (sid, seq, event.kind, created_us, *event[2:]))
    if minute != now_us // MINUTE_US:
        _index_activity(connection, sid)
    if untitled and event.kind == MESSAGE and event.tag == "user":
        _set_title(connection, sid, event.content)
    return Appended(seq, created_us, updated_us)


def _has_client_id(connection: sqlite3.Connection, session_id: str, client_id: str) -> bool:
    query = """SELECT 1 FROM event WHERE client_id = ?2
               AND sid = (SELECT sid FROM session WHERE session_id = ?1 AND state = 0)"""
    return connection.execute(query, (session_id, client_id)).fetchone() is not None


def _index_activity(connection: sqlite3.Connection, sid: int) -> None:
    connection.execute(
        "UPDATE session SET minute = last_activity_us / ?2 WHERE sid = ?1 AND minute <> last_activity_us / ?2",
        (sid, MINUTE_US),
    )


def _set_title(connection: sqlite3.Connection, sid: int, content: str | None) -> None:
    connection.execute("UPDATE session SET title = ? WHERE sid = ?", ((content or "")[:TITLE_CHARS], sid))


class Written(NamedTuple):
    """The outcome of :func:`write`: the session afterwards, without events, and what others had added.

    Attributes:
        theirs: Events this holder had not seen; all events if ``reloaded``.
        seqs: Sequence numbers of ``changes.events``, in order; None for a repeated client_id.
    """

    row: SessionRow
    theirs: Stored
    reloaded: bool
    seqs: list[int | None]
    created_us: list[int]


def write(connection: sqlite3.Connection, row: SessionRow, base: Base, changes: Changes, now_us: int) -> Written:
    """Write one holder's changes over whatever others committed since ``base``.

    Appends, metadata keys, language and graph merge; SessionConflictError if stored events were
    edited and another holder committed since, or the event is archived or about to be.
    """
    theirs, reloaded = reading.since(connection, row, base)
    if changes.rewrites:
        _check_rewrite(connection, row, base, changes)
        _rewrite(connection, row.sid, changes)
    if changes.graph is not None:
        _replace_graph(connection, row.sid, theirs.graph, changes.graph, now_us)
    stamp_us = max(now_us, row.updated_us or 0)
    seqs, created_us = insert_events(connection, row.sid, changes.events, stamp_us)
    _update_row(connection, row, changes, stamp_us, now_us)
    if changes.rewrites:
        recount(connection, row.sid)
    after = reading.by_sid(connection, row.sid)
    if after is None:  # pragma: no cover  the row was read in this transaction
        raise SessionConflictError("vanished during its own write", operation="save", key=row.session_id)
    return Written(after, theirs, reloaded, seqs, created_us)


def _check_rewrite(connection: sqlite3.Connection, row: SessionRow, base: Base, changes: Changes) -> None:
    if row.version != base.version:
        raise SessionConflictError(
            "another holder committed since this object was read, its edits cannot be merged",
            operation="save", key=row.session_id, hint="reload the session and apply the edit again",
        )  # fmt: skip
    last = connection.execute("SELECT coalesce(max(last_seq), -1) FROM claim WHERE sid = ?", (row.sid,)).fetchone()[0]
    if min([*changes.edits, *changes.removed]) <= max(row.archived_seq, last):
        raise SessionConflictError(
            "an edited or removed message is archived already or being archived",
            operation="save", key=row.session_id, hint="archived messages are immutable: add a new message instead",
        )  # fmt: skip


def _rewrite(connection: sqlite3.Connection, sid: int, changes: Changes) -> None:
    for seq, event in changes.edits.items():
        connection.execute(
            """UPDATE event SET created_us = ?, tag = ?, content = ?, node_id = ?, feedback = ?, language = ?,
               metadata = ?, client_id = iif(?, NULL, client_id) WHERE sid = ? AND seq = ?""",
            (*event[1:8], seq in changes.replaced, sid, seq),
        )
    connection.executemany("DELETE FROM event WHERE sid = ? AND seq = ?", [(sid, seq) for seq in changes.removed])
    connection.execute("UPDATE session SET rewrites = rewrites + 1 WHERE sid = ?", (sid,))


def _replace_graph(connection: sqlite3.Connection, sid: int, old: str | None, new: str, now_us: int) -> None:
    """Store the new state; keep the old one as an event if an earlier event names a node that it alone has."""
    if old is not None and _is_referred_to(connection, sid, lost_nodes(old, new or "null")):
        snapshot = NewEvent(SNAPSHOT, now_us, GRAPH_SNAPSHOT, old, metadata="{}")
        insert_events(connection, sid, [snapshot], now_us)
        connection.execute("UPDATE session SET text_bytes = text_bytes + ? WHERE sid = ?", (snapshot.text_bytes, sid))
    if new:
        connection.execute(
            "INSERT INTO graph_state(sid, state) VALUES(?, ?) ON CONFLICT(sid) DO UPDATE SET state = excluded.state",
            (sid, new),
        )
    else:
        connection.execute("DELETE FROM graph_state WHERE sid = ?", (sid,))


def _is_referred_to(connection: sqlite3.Connection, sid: int, nodes: set[str]) -> bool:
    if not nodes:
        return False
    query = "SELECT 1 FROM event WHERE sid = ? AND node_id IN (SELECT value FROM json_each(?)) LIMIT 1"
    return connection.execute(query, (sid, json.dumps(sorted(nodes)))).fetchone() is not None


def insert_events(
    connection: sqlite3.Connection, sid: int, events: Iterable[NewEvent], stamp_us: int
) -> tuple[list[int | None], list[int]]:
    """Insert events at the session's next sequence numbers; returns these and the events' times.

    An event whose client_id the session has already is left out (None). Counters are the caller's.
    """
    (next_seq,) = connection.execute("SELECT next_seq FROM session WHERE sid = ?", (sid,)).fetchone()
    seqs: list[int | None] = []
    times: list[int] = []
    for event in events:
        created_us = stamp_us if event.created_us is None else event.created_us
        times.append(created_us)
        if event.client_id is not None and _is_repeated(connection, sid, event.client_id):
            seqs.append(None)
            continue
        connection.execute(_INSERT_EVENT, (sid, next_seq, event.kind, created_us, *event[2:]))
        seqs.append(next_seq)
        next_seq += 1
    connection.execute("UPDATE session SET next_seq = ? WHERE sid = ?", (next_seq, sid))
    return seqs, times


def _is_repeated(connection: sqlite3.Connection, sid: int, client_id: str) -> bool:
    query = "SELECT 1 FROM event WHERE sid = ? AND client_id = ?"
    return connection.execute(query, (sid, client_id)).fetchone() is not None


def _update_row(connection: sqlite3.Connection, row: SessionRow, changes: Changes, stamp_us: int, now_us: int) -> None:
    values: dict[str, Any] = {"updated_us": stamp_us, "last_activity_us": max(now_us, row.last_activity_us)}
    values["on_loan"] = 0
    values["minute"] = values["last_activity_us"] // MINUTE_US
    if not changes.empty:
        values["version"] = row.version + 1
    if changes.language is not None:
        values["language"] = changes.language
    if changes.tz_assumed:
        values["tz_assumed"] = 1
    user_id = changes.user_id
    if changes.metadata:
        merged, user_id = _merged_metadata(row, changes)
        values["metadata"] = merged
    if user_id is not None:
        values["user_id"] = checked_user(row.user_id, user_id, row.session_id)
    assignments = ", ".join(f"{name} = ?" for name in values)
    connection.execute(f"UPDATE session SET {assignments} WHERE sid = ?", (*values.values(), row.sid))
    _count_events(connection, row.sid, changes.events)


def _merged_metadata(row: SessionRow, changes: Changes) -> tuple[str, str | None]:
    merged = json.loads(row.metadata)
    for key, text in changes.metadata.items():
        if text is None:
            merged.pop(key, None)
        else:
            merged[key] = json.loads(text)
    named = merged.get("user_id")
    return canonical_json(merged), changes.user_id or (named if isinstance(named, str) and named else None)


def checked_user(known: str | None, given: str, session_id: str) -> str:
    """The user of a session, which never changes once it is known."""
    if known is not None and known != given:
        raise InputError(
            f"belongs to user {known!r:.60}, not {given!r:.60}", operation="save", key=session_id,
            hint="a session has one user; start another session",
        )  # fmt: skip
    return given


def _count_events(connection: sqlite3.Connection, sid: int, events: list[NewEvent]) -> None:
    if not events:
        return
    verdicts = [event.feedback for event in events]
    messages = [event for event in events if event.kind == MESSAGE]
    connection.execute(
        "UPDATE session SET n_messages = n_messages + ?, text_bytes = text_bytes + ? WHERE sid = ?",
        (len(messages), sum(event.text_bytes for event in events), sid),
    )
    if len(messages) < len(events):
        connection.execute(
            """UPDATE session SET n_interactions = n_interactions + ?, fb_correct = fb_correct + ?,
               fb_incorrect = fb_incorrect + ?, fb_partial = fb_partial + ? WHERE sid = ?""",
            (len(events) - len(messages), *(verdicts.count(v) for v in ("correct", "incorrect", "partial")), sid),
        )
    first = next((event for event in messages if event.tag == "user"), None)
    if first is not None:
        connection.execute(
            "UPDATE session SET title = ? WHERE sid = ? AND title IS NULL", ((first.content or "")[:TITLE_CHARS], sid)
        )


def recount(connection: sqlite3.Connection, sid: int) -> None:
    """Set every counter from the events themselves, after stored ones were edited or removed."""
    connection.execute(
        f"""UPDATE session SET (n_messages, n_interactions, fb_correct, fb_incorrect, fb_partial, text_bytes) = (
              SELECT coalesce(sum(kind = {MESSAGE}), 0), coalesce(sum(kind = {INTERACTION}), 0),
                coalesce(sum(feedback = 'correct'), 0), coalesce(sum(feedback = 'incorrect'), 0),
                coalesce(sum(feedback = 'partial'), 0),
                coalesce(sum(length(coalesce(content, '')) + length(coalesce(metadata, ''))), 0)
              FROM event WHERE sid = ?1),
            title = (SELECT substr(coalesce(content, ''), 1, {TITLE_CHARS}) FROM event
                     WHERE sid = ?1 AND kind = {MESSAGE} AND tag = 'user' ORDER BY seq LIMIT 1)
            WHERE sid = ?1""",
        (sid,),
    )
