"""Which sessions are due for the archive: closed, expired, or more than the store shall hold."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

from archiver.hot.schema import MINUTE_US

CLAIM_SESSIONS: Final = 200
EVICT_TO: Final = 0.9
EVICT_IDLE_US: Final = 10 * MINUTE_US
KEEP_RESTORED_US: Final = 60 * MINUTE_US

DueReason = Literal["closed", "expired", "evicted"]


@dataclass(frozen=True, slots=True)
class ClaimLimits:
    """What makes a session due, and what makes a segment full."""

    max_age_us: int
    max_sessions: int
    segment_sessions: int
    segment_bytes: int


class Due(NamedTuple):
    """One session to claim, and the activity it was chosen by: a later one saves it."""

    sid: int
    reason: DueReason
    last_activity_us: int
    text_bytes: int


@dataclass(frozen=True, slots=True)
class Backlog:
    """Sessions that are due and in no segment yet.

    Attributes:
        evictable: How many would be evicted now.
        above_limit: Live sessions above max_sessions, whether they may be evicted now or not.
        text_bytes: Of the events of the closed and the expired: whether they fill a segment.
        oldest_due_us: Since when the oldest closed or expired one has been due; None without any.
    """

    closed: int
    expired: int
    evictable: int
    above_limit: int
    text_bytes: int
    oldest_due_us: int | None

    @property
    def sessions(self) -> int:
        """All that a sweep would claim now."""
        return self.closed + self.expired + self.evictable


FREE: Final = "s.claimed = 0 AND s.quarantined IS NULL"
_TEXT_BYTES = (
    "s.text_bytes + length(s.metadata) + coalesce((SELECT length(state) FROM graph_state WHERE sid = s.sid), 0)"
)
# The index has the minute; it finds every session of the bound's minute, and the exact time decides among those.
_WHERE: Final[dict[DueReason, str]] = {
    "closed": f"s.state = 1 AND {FREE}",
    "expired": f"s.state = 0 AND {FREE} AND s.minute <= :before / {MINUTE_US} AND s.last_activity_us <= :before",
    "evicted": f"s.state = 0 AND {FREE} AND s.last_activity_us > :before"
    f" AND s.minute <= :idle / {MINUTE_US} AND s.last_activity_us <= :idle"
    " AND (s.restored_us IS NULL OR s.restored_us <= :restored)",
}


def due_sessions(
    connection: sqlite3.Connection, limits: ClaimLimits, *, now_us: int, room: int, evict: int
) -> list[Due]:
    """The next sessions to claim, at most CLAIM_SESSIONS: closed first, then expired, then up to ``evict`` others."""
    values = _bounds(limits, now_us)
    limit = min(room, CLAIM_SESSIONS)
    found: list[Due] = []
    for reason in _WHERE:
        most = limit - len(found)
        if reason == "evicted":
            most = min(most, evict)
        if most > 0:
            found += _select(connection, reason, values, most)
    return found


def _select(connection: sqlite3.Connection, reason: DueReason, values: dict[str, int], most: int) -> list[Due]:
    order = "" if reason == "closed" else "ORDER BY s.minute"
    named = "coalesce(s.close_reason, 'closed')" if reason == "closed" else f"'{reason}'"
    rows = connection.execute(
        f"SELECT s.sid, {named}, s.last_activity_us, {_TEXT_BYTES} FROM session s"
        f" WHERE {_WHERE[reason]} {order} LIMIT :most",
        {**values, "most": most},
    )
    return [Due(sid, why, activity, int(size)) for sid, why, activity, size in rows]


def _bounds(limits: ClaimLimits, now_us: int) -> dict[str, int]:
    return {
        "before": now_us - limits.max_age_us,
        "idle": now_us - EVICT_IDLE_US,
        "restored": now_us - KEEP_RESTORED_US,
    }


def _above(connection: sqlite3.Connection, limits: ClaimLimits, values: dict[str, int]) -> tuple[int, int]:
    """Live, unexpired sessions above max_sessions, and how many to evict: none up to the limit, else down to 90 %."""
    live = connection.execute(
        f"SELECT count(*) FROM session s WHERE s.state = 0 AND s.claimed = 0 AND s.minute >= :before / {MINUTE_US}"
        " AND s.last_activity_us > :before",
        values,
    ).fetchone()[0]
    above = max(0, live - limits.max_sessions)
    return above, live - int(limits.max_sessions * EVICT_TO) if above else 0


def evictable(connection: sqlite3.Connection, limits: ClaimLimits, *, now_us: int) -> int:
    """How many sessions would be evicted now."""
    values = _bounds(limits, now_us)
    return _evictable(connection, values, _above(connection, limits, values)[1])


def _evictable(connection: sqlite3.Connection, values: dict[str, int], to_evict: int) -> int:
    return min(_count(connection, "evicted", values)[0], to_evict) if to_evict else 0


def backlog(connection: sqlite3.Connection, limits: ClaimLimits, *, now_us: int) -> Backlog:
    """Count what is due; indexed, so cheap enough for every round of a watch."""
    values = _bounds(limits, now_us)
    closed, closed_us, closed_bytes = _count(connection, "closed", values)
    expired, expired_us, expired_bytes = _count(connection, "expired", values)
    above, to_evict = _above(connection, limits, values)
    due = [
        us for us in (closed_us, expired_us + limits.max_age_us if expired_us is not None else None) if us is not None
    ]
    evict = _evictable(connection, values, to_evict)
    return Backlog(closed, expired, evict, above, closed_bytes + expired_bytes, min(due, default=None))


def _count(connection: sqlite3.Connection, reason: DueReason, values: dict[str, int]) -> tuple[int, int | None, int]:
    row = connection.execute(
        "SELECT count(*), min(s.last_activity_us), coalesce(sum(s.text_bytes), 0)"
        f" FROM session s WHERE {_WHERE[reason]}",
        values,
    ).fetchone()
    return int(row[0]), row[1], int(row[2])
