"""Sealing: due sessions become a segment, complete in the spool and closed in the database.

Nothing is sent from here. Killed anywhere, the next sweep continues: an unclosed segment is built
again from its claims, whose view does not change.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Final, TypeVar

import pyarrow as pa

from archiver import segments
from archiver.errors import CorruptDataError, SessionLakeError
from archiver.events import SessionRecord, SessionRow
from archiver.hot import HotStore
from archiver.hot.due import ClaimLimits
from archiver.hot.segment import Sealed, Segment
from archiver.hot.spool import SpoolFile
from archiver.segments import SegmentHeader, SegmentSummary
from archiver.settings import Settings

HOUR_US: Final = 3_600_000_000
IMPORT_WAIT_SECONDS: Final = 60.0
GROUPS_AHEAD: Final = 2

T = TypeVar("T", SessionRecord, SessionRow)


@dataclass(frozen=True, slots=True)
class Built:
    """A spool file and what is in it."""

    file: SpoolFile
    summary: SegmentSummary

    @property
    def sealed(self) -> Sealed:
        """What the segment is known by once it is closed."""
        return Sealed(
            n_sessions=self.summary.n_sessions,
            membership_digest=self.summary.membership_digest,
            file_sha256=self.file.sha256,
            file_bytes=self.file.size_bytes,
        )


def claim_limits(settings: Settings) -> ClaimLimits:
    """The settings that decide what is due and when a segment is full."""
    return ClaimLimits(
        max_age_us=round(settings.hot.session_max_age_hours * HOUR_US),
        max_sessions=settings.hot.max_sessions,
        segment_sessions=settings.archive.segment_sessions,
        segment_bytes=settings.archive.segment_bytes,
    )


def seal(hot: HotStore, settings: Settings, *, now_us: int) -> Segment | None:
    """Claim due sessions, build their segment and close it; None if nothing is due.

    Call it under the spool's lock; see :func:`close`.
    """
    segment = claim(hot, settings, now_us=now_us)
    return None if segment is None else close(hot, segment)


def claim(hot: HotStore, settings: Settings, *, now_us: int) -> Segment | None:
    """Claim due sessions for a segment, or go on with one that was left open; None if nothing is due."""
    segment = hot.claims.claim(claim_limits(settings), now_us=now_us)
    return None if segment is None or hot.claims.abandon_empty(segment) else segment


def close(hot: HotStore, segment: Segment) -> Segment:
    """Build a claimed segment and close it.

    CorruptDataError names a session that cannot be read; StorageError means the disk: in both cases
    the sessions stay claimed and the next sweep tries again.
    """
    return hot.claims.close_segment(segment, build(hot, segment).sealed)


def close_left_open(hot: HotStore) -> list[Segment]:
    """Build and close what a crash left open, so that later segments can go; see :func:`close`."""
    left = [segment for segment in hot.claims.unreleased() if segment.state == "open"]
    return [close(hot, segment) for segment in left if not hot.claims.abandon_empty(segment)]


def seal_records(hot: HotStore, records: Iterable[SessionRecord], *, now_us: int) -> Segment:
    """Make a closed segment of records, sorted by session_uid, that were never in the hot store.

    Its only source is the spool file. A crash before the end leaves nothing but a file that the next
    sweep removes.
    """
    with hot.spool.lock(wait_seconds=IMPORT_WAIT_SECONDS):
        return _seal_records(hot, records, now_us=now_us)


def _seal_records(hot: HotStore, records: Iterable[SessionRecord], *, now_us: int) -> Segment:
    sequence = hot.claims.next_sequence()
    built = _build(hot, SegmentHeader(hot.claims.archiver_id, sequence), map(_rows, segments.row_groups(records)))
    return hot.claims.add_import_segment(sequence, built.sealed, now_us=now_us)


def build(hot: HotStore, segment: Segment) -> Built:
    """Write a segment's file from its claims, as they were when claimed. The same claims give the same digest."""
    groups = hot.claims.rows(segment, group_sessions=segments.ROW_GROUP_SESSIONS, group_bytes=segments.ROW_GROUP_BYTES)
    return _build(hot, SegmentHeader(segment.archiver_id, segment.sequence), groups)


def rebuild(hot: HotStore, segment: Segment) -> SpoolFile:
    """Build a closed segment's lost file again; CorruptDataError if its membership cannot be reproduced."""
    if segment.kind == "import":
        raise CorruptDataError(
            "its spool file, its only source, is gone or damaged", operation="rebuild", key=str(segment.sequence),
            hint="import the same files again",
        )  # fmt: skip
    built = build(hot, segment)
    if built.summary.membership_digest != segment.membership_digest:
        hot.spool.remove(built.file.path)
        raise CorruptDataError(
            f"its rows give membership {built.summary.membership_digest[:12]}, it was closed with"
            f" {(segment.membership_digest or '')[:12]}",
            operation="rebuild", key=str(segment.sequence), hint="rows of hot.db were changed or lost",
        )  # fmt: skip
    hot.claims.rebuilt(segment, file_sha256=built.file.sha256, file_bytes=built.file.size_bytes)
    return built.file


def new_archiver(hot: HotStore, *, now_us: int) -> str:
    """Give the store a new archiver id: unfinished claims are undone, imported segments go on under it.

    For a person to call after ConflictError: another store, a copy or the original of this one, writes
    under the old id. All new files are complete before one transaction changes everything. An import
    whose spool file is lost or damaged becomes a void that status names. Returns the new id.
    """
    archiver_id = secrets.token_hex(16)
    with hot.spool.lock(wait_seconds=IMPORT_WAIT_SECONDS):
        imports = [s for s in hot.claims.unreleased() if s.kind == "import" and s.state == "closed"]
        moved: dict[int, Sealed] = {}
        for segment in imports:
            built = _moved(hot, segment, SegmentHeader(archiver_id, len(moved) + 1))
            if built is not None:
                moved[segment.segment] = built.sealed
        hot.claims.new_archiver(archiver_id, moved, now_us=now_us)
        for segment in imports:
            hot.spool.remove(hot.spool.path(segment.archiver_id, segment.sequence))
    return archiver_id


def _moved(hot: HotStore, segment: Segment, header: SegmentHeader) -> Built | None:
    """An imported segment's sessions in a file of another name; None if its own file is not whole."""
    old = hot.spool.path(segment.archiver_id, segment.sequence)
    if hot.spool.verified(old, segment.file_sha256 or "") is None:
        return None
    file = segments.open_segment(old, key=str(old))
    batches = segments.read_batches(file, key=str(old))
    return _build(hot, header, (_rows(list(segments.batch_to_records(batch))) for batch in batches))


def _build(hot: HotStore, header: SegmentHeader, groups: Iterator[list[SessionRow]]) -> Built:
    def fill(sink: IO[bytes]) -> SegmentSummary:
        return segments.write_segment(sink, header, map(_converted, _ahead(groups)))

    file, summary = hot.spool.write(hot.spool.path(header.archiver_id, header.sequence), fill)
    return Built(file, summary)


def _ahead(groups: Iterator[list[SessionRow]]) -> Iterator[list[SessionRow]]:
    """The same groups, the next ones read while the caller encodes one: neither needs the interpreter much."""
    with ThreadPoolExecutor(1, thread_name_prefix="seal") as pool:
        upcoming = deque(pool.submit(next, groups, None) for _ in range(GROUPS_AHEAD))
        while (group := upcoming.popleft().result()) is not None:
            upcoming.append(pool.submit(next, groups, None))
            yield group


def _rows(records: list[SessionRecord]) -> list[SessionRow]:
    with _naming_the_culprit(records, SessionRow.of):
        return [SessionRow.of(record) for record in records]


def _converted(rows: list[SessionRow]) -> pa.RecordBatch:
    with _naming_the_culprit(rows, lambda row: segments.rows_to_batch([row])):
        return segments.rows_to_batch(rows)


_INCONVERTIBLE: Final = (pa.ArrowException, ValueError, TypeError, OverflowError, SessionLakeError)


@contextmanager
def _naming_the_culprit(group: Sequence[T], convert: Callable[[T], object]) -> Iterator[None]:
    """Find the session of a group that cannot be converted, and name it."""
    try:
        yield
    except _INCONVERTIBLE as error:
        culprit = next((one for one in group if not _convertible(one, convert)), group[0])
        raise CorruptDataError(
            f"cannot be archived: {error}", operation="seal", key=culprit.session_id,
            hint=f"set it aside: sessionlake sweep --quarantine {culprit.session_id}",
        ) from error  # fmt: skip


def _convertible(one: T, convert: Callable[[T], object]) -> bool:
    try:
        convert(one)
    except _INCONVERTIBLE:
        return False
    return True
