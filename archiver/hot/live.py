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
from archiver.events import GRAPH_SNAPSHOT, VERDICTS, canonical_json
from archiver.hot import reading
from archiver.hot.graphs import lost_nodes
from archiver.hot.rows import COLUMNS, INTERACTION, MESSAGE, Base, Changes, NewEvent, SessionRow, Unseen
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
    """The outcome of :func:`write`.

    Attributes:
        row: The session afterwards.
        theirs: What others had committed since ``base``; None if nobody had.
        seqs: Sequence numbers of ``changes.events``, in order; None for a repeated client_id.
        created_us: Times of the same.
    """

    row: SessionRow
    theirs: Unseen | None
    seqs: list[int | None]
    created_us: list[int]


def write(connection: sqlite3.Connection, row: SessionRow, base: Base, changes: Changes, now_us: int) -> Written:
    """Write one holder's changes over whatever others committed since ``base``.

    Appends, metadata keys, language and graph merge; SessionConflictError if stored events were
    edited and another holder committed since, or the event is archived or about to be.
    """
    theirs = None if row.version == base.version else reading.since(connection, row, base)
    if changes.rewrites:
        _check_rewrite(connection, row, base, changes)
        _rewrite(connection, row.sid, changes)
    stamp_us = max(now_us, row.updated_us or 0)
    snapshots = [] if changes.graph is None else _replace_graph(connection, row.sid, changes.graph, stamp_us)
    insert_events(connection, row.sid, row.next_seq, snapshots, stamp_us)
    first_seq = row.next_seq + len(snapshots)
    seqs, created_us = insert_events(connection, row.sid, first_seq, changes.events, stamp_us)
    stored = [event for event, seq in zip(changes.events, seqs, strict=True) if seq is not None]
    after = _update_row(connection, row, changes, [*snapshots, *stored], stamp_us, now_us)
    if changes.rewrites:
        recount(connection, row.sid)
        after = reading.by_sid(connection, row.sid) or after
    return Written(after, theirs, seqs, created_us)


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
    if changes.removed or changes.replaced:
        _move_unknown_fields(connection, sid, changes)
    connection.executemany("DELETE FROM event WHERE sid = ? AND seq = ?", [(sid, seq) for seq in changes.removed])


def _move_unknown_fields(connection: sqlite3.Connection, sid: int, changes: Changes) -> None:
    """Let the unknown fields of single events, which ``extra`` keeps by position, follow their events."""
    (extra,) = connection.execute("SELECT extra FROM session WHERE sid = ?", (sid,)).fetchone()
    if extra is None:
        return
    known = json.loads(extra)
    gone = {*changes.removed, *changes.replaced}
    for group, kinds in (("messages", (MESSAGE, MESSAGE)), ("interactions", (INTERACTION, SNAPSHOT))):
        by_position = known.get(group)
        if not isinstance(by_position, dict):
            continue
        query = "SELECT seq FROM event WHERE sid = ? AND kind IN (?, ?) ORDER BY seq"
        seqs = [seq for (seq,) in connection.execute(query, (sid, *kinds))]
        before = {str(position): seq for position, seq in enumerate(seqs)}
        kept = [seq for seq in seqs if seq not in set(changes.removed)]
        after = {seq: str(position) for position, seq in enumerate(kept)}
        known[group] = {
            after[before[at]]: fields for at, fields in by_position.items() if at in before and before[at] not in gone
        }
    connection.execute("UPDATE session SET extra = ? WHERE sid = ?", (canonical_json(known), sid))


def _replace_graph(connection: sqlite3.Connection, sid: int, new: str, now_us: int) -> list[NewEvent]:
    """Store the new state; the old one as an event to be kept if an earlier event names a node that it alone has."""
    old = reading.graph(connection, sid)
    snapshots = []
    if old is not None and _is_referred_to(connection, sid, lost_nodes(old, new or "null")):
        snapshots.append(NewEvent(SNAPSHOT, now_us, GRAPH_SNAPSHOT, old, metadata="{}"))
    if new:
        connection.execute(
            "INSERT INTO graph_state(sid, state) VALUES(?, ?) ON CONFLICT(sid) DO UPDATE SET state = excluded.state",
            (sid, new),
        )
    else:
        connection.execute("DELETE FROM graph_state WHERE sid = ?", (sid,))
    return snapshots


def _is_referred_to(connection: sqlite3.Connection, sid: int, nodes: set[str]) -> bool:
    if not nodes:
        return False
    query = "SELECT 1 FROM event WHERE sid = ? AND node_id IN (SELECT value FROM json_each(?)) LIMIT 1"
    return connection.execute(query, (sid, json.dumps(sorted(nodes)))).fetchone() is not None


def insert_events(
    connection: sqlite3.Connection, sid: int, first_seq: int, events: Iterable[NewEvent], stamp_us: int
) -> tuple[list[int | None], list[int]]:
    """Insert events from a sequence number on; returns their numbers and times.

    An event whose client_id the session has already is left out (None). The session's row is the caller's.
    """
    seqs: list[int | None] = []
    times: list[int] = []
    next_seq = first_seq
    for event in events:
        created_us = stamp_us if event.created_us is None else event.created_us
        times.append(created_us)
        if event.client_id is not None and _is_repeated(connection, sid, event.client_id):
            seqs.append(None)
            continue
        connection.execute(_INSERT_EVENT, (sid, next_seq, event.kind, created_us, *event[2:]))
        seqs.append(next_seq)
        next_seq += 1
    return seqs, times


def _is_repeated(connection: sqlite3.Connection, sid: int, client_id: str) -> bool:
    query = "SELECT 1 FROM event WHERE sid = ? AND client_id = ?"
    return connection.execute(query, (sid, client_id)).fetchone() is not None


def _update_row(
    connection: sqlite3.Connection,
    row: SessionRow,
    changes: Changes,
    stored: list[NewEvent],
    stamp_us: int,
    now_us: int,
) -> SessionRow:
    """Bring the session's row in step with what was written, in one statement."""
    active_us = max(now_us, row.last_activity_us)
    sets: dict[str, Any] = {
        "updated_us = ?": stamp_us,
        "last_activity_us = ?": active_us,
        "next_seq = next_seq + ?": len(stored),
        "version = version + ?": int(not changes.empty),
    }
    sets |= _counters(stored)
    if active_us // MINUTE_US != row.last_activity_us // MINUTE_US:
        sets["minute = ?"] = active_us // MINUTE_US
    if row.on_loan:
        sets["on_loan = ?"] = 0
    if changes.rewrites:
        sets["rewrites = rewrites + ?"] = 1
    if changes.language is not None:
        sets["language = ?"] = changes.language
    if changes.tz_assumed:
        sets["tz_assumed = ?"] = 1
    user_id = changes.user_id
    if changes.metadata:
        sets["metadata = ?"], user_id = _merged_metadata(row, changes)
    if user_id is not None:
        sets["user_id = ?"] = checked_user(row.user_id, user_id, row.session_id)
    query = f"UPDATE session SET {', '.join(sets)} WHERE sid = ? RETURNING {COLUMNS}"
    return SessionRow._make(connection.execute(query, (*sets.values(), row.sid)).fetchone())


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


def _counters(stored: list[NewEvent]) -> dict[str, int | str]:
    """What new events add to the counters. Only interactions touch columns that an index covers."""
    if not stored:
        return {}
    messages = [event for event in stored if event.kind == MESSAGE]
    sets: dict[str, int | str] = {
        "n_messages = n_messages + ?": len(messages),
        "text_bytes = text_bytes + ?": sum(event.text_bytes for event in stored),
    }
    n_interactions = sum(event.kind == INTERACTION for event in stored)
    if n_interactions:
        verdicts = [event.feedback for event in stored]
        sets["n_interactions = n_interactions + ?"] = n_interactions
        sets |= {f"fb_{v} = fb_{v} + ?": verdicts.count(v) for v in VERDICTS}
    asked = next((event for event in messages if event.tag == "user"), None)
    if asked is not None:
        sets["title = coalesce(title, ?)"] = (asked.content or "")[:TITLE_CHARS]
    return sets


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
