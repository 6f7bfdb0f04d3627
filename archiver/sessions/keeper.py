"""Live objects and their rows kept in step: every read and write of a manager goes through here."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import tzinfo
from typing import Literal, NamedTuple

from archiver.errors import SessionConflictError, UnknownSessionError
from archiver.hot import Connection, HotStore, lifecycle, live, reading
from archiver.hot.live import Appended, Written
from archiver.hot.rows import Base, Changes, NewEvent, SessionRow, Stored
from archiver.hot.schema import LIVE
from archiver.sessions.archive_side import ArchiveSide
from archiver.sessions.model import Session
from archiver.sessions.registry import Registry
from archiver.sessions.tracking import Tracked
from archiver.settings import Durability


class Found(NamedTuple):
    """A live object and when its session was last active."""

    session: Session
    last_activity_us: int


class Keeper:
    """The live sessions of one manager."""

    def __init__(self, hot: HotStore, archive: ArchiveSide, *, max_age_us: int, assume_tz: tzinfo) -> None:
        self._hot = hot
        self._archive = archive
        self._max_age_us = max_age_us
        self._assume_tz = assume_tz
        self._objects = Registry()

    # ---------------------------------------------------------------- reading

    def find(self, session_id: str) -> Found | None:
        """The object of a live session, expired or not, refreshed; None if there is no live row.

        An object whose changes met a conflict and are still there is left to its holder: a fresh one
        takes its place, so that the session can be used again.
        """
        with self._objects.locked(session_id) as tracked:
            if tracked is not None and tracked.conflicted and tracked.has_changes():
                self._let_go(tracked)
            elif tracked is not None:
                with self._hot.reader() as connection:
                    row = reading.live(connection, session_id)
                    if row is None:
                        return None
                    if row.session_uid == tracked.session_uid:
                        _refresh(tracked, connection, row)
                        return Found(tracked.session, row.last_activity_us)
        with self._hot.reader() as connection:
            row = reading.live(connection, session_id)
            stored = reading.whole(connection, row) if row else None
        if row is None or stored is None:
            return None
        return Found(self._objects.keep(Tracked(stored, self._assume_tz)), row.last_activity_us)

    def expired(self, last_activity_us: int, now_us: int) -> bool:
        """Whether a session with this last activity counts as expired."""
        return now_us - last_activity_us >= self._max_age_us

    def bring_back(self, session_id: str, now_us: int, *, even_expired: bool) -> Session | None:
        """Restore the latest archived conversation if it was evicted and has not expired, or if told to."""
        if not even_expired:
            with self._hot.reader() as connection:
                where = lifecycle.whereabouts(connection, session_id)
            if where is None or not self._comes_back(where, now_us):
                return None
        if not self._archive.restore(session_id, now_us):
            return None
        found = self.find(session_id)
        return None if found is None else found.session

    def _comes_back(self, where: lifecycle.Whereabouts, now_us: int) -> bool:
        return where.reason == "evicted" and not self.expired(where.last_activity_us, now_us)

    # ---------------------------------------------------------------- writing

    def append(self, session_id: str, event: NewEvent, now_us: int, durability: Durability | None) -> None:
        """Add one event: two statements, unless an object of the session has changes of its own or it is archived."""
        if session_id not in self._objects:
            done = self._hot.run(
                lambda connection: live.append(connection, session_id, event, now_us), durability=durability
            )
        else:
            level = self._hot.level(durability)
            done = self._append_to_object(session_id, event, now_us)
            if done is not None:
                self._hot.settle(level)
        if done is None:
            self.change(session_id, Changes(events=[event]), now_us, durability)

    def _append_to_object(self, session_id: str, event: NewEvent, now_us: int) -> Appended | None:
        """Append beside an object that has nothing to save and has seen everything; None if it has not."""
        with self._objects.locked(session_id) as tracked:
            if tracked is None or event.client_id is not None or tracked.has_changes():
                return None
            version = tracked.base.version
            done = self._hot.run(
                lambda connection: live.append(connection, session_id, event, now_us, version), durability="process"
            )
            if done is not None:
                tracked.appended(event, done)
            return done

    def change(self, session_id: str, extra: Changes, now_us: int, durability: Durability | None) -> None:
        """Store what the session's object has pending and then ``extra``, in one transaction.

        An expired session lives again by it; an archived one is restored first. UnknownSessionError
        for an id never seen or closed.
        """
        level = self._hot.level(durability)
        with self._objects.locked(session_id) as tracked:
            if not self._write(session_id, tracked, extra, now_us, take_on=False):
                self._revive(session_id, now_us)
                same = tracked if tracked is not None and self._follows(tracked, session_id) else None
                if not self._write(session_id, same, extra, now_us, take_on=True):
                    raise unknown_session(session_id)
        self._hot.settle(level)

    def _write(self, session_id: str, tracked: Tracked | None, extra: Changes, now_us: int, *, take_on: bool) -> bool:
        """One try; False if the session has no live row, or one on loan that may not be written yet."""
        if tracked is None:
            written = self._hot.run(
                lambda connection: _write_row(connection, session_id, None, extra, now_us, take_on=take_on),
                durability="process",
            )
            return written is not None
        own = tracked.collect()
        both = own.followed_by(extra)
        try:
            written = self._hot.run(
                lambda connection: _write_row(connection, session_id, tracked, both, now_us, take_on=take_on),
                durability="process",
            )
        except SessionConflictError:
            tracked.uncollect()
            tracked.conflicted = True
            raise
        except BaseException:
            tracked.uncollect()
            raise
        if written is None:
            tracked.uncollect()
        else:
            tracked.saved(own, extra, written)
        return written is not None

    def _let_go(self, tracked: Tracked) -> None:
        """Leave an object with changes that cannot be saved to its holder; the id gets a fresh one next time."""
        tracked.uncollect()
        self._objects.drop(tracked)

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

    def _follows(self, tracked: Tracked, session_id: str) -> bool:
        """Attach the object to its rows if they were replaced; False if another conversation began."""
        with self._hot.reader() as connection:
            row = reading.live(connection, session_id)
            stored = reading.whole(connection, row) if row else None
        if stored is not None and stored.row.session_uid == tracked.session_uid:
            if stored.row.sid != tracked.sid and not tracked.reattach(stored):
                self._let_go(tracked)
                raise SessionConflictError(
                    "an edited or removed message was archived meanwhile", operation="save", key=session_id,
                    hint="archived messages are immutable: get the session again and add a new message instead",
                )  # fmt: skip
            return True
        if tracked.has_changes():
            self._let_go(tracked)
            raise _ended_unsaved(session_id)
        self._objects.drop(tracked)
        return False

    # ---------------------------------------------------------------- beginning and ending

    def start(
        self, session_id: str, user_id: str | None, now_us: int, *, keep_live: bool, even_evicted: bool = False
    ) -> Session | None:
        """Begin a conversation and close the one that is live; with ``keep_live`` only one that has expired.

        Pending changes of the old object are stored first, in the same transaction. None: the id
        was evicted meanwhile and must be brought back instead, unless ``even_evicted``.
        """
        keep_evicted = keep_live and not even_evicted
        with self._pending(session_id, now_us) as (tracked, changes):

            def work(connection: Connection) -> Stored | None:
                if keep_evicted and self._is_evicted(connection, session_id, now_us):
                    return None
                return self._start(connection, session_id, user_id, now_us, keep_live, tracked, changes)

            stored = self._hot.run(work, durability="process")
        return None if stored is None else self._objects.keep(Tracked(stored, self._assume_tz))

    def _start(
        self, connection: Connection, session_id: str, user_id: str | None, now_us: int,
        keep_live: bool, tracked: Tracked | None, changes: Changes,
    ) -> Stored:  # fmt: skip
        row = reading.live(connection, session_id)
        if row is not None:
            expired = self.expired(row.last_activity_us, now_us)
            if keep_live and not expired:
                return reading.whole(connection, row)
            _end(connection, row, tracked, changes, now_us, reason="expired" if expired else "closed")
        fresh = lifecycle.start(connection, session_id, now_us, user_id=user_id, language="en")
        return Stored(fresh, [], None)

    def _is_evicted(self, connection: Connection, session_id: str, now_us: int) -> bool:
        if reading.live(connection, session_id) is not None:
            return False
        where = lifecycle.whereabouts(connection, session_id)
        return where is not None and self._comes_back(where, now_us)

    def end(self, session_id: str, now_us: int) -> int:
        """Close the live session with everything its object holds; returns how many archived revisions there are."""
        with self._pending(session_id, now_us) as (tracked, changes):

            def work(connection: Connection) -> int:
                row = reading.live(connection, session_id)
                if row is not None:
                    _end(connection, row, tracked, changes, now_us, reason="closed")
                return lifecycle.forget_archived(connection, session_id)

            earlier = self._hot.run(work, durability="process")
            if tracked is not None:
                self._objects.drop(tracked)
        return earlier

    def delete(self, session_id: str) -> int:
        """Delete the live session's rows; returns how many archived revisions of the id remain."""

        def work(connection: Connection) -> int:
            row = reading.live(connection, session_id)
            if row is not None:
                lifecycle.delete(connection, row)
            return lifecycle.forget_archived(connection, session_id)

        with self._objects.locked(session_id) as tracked:
            earlier = self._hot.run(work, durability="process")
            if tracked is not None:
                self._objects.drop(tracked)
        return earlier

    @contextlib.contextmanager
    def _pending(self, session_id: str, now_us: int) -> Iterator[tuple[Tracked | None, Changes]]:
        """The session's object, locked, and what a save of it would write; its rows are made writable first."""
        with self._objects.locked(session_id) as held:
            tracked = self._with_rows(held, session_id, now_us) if held is not None and held.has_changes() else held
            if tracked is None:
                yield None, Changes()
                return
            changes = tracked.collect()
            try:
                yield tracked, changes
            except SessionConflictError:
                self._objects.drop(tracked)
                raise
            finally:
                tracked.uncollect()

    def _with_rows(self, tracked: Tracked, session_id: str, now_us: int) -> Tracked | None:
        """The object with live rows of its own to write to; None if it has none and nothing to save."""
        try:
            self._revive(session_id, now_us)
        except UnknownSessionError as error:
            self._let_go(tracked)
            raise _ended_unsaved(session_id) from error
        return tracked if self._follows(tracked, session_id) else None


def _refresh(tracked: Tracked, connection: Connection, row: SessionRow) -> None:
    """Show what others committed: nothing is read again that the object already has."""
    if row.sid != tracked.sid:
        tracked.reattach(reading.whole(connection, row))  # with an edit pending nothing changes: the next save says so
    elif row.version != tracked.base.version:
        tracked.refresh(row, reading.since(connection, row, tracked.base))


def _write_row(
    connection: Connection,
    session_id: str,
    tracked: Tracked | None,
    changes: Changes,
    now_us: int,
    *,
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
    connection: Connection,
    row: SessionRow,
    tracked: Tracked | None,
    changes: Changes,
    now_us: int,
    *,
    reason: Literal["closed", "expired"],
) -> None:
    if tracked is not None and tracked.sid == row.sid and not changes.empty:
        live.write(connection, row, tracked.base, changes, now_us)
    lifecycle.close(connection, row, reason)


def _ended_unsaved(session_id: str) -> SessionConflictError:
    return SessionConflictError(
        "this conversation has ended while its object had unsaved changes", operation="save", key=session_id,
        hint="get the session again; the object that is held still has the changes",
    )  # fmt: skip


def unknown_session(session_id: str) -> UnknownSessionError:
    """The error for an id never seen or closed."""
    return UnknownSessionError(
        "no such session: never seen here, or closed", operation="use session", key=session_id,
        hint="create it with get_or_create",
    )  # fmt: skip
