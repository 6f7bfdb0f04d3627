"""Reads of live sessions, as functions over an open connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Final, NamedTuple, cast

from archiver.hot.rows import COLUMNS, EVENT_COLUMNS, MESSAGE, Base, SessionRow, Stored, StoredEvent, Unseen
from archiver.hot.schema import MINUTE_US

_LIVE: Final = f"SELECT {COLUMNS} FROM session WHERE session_id = ? AND state = 0"
_BY_SID: Final = f"SELECT {COLUMNS} FROM session WHERE sid = ?"
_EVENTS: Final = f"SELECT {EVENT_COLUMNS} FROM event WHERE sid = ? AND seq >= ? ORDER BY seq"
_as_event = cast("Callable[[Iterable[Any]], StoredEvent]", partial(tuple.__new__, StoredEvent))
"""StoredEvent._make without its Python frame, which costs as much as the row: this is the loop of every load."""
_GRAPH: Final = "SELECT state FROM graph_state WHERE sid = ?"


def live(connection: sqlite3.Connection, session_id: str) -> SessionRow | None:
    """The live session with this id, expired or not."""
    found = connection.execute(_LIVE, (session_id,)).fetchone()
    return None if found is None else SessionRow._make(found)


def by_sid(connection: sqlite3.Connection, sid: int) -> SessionRow | None:
    """A session by its row id."""
    found = connection.execute(_BY_SID, (sid,)).fetchone()
    return None if found is None else SessionRow._make(found)


def events(connection: sqlite3.Connection, sid: int, first_seq: int = 0) -> list[StoredEvent]:
    """The session's events from a sequence number on."""
    return list(map(_as_event, connection.execute(_EVENTS, (sid, first_seq))))


def graph(connection: sqlite3.Connection, sid: int) -> str | None:
    """The session's graph state as JSON text."""
    found = connection.execute(_GRAPH, (sid,)).fetchone()
    return None if found is None else str(found[0])


def whole(connection: sqlite3.Connection, row: SessionRow) -> Stored:
    """A session with all its events."""
    return Stored(row, events(connection, row.sid), graph(connection, row.sid))


def since(connection: sqlite3.Connection, row: SessionRow, base: Base) -> Unseen:
    """What a holder of ``base`` has not seen: new events only, unless stored ones were changed."""
    reloaded = row.rewrites != base.rewrites
    fresh = reloaded or row.next_seq != base.next_seq
    found = events(connection, row.sid, 0 if reloaded else base.next_seq) if fresh else []
    return Unseen(found, graph(connection, row.sid), reloaded)


def messages(connection: sqlite3.Connection, sid: int, *, after: int | None, last: int | None) -> list[StoredEvent]:
    """The messages with an index above ``after``, of these the ``last`` ones; costs what it returns."""
    total = int(connection.execute("SELECT n_messages FROM session WHERE sid = ?", (sid,)).fetchone()[0])
    fresh = total if after is None else max(0, total - after - 1)
    wanted = fresh if last is None else min(last, fresh)
    query = f"SELECT {EVENT_COLUMNS} FROM event WHERE sid = ? AND kind = {MESSAGE} ORDER BY seq DESC LIMIT ?"
    found = list(map(_as_event, connection.execute(query, (sid, wanted))))
    return found[::-1]


class Listed(NamedTuple):
    """A line of the session list."""

    session_id: str
    title: str | None
    updated_us: int
    language: str | None


_LISTED: Final = "session_id, title, coalesce(updated_us, last_activity_us), language"
_NO_LIVE_TWIN: Final = (
    "NOT EXISTS (SELECT 1 FROM session WHERE session_id = archived.session_id AND state = 0)"
    " AND NOT EXISTS (SELECT 1 FROM session WHERE session_id = archived.session_id AND state = 1)"
)
_NO_LATER_REVISION: Final = (
    "NOT EXISTS (SELECT 1 FROM archived later WHERE later.session_id = archived.session_id"
    " AND (later.created_us, later.revision) > (archived.created_us, archived.revision))"
)


def listed(connection: sqlite3.Connection, *, alive_since_us: int, limit: int, user_id: str | None) -> list[Listed]:
    """The most recently active sessions that have not expired, evicted ones included, newest first."""
    found: list[tuple[int, Listed]] = []
    for query, arguments in _list_queries(alive_since_us, limit, user_id):
        found += [(row[0], Listed._make(row[1:])) for row in connection.execute(query, arguments)]
    found.sort(key=lambda item: item[0], reverse=True)
    return [item for _, item in found[:limit]]


def _list_queries(alive_since_us: int, limit: int, user_id: str | None) -> Iterator[tuple[str, tuple[Any, ...]]]:
    # The index is by minute: only the sessions of the last minutes are read and sorted by the exact time.
    columns = f"last_activity_us, {_LISTED}"
    if user_id is not None:
        yield (
            f"SELECT {columns} FROM session WHERE state = 0 AND user_id = ? AND last_activity_us > ? "
            "ORDER BY last_activity_us DESC LIMIT ?",
            (user_id, alive_since_us, limit),
        )
    else:
        for claimed in (0, 1):
            yield (
                f"SELECT {columns} FROM session WHERE state = 0 AND claimed = {claimed} AND minute >= ? "
                "AND last_activity_us > ? ORDER BY minute DESC, last_activity_us DESC LIMIT ?",
                (alive_since_us // MINUTE_US, alive_since_us, limit),
            )
    yield (
        f"SELECT {columns} FROM archived WHERE reason = 'evicted' AND last_activity_us > ? "
        f"AND (?2 IS NULL OR user_id = ?2) AND {_NO_LIVE_TWIN} AND {_NO_LATER_REVISION} "
        "ORDER BY last_activity_us DESC LIMIT ?3",
        (alive_since_us, user_id, limit),
    )


def live_sids(connection: sqlite3.Connection, *, alive_since_us: int, after_sid: int, limit: int) -> list[int]:
    """Row ids of unexpired live sessions above ``after_sid``: the steps of a walk over the whole store."""
    query = "SELECT sid FROM session WHERE sid > ? AND state = 0 AND last_activity_us > ? ORDER BY sid LIMIT ?"
    return [int(row[0]) for row in connection.execute(query, (after_sid, alive_since_us, limit))]


class Totals(NamedTuple):
    """Counts over the unexpired live sessions; interactions and verdicts over all that are live."""

    sessions: int
    interactions: int
    verdicts: int


def totals(connection: sqlite3.Connection, *, alive_since_us: int) -> Totals:
    """Counts kept by triggers, less the expired sessions, which are counted in the index."""
    minute = alive_since_us // MINUTE_US
    live, interactions, verdicts = connection.execute("SELECT sessions, interactions, verdicts FROM totals").fetchone()
    (before,) = connection.execute(
        "SELECT count(*) FROM session WHERE state = 0 AND claimed IN (0, 1) AND minute < ?", (minute,)
    ).fetchone()
    (within,) = connection.execute(
        "SELECT count(*) FROM session WHERE state = 0 AND claimed IN (0, 1) AND minute = ? AND last_activity_us <= ?",
        (minute, alive_since_us),
    ).fetchone()
    return Totals(live - before - within, interactions, verdicts)
