"""Bring one session back from the archive: a range read of one row group, never the whole segment.

Where it lies is asked of the local archived index first, then of ``locate`` (the tables' catalog,
where a caller has one), then of every segment's key columns: any host can restore any session.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator
from typing import Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from archiver import archive, segments
from archiver.archive import SegmentRef
from archiver.errors import CorruptDataError, OutcomeUnknownError, SessionConflictError
from archiver.events import SessionRecord, content_sha256
from archiver.hot import HotStore, archived
from archiver.hot.archived import ArchivedEntry
from archiver.objects import ObjectStore, RangeFile

_KEYS: Final = ["session_uid", "session_id", "revision", "created_at"]


class Place(NamedTuple):
    """Where one archived revision lies; ``row_group`` is a hint."""

    ref: SegmentRef
    session_uid: str
    revision: int
    row_group: int | None = None


Locate = Callable[[str], tuple[SegmentRef, str, int] | None]
"""Where a catalog says the newest conversation of an id lies: segment, session_uid, highest revision."""


def read_archived(store: ObjectStore, entry: ArchivedEntry) -> SessionRecord:
    """Read the session an archived-index entry names; CorruptDataError if it is not there as archived.

    Two requests, three where the footer is large.
    """
    ref = SegmentRef(entry.archiver_id, entry.sequence)
    record = read_session(store, Place(ref, entry.session_uid, entry.revision, entry.row_group))
    if record is None or content_sha256(record) != entry.content_sha256:
        found = "is not in its segment" if record is None else "has other content than was archived"
        raise CorruptDataError(
            f"session {entry.session_uid} revision {entry.revision} {found}", operation="restore", key=ref.key,
            hint="run sessionlake verify --deep",
        )  # fmt: skip
    return record


def read_session(store: ObjectStore, place: Place) -> SessionRecord | None:
    """Read one session from its segment; None if it is not in it (erased meanwhile)."""
    source = RangeFile(store, place.ref.key)
    file = archive.open_source(pa.PythonFile(source, mode="r"), place.ref)
    for index in _row_groups(file, place):
        source.prefetch(*_extent(file.metadata.row_group(index)))
        for batch in segments.read_batches(file, key=place.ref.key, row_groups=[index]):
            mine = pc.and_(
                pc.equal(batch.column("session_uid"), place.session_uid),
                pc.equal(batch.column("revision"), place.revision),
            )
            for record in segments.batch_to_records(batch.filter(mine)):
                return record
    return None


def find_record(
    hot: HotStore, store: ObjectStore, session_id: str, *, locate: Locate | None = None
) -> SessionRecord | None:
    """Read the newest archived conversation of an id at its highest revision; None if there is none or it was erased.

    Known to this host: 4 requests, 5 where the footer is large. Unknown to index and catalog, or
    continued by another host: the key columns of every segment are read.
    """
    erased = archive.tombstones(store)
    with hot.reader() as connection:
        entry = archived.latest_of_id(connection, session_id)
    if entry is not None and erased.covers(entry.session_uid, entry.user_id, entry.created_us):
        return None
    if entry is not None and not _continued_elsewhere(hot, store, entry):
        return read_archived(store, entry)
    known = locate(session_id) if locate and entry is None else None
    place = Place(*known) if known else scan(store, session_id)
    record = read_session(store, place) if place else None
    gone = record is None or erased.covers(record.session_uid, record.user_id, record.created_at_us)
    return None if gone else record


def restore_session(
    hot: HotStore, store: ObjectStore, session_id: str, *, now_us: int, locate: Locate | None = None
) -> bool:
    """Make an archived session live again, with its whole history; False if the archive has none of that id.

    Nothing is claimed by it: until it is continued, it is a copy on loan that expiry drops.
    """
    record = find_record(hot, store, session_id, locate=locate)
    if record is None:
        return False
    digest = content_sha256(record)
    hot.insert_record(record, last_activity_us=now_us, restored_us=now_us, archived_sha256=digest)
    return True


def continue_session(store: ObjectStore, archiver_id: str, session_uid: str, *, revision: int) -> None:
    """Enter this archiver as the one that continues a restored session; idempotent.

    SessionConflictError if another continues it already. 1 request, 2 where it was entered before.
    """
    key = _marker(session_uid, revision)
    body = json.dumps({"archiver_id": archiver_id}).encode()
    try:
        if store.create(key, body):
            return
    except OutcomeUnknownError:
        if store.head(key) is None:
            raise
    owner = _owner(store, key)
    if owner != archiver_id:
        raise SessionConflictError(
            f"is continued by archiver {owner}", operation="continue restored session", key=session_uid,
            hint="go on in the other host's application, or start a new session",
        )  # fmt: skip


def _continued_elsewhere(hot: HotStore, store: ObjectStore, entry: ArchivedEntry) -> bool:
    """Whether another host went on from the revision this host knows, so that a later one may be archived."""
    key = _marker(entry.session_uid, entry.revision)
    return store.head(key) is not None and _owner(store, key) != hot.archiver_id


def _marker(session_uid: str, revision: int) -> str:
    return f"{archive.PREFIX}/_restored/{session_uid}-{revision}"


def _owner(store: ObjectStore, key: str) -> str:
    try:
        return str(json.loads(store.get(key))["archiver_id"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError("is no ownership marker", operation="continue restored session", key=key) from error


def scan(store: ObjectStore, session_id: str) -> Place | None:
    """Look for a session id in every segment: one request each, and one more for every 128 sessions."""
    found = [
        candidate
        for archiver_id in archive.list_archivers(store)
        for ref, _ in archive.list_segments(store, archiver_id)
        for candidate in _places(store, ref, session_id)
    ]
    return max(found, default=(0, 0, None), key=lambda c: c[:2])[2]


def _places(store: ObjectStore, ref: SegmentRef, session_id: str) -> Iterator[tuple[int, int, Place]]:
    """(created_at_us, revision, place) of the id's sessions in one segment, row groups chosen by statistics."""
    source = RangeFile(store, ref.key)
    file = archive.open_source(pa.PythonFile(source, mode="r"), ref)
    column = segments.SCHEMA.get_field_index("session_id")
    for index in range(file.num_row_groups):
        statistics = file.metadata.row_group(index).column(column).statistics
        if statistics is not None and not statistics.min <= session_id <= statistics.max:
            continue
        source.prefetch(*_extent(file.metadata.row_group(index), _KEYS))
        for batch in segments.read_batches(file, key=ref.key, columns=_KEYS, row_groups=[index]):
            mine = batch.filter(pc.equal(batch.column("session_id"), session_id))
            created = mine.column("created_at").cast(pa.int64()).to_pylist()
            rows = zip(
                mine.column("session_uid").to_pylist(), mine.column("revision").to_pylist(), created, strict=True
            )
            for uid, revision, created_us in rows:
                yield created_us, revision, Place(ref, uid, revision, index)


def _row_groups(file: pq.ParquetFile, place: Place) -> Iterator[int]:
    """The row groups that may hold the session: the hinted one first, if its statistics agree."""
    column = segments.SCHEMA.get_field_index("session_uid")

    def may_hold(index: int) -> bool:
        statistics = file.metadata.row_group(index).column(column).statistics
        return statistics is None or statistics.min <= place.session_uid <= statistics.max

    candidates = [index for index in range(file.num_row_groups) if may_hold(index)]
    yield from sorted(candidates, key=lambda index: index != place.row_group)


def _extent(row_group: pq.RowGroupMetaData, names: Container[str] | None = None) -> tuple[int, int]:
    """First byte and length of the pages of some columns (all, without names), which lie side by side."""
    columns = [row_group.column(i) for i in range(row_group.num_columns)]
    wanted = [c for c in columns if names is None or c.path_in_schema in names]
    starts = [c.dictionary_page_offset or c.data_page_offset for c in wanted]
    ends = [start + c.total_compressed_size for start, c in zip(starts, wanted, strict=True)]
    return min(starts), max(ends) - min(starts)
