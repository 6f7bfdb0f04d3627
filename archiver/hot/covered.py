"""Sessions that a tombstone covers: found by asking about each, gone from rows and index."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from archiver.hot import claim_rows
from archiver.hot.transactions import Transactions

PAGE_SESSIONS: Final = 2000

Covers = Callable[[str, str | None, int], bool]
"""``covers(session_uid, user_id, created_us)``: whether a tombstone says that the session must not exist."""


def drop(database: Transactions, covers: Covers) -> int:
    """Delete every covered session, those in a closed segment at its release, and forget them in the index."""
    with database.reader() as connection:
        rows = connection.execute("SELECT sid, session_uid, user_id, created_us FROM session").fetchall()
    sids = [sid for sid, *about in rows if covers(*about)]
    for start in range(0, len(sids), claim_rows.RELEASE_SESSIONS):
        with database.transaction(durability="power") as connection:
            claim_rows.erase(connection, sids[start : start + claim_rows.RELEASE_SESSIONS])
    return len(sids) + _forget(database, covers)


def _forget(database: Transactions, covers: Covers) -> int:
    after, forgotten = ("", 0, 0), 0
    while True:
        with database.reader() as connection:
            page = connection.execute(
                "SELECT session_id, created_us, revision, session_uid, user_id FROM archived"
                " WHERE (session_id, created_us, revision) > (?, ?, ?)"
                " ORDER BY session_id, created_us, revision LIMIT ?",
                (*after, PAGE_SESSIONS),
            ).fetchall()
        if not page:
            return forgotten
        after = page[-1][:3]
        covered = [row[:2] for row in page if covers(row[3], row[4], row[1])]
        if covered:
            with database.transaction(durability="power") as connection:
                connection.executemany("DELETE FROM archived WHERE session_id = ? AND created_us = ?", covered)
            forgotten += len(set(covered))


def count_in(database: Transactions, segment: int, covers: Covers) -> int:
    """How many sessions of an unreleased segment are covered."""
    with database.reader() as connection:
        rows = connection.execute(
            "SELECT c.session_uid, CASE c.frozen WHEN 1 THEN c.user_id ELSE s.user_id END, s.created_us"
            " FROM claim c JOIN session s USING(sid) WHERE c.segment = ?",
            (segment,),
        ).fetchall()
    return sum(covers(*row) for row in rows)
