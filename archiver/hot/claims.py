"""Claims: which sessions a segment takes, and what becomes of their rows once the archive has them.

All state of the archive protocol is here. A segment is ``open`` (sessions may join), ``closed`` (its
membership digest is fixed, requests may go out), ``verified`` (its object is proven to be in the
archive) or ``released`` (its rows are gone). Every transaction is short: handlers write meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Final, Literal

from archiver.errors import ConflictError, CorruptDataError, StoreBusyError, UnknownSessionError
from archiver.events import SessionRow
from archiver.hot import archived, claim_rows, covered, due, frozen, progress
from archiver.hot.archived import ArchivedEntry, ArchivedRow
from archiver.hot.claim_rows import Released
from archiver.hot.covered import Covers
from archiver.hot.due import Backlog, ClaimLimits, Due
from archiver.hot.progress import Progress
from archiver.hot.segment import Member, Sealed, Segment, select
from archiver.hot.transactions import Transactions

INDEX_SESSIONS: Final = 200


class Claims:
    """The protocol's transactions on one hot store."""

    def __init__(self, database: Transactions) -> None:
        self._db = database

    @property
    def archiver_id(self) -> str:
        """Who this store is in the archive: 32 random hex digits, made once."""
        with self._db.reader() as connection:
            return claim_rows.archiver_id(connection)

    # ---------------------------------------------------------------- claim

    def backlog(self, limits: ClaimLimits, *, now_us: int) -> Backlog:
        """Count what is due and in no segment yet."""
        with self._db.reader() as connection:
            return due.backlog(connection, limits, now_us=now_us)

    def claim(self, limits: ClaimLimits, *, now_us: int) -> Segment | None:
        """A segment of due sessions, filled up to the limits and durable; None if nothing is due.

        A segment that an earlier run left open comes first and takes nobody else in.
        """
        with self._db.reader() as connection:
            left_open = select(connection, "state = 'open' ORDER BY segment LIMIT 1")
        number = left_open[0].segment if left_open else self._claimed(limits, now_us=now_us)
        if number is None:
            return None
        self._db.flush()
        return self.segment(number)

    def _claimed(self, limits: ClaimLimits, *, now_us: int) -> int | None:
        """The number of a new segment of due sessions; None if nothing is due."""
        with self._db.reader() as connection:
            evict = due.evictable(connection, limits, now_us=now_us)
        segment: int | None = None
        n_sessions = text_bytes = 0
        full = False
        while not full and n_sessions < limits.segment_sessions:
            room = limits.segment_sessions - n_sessions
            with self._db.reader() as connection:
                batch = due.due_sessions(connection, limits, now_us=now_us, room=room, evict=evict)
            fitting = _within(batch, limits.segment_bytes - text_bytes, at_least=1 if segment is None else 0)
            if not fitting:
                break
            with self._db.bulk_transaction() as connection:
                segment = claim_rows.claim_batch(connection, segment, fitting, now_us)
            n_sessions += len(fitting)
            text_bytes += sum(chosen.text_bytes for chosen in fitting)
            evict -= sum(chosen.reason == "evicted" for chosen in fitting)
            full = len(fitting) < len(batch)
        return segment

    # ---------------------------------------------------------------- build and close

    def rows(self, segment: Segment, *, group_sessions: int, group_bytes: int) -> Iterator[list[SessionRow]]:
        """The claimed sessions of a segment as they were when claimed, in groups, sorted by session_uid."""
        return frozen.claimed_rows(self._db, segment.segment, group_sessions=group_sessions, group_bytes=group_bytes)

    def close_segment(self, segment: Segment, sealed: Sealed) -> Segment:
        """Fix a segment's membership, durably; from here on its name may stand in the archive."""
        with self._db.transaction(durability="power") as connection:
            query = "SELECT count(*) FROM claim WHERE segment = ?"
            claimed = connection.execute(query, (segment.segment,)).fetchone()[0]
            changed = connection.execute(
                "UPDATE segment SET state = 'closed', n_sessions = ?, membership_digest = ?, file_sha256 = ?,"
                " file_bytes = ? WHERE segment = ? AND state = 'open'",
                (*sealed, segment.segment),
            ).rowcount
            if changed != 1 or claimed != sealed.n_sessions:
                raise StoreBusyError(
                    f"another archiver changed it: {claimed} sessions claimed, {sealed.n_sessions} built",
                    operation="close segment", key=str(segment.sequence), hint="run it again",
                )  # fmt: skip
        return self.segment(segment.segment)

    def add_import_segment(self, sequence: int, sealed: Sealed, *, now_us: int) -> Segment:
        """Enter a segment whose only source is its spool file: closed, durably."""
        with self._db.transaction(durability="power") as connection:
            if claim_rows.next_sequence(connection) != sequence:
                raise StoreBusyError(
                    "another archiver took this number",
                    operation="close segment",
                    key=str(sequence),
                    hint="run it again",
                )
            row = connection.execute(
                "INSERT INTO segment(archiver_id, sequence, state, kind, claimed_us, n_sessions, membership_digest,"
                " file_sha256, file_bytes) VALUES(?, ?, 'closed', 'import', ?, ?, ?, ?, ?) RETURNING segment",
                (claim_rows.archiver_id(connection), sequence, now_us, *sealed),
            ).fetchone()
        return self.segment(row[0])

    def abandon_empty(self, segment: Segment) -> bool:
        """Give up an open segment that lost all its sessions (erased, set aside); False if it has any.

        Only the last number can be given up: before another it would be a gap for ever, so such a segment
        is archived without rows.
        """
        with self._db.transaction() as connection:
            changed = connection.execute(
                "DELETE FROM segment WHERE segment = ?1 AND state = 'open'"
                " AND NOT EXISTS (SELECT 1 FROM claim WHERE segment = ?1)"
                " AND NOT EXISTS (SELECT 1 FROM segment later"
                "   WHERE later.archiver_id = segment.archiver_id AND later.sequence > segment.sequence)",
                (segment.segment,),
            ).rowcount
        return changed == 1

    def rebuilt(self, segment: Segment, *, file_sha256: str, file_bytes: int) -> None:
        """Note the digest of a spool file that was built again."""
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE segment SET file_sha256 = ?, file_bytes = ? WHERE segment = ? AND state = 'closed'",
                (file_sha256, file_bytes, segment.segment),
            )

    # ---------------------------------------------------------------- state

    def segment(self, segment: int) -> Segment:
        """One segment by its number in this store."""
        with self._db.reader() as connection:
            found = select(connection, "segment = ?", (segment,))
        if not found:
            raise ConflictError(
                "is not known any more",
                operation="read segment",
                key=str(segment),
                hint="was hot.db replaced meanwhile?",
            )
        return found[0]

    def next_sequence(self) -> int:
        """The sequence number that the next segment will have."""
        with self._db.reader() as connection:
            return claim_rows.next_sequence(connection)

    def first_sequence(self) -> int:
        """The first sequence number under this archiver id."""
        with self._db.reader() as connection:
            own = claim_rows.archiver_id(connection)
            query = "SELECT coalesce(min(sequence), 1) FROM segment WHERE archiver_id = ?"
            return int(connection.execute(query, (own,)).fetchone()[0])

    def last_released(self) -> int:
        """The highest sequence number under this archiver id that is proven to be in the archive; 0 without any."""
        with self._db.reader() as connection:
            own = claim_rows.archiver_id(connection)
            query = "SELECT coalesce(max(sequence), 0) FROM segment WHERE archiver_id = ? AND state = 'released'"
            return int(connection.execute(query, (own,)).fetchone()[0])

    def unreleased(self) -> list[Segment]:
        """Segments whose rows or spool files are still here, in order."""
        with self._db.reader() as connection:
            return select(connection, "state <> 'released' ORDER BY segment")

    def failed(self, segment: Segment, error: str, *, now_us: int) -> None:
        """Note why a segment is not in the archive yet."""
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE segment SET last_error = ?, last_error_us = ? WHERE segment = ?",
                (error[:500], now_us, segment.segment),
            )

    def progress(self) -> Progress:
        """How archiving goes."""
        with self._db.reader() as connection:
            return progress.progress(connection)

    def note_sweep(self, error: str | None, *, now_us: int) -> None:
        """Keep how a sweep ended."""
        with self._db.transaction() as connection:
            progress.note_sweep(connection, error, now_us)

    def remembered(self, name: str) -> str | None:
        """A fact kept with :meth:`remember`."""
        with self._db.reader() as connection:
            row = connection.execute("SELECT value FROM store WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def remember(self, name: str, value: str) -> None:
        """Keep a fact about the storage."""
        with self._db.transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO store(name, value) VALUES(?, ?)", (name, value))

    # ---------------------------------------------------------------- release

    def verified(self, segment: Segment) -> None:
        """Note that the archive is proven to have a segment."""
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE segment SET state = 'verified' WHERE segment = ? AND state = 'closed'", (segment.segment,)
            )

    def release(self, segment: Segment, members: Mapping[str, Member], *, now_us: int) -> Released:
        """Delete the rows of a verified segment; idempotent, continues after a crash.

        ``members`` is what its file holds, by session_uid: CorruptDataError if a claimed session is not among
        them, and no row is deleted. A session written to since its claim stays, with what the archive has
        noted. Deletions that waited are carried out. A few sessions a transaction, so that no handler waits long.
        """
        self._require_verified(segment)
        with self._db.reader() as connection:
            claimed = connection.execute(
                "SELECT c.sid, c.session_uid, c.drop_rows, coalesce(s.session_id, '')"
                " FROM claim c LEFT JOIN session s ON s.sid = c.sid WHERE c.segment = ?",
                (segment.segment,),
            ).fetchall()
        lost = [uid for _, uid, drop, _ in claimed if uid not in members and drop != claim_rows.ERASE]
        if lost:
            raise CorruptDataError(
                f"its file lacks {len(lost)} of {len(claimed)} claimed sessions, the first is {min(lost)}",
                operation="release segment", key=str(segment.sequence),
                hint="nothing was deleted here; run `sessionlake verify --deep`, keep hot.db",
            )  # fmt: skip
        in_index_order = sorted(claimed, key=itemgetter(3))
        self._index(segment, {sid: members[uid] for sid, uid, *_ in in_index_order if uid in members})
        deleted = kept = 0
        as_pages_lie = iter(sorted(claimed))
        while part := list(islice(as_pages_lie, claim_rows.RELEASE_SESSIONS)):
            # A release that power loss undoes is repeated: what it deleted is proven to be in the archive.
            with self._db.bulk_transaction() as connection:
                released = claim_rows.release_batch(
                    connection, segment.segment, {sid: members.get(uid) for sid, uid, *_ in part}
                )
            deleted += released.deleted
            kept += released.kept
        self._released(segment, now_us)
        return Released(deleted, kept)

    def _index(self, segment: Segment, members: Mapping[int, Member]) -> None:
        """Enter a segment's sessions into the archived index, before they go: an entry by itself costs a page."""
        remaining = iter(members.items())
        while part := dict(islice(remaining, INDEX_SESSIONS)):
            with self._db.bulk_transaction() as connection:
                claim_rows.index_batch(connection, segment.segment, part)

    def release_import(self, segment: Segment, rows: Iterable[ArchivedRow], *, now_us: int) -> int:
        """Enter an imported segment's sessions into the archived index; idempotent. Returns how many."""
        self._require_verified(segment)
        remaining, total = iter(sorted(rows, key=attrgetter("session_id"))), 0  # as the index lies
        while part := list(islice(remaining, INDEX_SESSIONS)):
            with self._db.bulk_transaction() as connection:
                archived.insert(connection, part)
            total += len(part)
        self._released(segment, now_us)
        return total

    def _require_verified(self, segment: Segment) -> None:
        state = self.segment(segment.segment).state
        if state not in ("verified", "released"):
            raise ConflictError(f"is {state}, not verified", operation="release segment", key=str(segment.sequence))

    def _released(self, segment: Segment, now_us: int) -> None:
        with self._db.transaction() as connection:
            connection.execute(
                "UPDATE segment SET state = 'released', released_us = ?, last_error = NULL, last_error_us = NULL"
                " WHERE segment = ? AND state = 'verified'",
                (now_us, segment.segment),
            )

    # ---------------------------------------------------------------- ways out

    def void(self, segment: Segment, reason: str, *, now_us: int) -> int:
        """End a segment that could not be built: its sessions stay and may be claimed again. Returns how many."""
        with self._db.transaction(durability="power") as connection:
            changed = connection.execute(
                "UPDATE segment SET kind = 'void', state = 'released', released_us = ?, note = ?"
                " WHERE segment = ? AND state = 'closed'",
                (now_us, reason[:500], segment.segment),
            ).rowcount
            return claim_rows.unclaim(connection, segment.segment) if changed else 0

    def quarantine(self, session: str, reason: str) -> str:
        """Set a session (id or uid) aside: no sweep claims it until a person has looked. Returns its uid."""
        sid, uid = self._named(session, "quarantine")
        with self._db.transaction(durability="power") as connection:
            connection.execute("UPDATE session SET quarantined = ? WHERE sid = ?", (reason[:500], sid))
            freed = connection.execute(
                "DELETE FROM claim WHERE sid = ? AND segment IN (SELECT segment FROM segment WHERE state = 'open')",
                (sid,),
            ).rowcount
            if freed:
                connection.execute("UPDATE session SET claimed = 0 WHERE sid = ?", (sid,))
        return uid

    def unquarantine(self, session: str) -> str:
        """Let sweeps have a session (id or uid) again that was set aside. Returns its uid."""
        sid, uid = self._named(session, "unquarantine")
        with self._db.transaction(durability="power") as connection:
            connection.execute("UPDATE session SET quarantined = NULL WHERE sid = ?", (sid,))
        return uid

    def _named(self, session: str, operation: Literal["quarantine", "unquarantine"]) -> tuple[int, str]:
        """The newest session under an id or uid; a walk over all of them, but beside writers."""
        condition = "1" if operation == "quarantine" else "quarantined IS NOT NULL"
        with self._db.reader() as connection:
            row = connection.execute(
                "SELECT sid, session_uid FROM session WHERE (session_uid = ?1 OR session_id = ?1)"
                f" AND {condition} ORDER BY created_us DESC LIMIT 1",
                (session,),
            ).fetchone()
        if row is None:
            aside = "" if operation == "quarantine" else " is set aside"
            raise UnknownSessionError(f"no such session{aside} here", operation=operation, key=session)
        return int(row[0]), str(row[1])

    def new_archiver(self, archiver_id: str, moved: Mapping[int, Sealed], *, now_us: int) -> None:
        """Become another archiver: claims undone, ``moved`` imports (by segment) renumbered, other imports void."""
        with self._db.transaction(durability="power") as connection:
            for segment in select(connection, "state IN ('open', 'closed') ORDER BY segment"):
                if segment.kind == "live":
                    claim_rows.unclaim(connection, segment.segment)
                    connection.execute("DELETE FROM segment WHERE segment = ?", (segment.segment,))
                elif segment.segment not in moved:
                    connection.execute(
                        "UPDATE segment SET kind = 'void', state = 'released', released_us = ?, note = ?"
                        " WHERE segment = ?",
                        (now_us, "the spool file of this import is lost: import the same files again", segment.segment),
                    )
            for sequence, (number, sealed) in enumerate(moved.items(), start=1):
                connection.execute(
                    "UPDATE segment SET archiver_id = ?, sequence = ?, n_sessions = ?, membership_digest = ?,"
                    " file_sha256 = ?, file_bytes = ? WHERE segment = ?",
                    (archiver_id, sequence, *sealed, number),
                )
            connection.execute("UPDATE store SET value = ? WHERE name = 'archiver_id'", (archiver_id,))

    # ---------------------------------------------------------------- tombstones

    def drop_covered(self, covers: Covers) -> int:
        """Delete every covered session, those in a closed segment at its release, and forget them in the index."""
        return covered.drop(self._db, covers)

    def covered_in(self, segment: Segment, covers: Covers) -> int:
        """How many sessions of an unreleased segment are covered."""
        return covered.count_in(self._db, segment.segment, covers)

    # ---------------------------------------------------------------- archived index

    def known_versions(self, session_id: str, created_us: int) -> list[ArchivedEntry]:
        """All archived revisions of a session, oldest first."""
        with self._db.reader() as connection:
            return archived.versions(connection, session_id, created_us)

    def archived(self, session_id: str) -> ArchivedEntry | None:
        """The newest conversation archived under an id, at its highest revision."""
        with self._db.reader() as connection:
            return archived.latest_of_id(connection, session_id)


def _within(batch: list[Due], room_bytes: int, *, at_least: int) -> list[Due]:
    """The head of a batch whose texts fit."""
    total = 0
    for count, chosen in enumerate(batch):
        total += chosen.text_bytes
        if total > room_bytes:
            return batch[: max(at_least, count)]
    return batch
