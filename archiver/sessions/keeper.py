"""Live objects and their rows kept in step: every read and write of a manager goes through here."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import tzinfo
from typing import Literal

from archiver.errors import SessionConflictError, UnknownSessionError
from archiver.hot import HotStore, lifecycle, live, reading
from archiver.hot.live import Written
from archiver.hot.rows import Base, Changes, NewEvent, SessionRow, Stored
from archiver.hot.schema import LIVE
from archiver.sessions.archive_side import ArchiveSide
from archiver.sessions.registry import Registry
from archiver.sessions.tracking import Tracked
from archiver.settings import Durability


class Keeper:
    """The live sessions of one manager."""

    def __init__(self, hot: HotStore, archive: ArchiveSide, *, max_age_us: int, assume_tz: tzinfo) -> None:
        self._hot = hot
        self._archive = archive
        self._max_age_us = max_age_us
        self._assume_tz = assume_tz
        self._objects = Registry()

    # ---------------------------------------------------------------- reading

    def find(self, session_id: str) -> Tracked | None:
        """The object of a live session, expired or not, refreshed; None if there is no live row."""
        tracked = self._objects.get(session_id)
        if tracked is None:
            return self._load(session_id)
        with tracked.lock:
            with self._hot.reader() as connection:
                row = reading.live(connection, session_id)
                if row is None:
                    return None
                if row.session_uid != tracked.session_uid:
                    theirs, reloaded = reading.whole(connection, row), True
                elif row.sid != tracked.sid:
                    tracked.reattach(reading.whole(connection, row))
                    return tracked
                elif row.version == tracked.base.version:
                    tracked.last_activity_us = row.last_activity_us
                    return tracked
                else:
                    theirs, reloaded = reading.since(connection, row, tracked.base)
            if row.session_uid == tracked.session_uid:
                tracked.refresh(theirs, reloaded=reloaded)
                return tracked
        return self._objects.put(Tracked(theirs, self._assume_tz))

    def _load(self, session_id: str) -> Tracked | None:
        with self._hot.reader() as connection:
            row = reading.live(connection, session_id)
            stored = reading.whole(connection, row) if row else None
        return None if stored is None else self._objects.put(Tracked(stored, self._assume_tz))

    def expired(self, last_activity_us: int, now_us: int) -> bool:
        """Whether a session with this last activity counts as expired."""
        return now_us - last_activity_us >= self._max_age_us

    def bring_back(self, session_id: str, now_us: int, *, even_expired: bool) -> Tracked | None:
        """Restore the latest archived conversation if it was evicted and has not expired, or if told to."""
        with self._hot.reader() as connection:
            where = lifecycle.whereabouts(connection, session_id)
        if not even_expired:
            comes_back = where is not None and where.reason == "evicted" and not where.ended
            if where is None or not comes_back or self.expired(where.last_activity_us, now_us):
                return None
        if not self._archive.restore(session_id, now_us):
            return None
        return self.find(session_id)

    # ---------------------------------------------------------------- writing

    def append(self, session_id: str, event: NewEvent, now_us: int, durability: Durability | None) -> None:
        """Add one event: two statements, unless an object of the session has changes of its own or it is archived."""
        if self._objects.get(session_id) is None and self._hot.run(
            lambda connection: live.append(connection, session_id, event, now_us), durability=durability
        ):
            return
        self.change(session_id, Changes(events=[event]), now_us, durability)

    def change(self, session_id: str, extra: Changes, now_us: int, durability: Durability | None) -> None:
        """Store what the session's object has pending and then ``extra``, in one transaction.

        An expired session lives again by it; an archived one is restored first. UnknownSessionError
        for an id never seen or closed.
        """
        with contextlib.ExitStack() as stack:
            tracked = self._objects.get(session_id)
            if tracked is not None:
                stack.enter_context(tracked.lock)
            if not self._write(session_id, tracked, extra, now_us, take_on=False):
                self._revive(session_id, now_us)
                tracked = self._follow(session_id, tracked)
                if not self._write(session_id, tracked, extra, now_us, take_on=True):
                    raise unknown_session(session_id)
        self._hot.settle(durability)

    def _write(self, session_id: str, tracked: Tracked | None, extra: Changes, now_us: int, *, take_on: bool) -> bool:
        """One try; False if the session has no live row, or one on loan that may not be written yet."""
        if tracked is None:
            return self._hot.run(
                lambda connection: _write_row(connection, session_id, None, extra, now_us, take_on) is not None,
                durability="process",
            )
        pending = tracked.collect()
        both = pending.changes.followed_by(extra)
        try:
            written = self._hot.run(
                lambda connection: _write_row(connection, session_id, tracked, both, now_us, take_on),
                durability="process",
            )
        except BaseException:
            tracked.uncollect(pending)
            raise
        if written is None:
            tracked.uncollect(pending)
            return False
        tracked.saved(pending, extra, written)
        return True

    def _revive(self, session_id: str, now_us: int) -> None:
        """Make sure that the id has a live row which this host may write."""
        with self._hot.reader() as connection:
            row = reading.live(connection, session_id)
            where = None if row else lifecycle.whereabouts(connection, session_id)
        if row is None:
            if where is None or where.ended or not self._archive.restore(session_id, now_us):
                raise unknown_session(session_id)
            with self._hot.reader() as connection:
                row = reading.live(connection, session_id)
        if row is not None and row.on_loan:
            self._archive.take_on(row.session_uid, row.archived_revision)

    def _follow(self, session_id: str, tracked: Tracked | None) -> Tracked | None:
        """The object after its rows were replaced: attached to the new ones, or dropped with its conversation."""
        if tracked is None:
            return None
        with self._hot.reader() as connection:
            row = reading.live(connection, session_id)
            stored = reading.whole(connection, row) if row else None
        if stored is not None and stored.row.session_uid == tracked.session_uid:
            if stored.row.sid != tracked.sid:
                tracked.reattach(stored)
            return tracked
        if tracked.has_changes():
            raise SessionConflictError(
                "this conversation has ended while its object had unsaved changes", operation="save", key=session_id,
                hint="get the session again; the object that is held still has the changes",
            )  # fmt: skip
        self._objects.drop(tracked)
        return None

    # ---------------------------------------------------------------- beginning and ending

    def start(self, session_id: str, user_id: str | None, now_us: int, *, keep_live: bool) -> Tracked | None:
        """Begin a conversation and close the one that is live; with ``keep_live`` only one that has expired.

        Pending changes of the old object are stored first, in the same transaction. None: the id
        was evicted meanwhile and must be brought back instead.
        """
        with self._pending(session_id) as (tracked, changes):
            stored = self._hot.run(
                lambda connection: self._start(connection, session_id, user_id, now_us, keep_live, tracked, changes),
                durability="process",
            )
        if stored is None:
            return None
        return self._objects.put(Tracked(stored, self._assume_tz))

    def _start(
        self, connection: sqlite3.Connection, session_id: str, user_id: str | None, now_us: int,
        keep_live: bool, tracked: Tracked | None, changes: Changes,
    ) -> Stored | None:  # fmt: skip
        row = reading.live(connection, session_id)
        if row is not None:
            expired = self.expired(row.last_activity_us, now_us)
            if keep_live and not expired:
                return reading.whole(connection, row)
            _end(connection, row, tracked, changes, now_us, reason="expired" if expired else "closed")
        elif keep_live:
            where = lifecycle.whereabouts(connection, session_id)
            evicted = where is not None and where.reason == "evicted"
            if where is not None and evicted and not self.expired(where.last_activity_us, now_us):
                return None
        fresh = lifecycle.start(connection, session_id, now_us, user_id=user_id, language="en")
        return Stored(fresh, [], None)

    def end(self, session_id: str, now_us: int, *, archive: bool) -> int:
        """Close the live session, or delete its rows; returns how many archived revisions of the id remain."""
        with self._pending(session_id) as (tracked, changes):

            def work(connection: sqlite3.Connection) -> int:
                row = reading.live(connection, session_id)
                if row is not None and archive:
                    _end(connection, row, tracked, changes, now_us, reason="closed")
                elif row is not None:
                    lifecycle.delete(connection, row)
                return lifecycle.forget_archived(connection, session_id)

            earlier = self._hot.run(work, durability="process")
            if tracked is not None:
                self._objects.drop(tracked)
        return earlier

    @contextlib.contextmanager
    def _pending(self, session_id: str) -> Iterator[tuple[Tracked | None, Changes]]:
        tracked = self._objects.get(session_id)
        if tracked is None:
            yield None, Changes()
            return
        with tracked.lock:
            pending = tracked.collect()
            try:
                yield tracked, pending.changes
            finally:
                tracked.uncollect(pending)


def _write_row(
    connection: sqlite3.Connection,
    session_id: str,
    tracked: Tracked | None,
    changes: Changes,
    now_us: int,
    take_on: bool,
) -> Written | None:
    if tracked is None:
        row = reading.live(connection, session_id)
        base = None if row is None else Base(row.next_seq, row.version, row.rewrites)
    else:
        row, base = reading.by_sid(connection, tracked.sid), tracked.base
    if row is None or base is None or row.state != LIVE or (row.on_loan and not take_on):
        return None
    return live.write(connection, row, base, changes, now_us)


def _end(
    connection: sqlite3.Connection,
    row: SessionRow,
    tracked: Tracked | None,
    changes: Changes,
    now_us: int,
    *,
    reason: Literal["closed", "expired"],
) -> None:
    if tracked is not None and tracked.sid == row.sid and not changes.empty and not row.on_loan:
        live.write(connection, row, tracked.base, changes, now_us)
    lifecycle.close(connection, row, reason)


def unknown_session(session_id: str) -> UnknownSessionError:
    """The error for an id never seen or closed."""
    return UnknownSessionError(
        "no such session: never seen here, or closed", operation="use session", key=session_id,
        hint="create it with get_or_create",
    )  # fmt: skip
