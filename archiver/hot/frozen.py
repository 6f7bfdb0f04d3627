"""Sessions as the archive keeps them: claimed ones as they were when they were claimed, live ones as they are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic_core import from_json

from archiver.errors import CorruptDataError, StorageError
from archiver.events import SessionRecord, SessionRow, canonical_json, content_digest, session_uid
from archiver.hot.schema import MESSAGE
from archiver.hot.transactions import Transactions


def _events(columns: str, kind: str, upto: str) -> str:
    """All messages of a session, or all its interactions, as one JSON text: what the content digest is over.

    SQLite makes it without the interpreter, which a sweep's other threads need. The rows come by the primary
    key, there is no other way to them, so in their order.
    """
    values = f"json_group_array(json_array({columns}))"
    return f"CAST((SELECT {values} FROM event WHERE sid = s.sid AND seq <= {upto} AND kind {kind}) AS BLOB)"


def _select(revision: str, claimed_us: str, upto: str, changeable: str, graph_state: str, tables: str) -> str:
    return f"""
SELECT s.sid, s.session_uid, s.text_bytes, s.session_id, {revision}, {claimed_us}, s.created_us, s.extra, s.reported,
  {upto}, EXISTS (SELECT 1 FROM event e WHERE e.sid = s.sid AND e.client_id IS NOT NULL),
  {changeable}, {graph_state},
  {_events("tag, content, created_us, language", f"= {MESSAGE}", upto)},
  {_events(_INTERACTION, f"<> {MESSAGE}", upto)}
FROM {tables}
"""


_INTERACTION = "created_us, tag, node_id, content, feedback, coalesce(nullif(metadata, ''), '{}')"
_STATE = "(SELECT state FROM graph_state WHERE sid = s.sid)"
_CHANGEABLE = ("updated_us", "user_id", "language", "tz_assumed", "metadata")
# Walks the list as it is, one row at a time: what a group has no room for is not read. Sorting would read it all.
_CLAIMED = _select(
    "c.revision", "g.claimed_us", "c.last_seq",
    ", ".join(f"CASE c.frozen WHEN 1 THEN c.{name} ELSE s.{name} END" for name in _CHANGEABLE),
    f"CASE c.frozen WHEN 1 THEN c.graph_state ELSE {_STATE} END",
    "json_each(?) asked CROSS JOIN claim c ON c.sid = asked.value CROSS JOIN session s ON s.sid = c.sid"
    " CROSS JOIN segment g ON g.segment = c.segment WHERE +c.segment = ?",
)  # fmt: skip
_LIVE = _select(
    "s.archived_revision + (s.on_loan = 0)", "0", "s.next_seq - 1", ", ".join(f"s.{name}" for name in _CHANGEABLE),
    _STATE, "session s WHERE s.session_id = ? AND s.state = 0",
)  # fmt: skip
_CLIENT_IDS = "SELECT kind, client_id FROM event WHERE sid = ? AND seq <= ? ORDER BY seq"
_PROBE = ["".join(map(chr, [*range(0x80), 0xE9, 0x2028, 0xFFFD, 0x1F600])), -(2**63), 2**63 - 1, None]


def live_record(connection: sqlite3.Connection, session_id: str) -> SessionRecord | None:
    """A live session as the archive would keep it, with the revision it would get there."""
    row = connection.execute(_LIVE, (session_id,)).fetchone()
    return None if row is None else _session_row(connection, row).record()


def claimed_rows(
    database: Transactions, segment: int, *, group_sessions: int, group_bytes: int
) -> Iterator[list[SessionRow]]:
    """The sessions of an unreleased segment sorted by session_uid, in groups of so many, or of so much text.

    Every group is one short read transaction. CorruptDataError names a session whose rows cannot be read.
    """
    with database.reader() as connection:
        _require_canonical_json(connection)
        query = "SELECT session_uid, sid FROM claim WHERE segment = ?"
        sids = [sid for _, sid in sorted(connection.execute(query, (segment,)).fetchall())]
    at = 0
    while at < len(sids):
        part = sids[at : at + group_sessions]
        with database.reader() as connection:
            try:
                taken, full = _head(connection.execute(_CLAIMED, (json.dumps(part), segment)), group_bytes)
            except sqlite3.DataError as error:
                raise _too_long(connection, part, error) from error
            rows = [_session_row(connection, row) for row in taken]
        if rows:
            yield rows
        at += part.index(taken[-1][0]) + 1 if full else len(part)


def _head(found: sqlite3.Cursor, group_bytes: int) -> tuple[list[tuple[Any, ...]], bool]:
    """The head whose texts fill a group, for its events are all in memory at once; and whether they do."""
    taken: list[tuple[Any, ...]] = []
    total = 0
    for row in found:
        taken.append(row)
        total += row[2]
        if total >= group_bytes:
            found.close()
            return taken, True
    return taken, False


def _require_canonical_json(connection: sqlite3.Connection) -> None:
    """StorageError if this SQLite does not write JSON as the digests have it: all do, but they must."""
    query = "SELECT CAST(json_array(?, ?, ?, ?) AS BLOB), sqlite_version()"
    text, version = connection.execute(query, _PROBE).fetchone()
    if text != canonical_json(_PROBE).encode():
        raise StorageError(
            f"SQLite {version} writes JSON in another way than the content digest has it", operation="read session",
            hint="use a Python with another SQLite; nothing was archived wrongly",
        )  # fmt: skip


def _session_row(connection: sqlite3.Connection, row: tuple[Any, ...]) -> SessionRow:
    sid, uid, _, session_id, revision, claimed_us, created_us, extra, reported, last_seq, has_client_ids = row[:11]
    updated_us, user_id, language, tz_assumed, metadata, graph_state, messages, interactions = row[11:]
    if has_client_ids:
        extra = _with_client_ids(extra, connection.execute(_CLIENT_IDS, (sid, last_seq)))
    counts = json.loads(reported) if reported else None
    own = (
        session_id, created_us, updated_us, user_id, language, bool(tz_assumed), graph_state, metadata, extra, counts,
    )  # fmt: skip
    try:
        _check_identity(session_id, created_us, uid)
        return SessionRow(
            uid, session_id, revision, user_id, created_us, updated_us, claimed_us, bool(tz_assumed), language,
            from_json(messages), from_json(interactions), graph_state, metadata, extra, counts,
            content_digest(own, messages, interactions),
        )  # fmt: skip
    except (ValueError, OverflowError) as error:
        raise _unreadable(session_id, uid, str(error)) from error


def _check_identity(session_id: str, created_us: int, uid: str) -> None:
    expected = session_uid(session_id, created_us)
    if expected != uid:
        raise _unreadable(session_id, uid, f"is stored under {uid}, its id and creation time make it {expected}")


def _too_long(connection: sqlite3.Connection, sids: list[int], error: sqlite3.DataError) -> CorruptDataError:
    """Events are more than SQLite can hold as one text, a gigabyte: those of the largest session."""
    query = "SELECT session_id, session_uid FROM session WHERE sid IN (SELECT value FROM json_each(?))"
    session_id, uid = connection.execute(f"{query} ORDER BY text_bytes DESC LIMIT 1", (json.dumps(sids),)).fetchone()
    return _unreadable(session_id, uid, f"is too large for a segment: {error}")


def _unreadable(session_id: str, uid: str, why: str) -> CorruptDataError:
    return CorruptDataError(
        why, operation="read session", key=session_id, hint=f"set it aside: sessionlake sweep --quarantine {uid}"
    )


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
