"""Pushing: closed segments go to the archive, and their rows go once the archive is proven to have them.

The outcome of a request is asked, never guessed: whatever a PUT answered, HEAD says what stands under
the segment's name. Nothing here overwrites an object of other membership.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal

import pyarrow as pa

from archiver import archive, sealing, segments
from archiver.archive import SegmentRef
from archiver.errors import ConflictError, CorruptDataError, OutcomeUnknownError, SessionLakeError, StorageError
from archiver.hot import HotStore
from archiver.hot.archived import ArchivedRow
from archiver.hot.segment import Member, Segment
from archiver.hot.spool import SpoolFile
from archiver.objects import ObjectInfo, ObjectStore, StoreFacts
from archiver.settings import Settings
from archiver.telemetry import CounterName, Metrics, fields

log = logging.getLogger(__name__)

TRIES: Final = 3
PUSH_WAIT_SECONDS: Final = 60.0
_MEMBER_COLUMNS: Final = ("session_uid", "content_sha256")
_INDEX_COLUMNS: Final = (
    *_MEMBER_COLUMNS, "session_id", "user_id", "revision", "language", "created_at", "updated_at",
)  # fmt: skip

Verdict = Literal["proven", "void", "absent"]


@dataclass(slots=True)
class PushReport:
    """What a push did, in numbers."""

    segments: int = 0
    sessions_released: int = 0
    sessions_kept: int = 0
    voided: int = 0
    bytes: int = 0


def push_pending(
    hot: HotStore,
    store: ObjectStore,
    settings: Settings,
    *,
    now_us: int,
    facts: StoreFacts | None = None,
    metrics: Metrics | None = None,
) -> PushReport:
    """Push, verify and release every segment, in sequence order; stops at the first that fails and raises.

    One that a crash left open is closed first. Waits for another archiver's step to end. StorageError: not
    in the archive yet, everything is kept. ConflictError: another store writes under this archiver id,
    nothing was overwritten.
    """
    del settings
    with hot.spool.lock(wait_seconds=PUSH_WAIT_SECONDS):
        sealing.close_left_open(hot)
        return Pusher(hot, store, facts=facts, metrics=metrics or Metrics()).push_closed(now_us=now_us)


class Pusher:
    """Pushes the segments of one store; the caller holds the spool's lock."""

    def __init__(self, hot: HotStore, store: ObjectStore, *, facts: StoreFacts | None, metrics: Metrics) -> None:
        self._hot = hot
        self._store = store
        self._facts = facts
        self._metrics = metrics
        self._registered = False
        self.report = PushReport()

    def push_closed(self, *, now_us: int, stop: Callable[[], bool] = lambda: False) -> PushReport:
        """Everything that waits, in sequence order, up to ``stop`` or the first failure, which is noted and raised.

        What was done before a failure is in :attr:`report`.
        """
        # One that is still open holds back all later ones: an archiver's segments appear in their order.
        for segment in takewhile(lambda segment: segment.state != "open", self._hot.claims.unreleased()):
            if stop():
                break
            if self.prove(segment, now_us=now_us):
                self.release(segment, now_us=now_us)
        return self.report

    def prove(self, segment: Segment, *, now_us: int) -> bool:
        """Send a segment until the archive is proven to hold it; False if a void stands in its place."""
        with self._noting_failure(segment, now_us):
            if not self._registered:
                archive.register_archiver(self._store, self._hot.claims.archiver_id, self._hot.claims.first_sequence())
                self._registered = True
            proven = segment.state != "closed" or self._push(segment, now_us=now_us)
        self.report.voided += not proven
        return proven

    def release(self, segment: Segment, *, now_us: int) -> None:
        """Let the rows and the spool file of a proven segment go."""
        with self._noting_failure(segment, now_us):
            deleted, kept = self._release(segment, now_us=now_us)
            self._hot.spool.remove(self._hot.spool.path(segment.archiver_id, segment.sequence))
        self._count(segment, deleted, kept)

    @contextmanager
    def _noting_failure(self, segment: Segment, now_us: int) -> Iterator[None]:
        try:
            yield
        except SessionLakeError as error:
            self._metrics.add(CounterName.PUSH_FAILURES)
            self._hot.claims.failed(segment, f"{error.kind}: {error}", now_us=now_us)
            raise

    def _release(self, segment: Segment, *, now_us: int) -> tuple[int, int]:
        """Let a proven segment's rows go, and erase what was erased since it was claimed.

        The ledger is read after the object is there: an eraser that put its tombstone later finds the
        object itself, one that put it earlier may have walked past before the push.
        """
        ref = SegmentRef(segment.archiver_id, segment.sequence)
        ledger = archive.tombstones(self._store)
        if segment.kind == "import":
            rows = list(_index_rows(self._hot, self._store, segment, ref))
            kept = [row for row in rows if not ledger.covers(row.session_uid, row.user_id, row.created_us)]
            if len(kept) < len(rows):
                archive.erase_from_segment(self._store, ref, ledger)
            self._hot.claims.release_import(segment, kept, now_us=now_us)
            return 0, 0
        if ledger and self._hot.claims.covered_in(segment, ledger.covers):
            archive.erase_from_segment(self._store, ref, ledger)
            self._hot.claims.drop_covered(ledger.covers)
        return self._hot.claims.release(segment, _members(self._hot, self._store, segment, ref), now_us=now_us)

    def _count(self, segment: Segment, deleted: int, kept: int) -> None:
        self.report.segments += 1
        self.report.sessions_released += deleted
        self.report.sessions_kept += kept
        self.report.bytes += segment.file_bytes or 0
        self._metrics.add(CounterName.SEGMENTS)
        self._metrics.add(CounterName.RELEASED, deleted)
        self._metrics.add(CounterName.PUSHED_BYTES, segment.file_bytes or 0)
        log.info("segment_released", extra=fields(sequence=segment.sequence, sessions=deleted, kept=kept))

    # ---------------------------------------------------------------- push and verify

    def _push(self, segment: Segment, *, now_us: int) -> bool:
        """Return when the archive is proven to hold the segment; False if a void stands in its place."""
        ref = SegmentRef(segment.archiver_id, segment.sequence)
        try:
            file = self._spool_file(segment)
        except CorruptDataError as error:
            return self._without_file(segment, ref, error, now_us=now_us)
        for _ in range(TRIES):
            self._put(ref, file.path, _metadata(segment, file))
            verdict = self._ask(segment, ref, file)
            if verdict == "proven":
                self._hot.claims.verified(segment)
                return True
            if verdict == "void":
                self._void(segment, now_us=now_us)
                return False
        raise StorageError(
            f"is not there after {TRIES} tries", operation="push", key=ref.key,
            hint="the segment waits in the spool; run it again",
        )  # fmt: skip

    def _spool_file(self, segment: Segment) -> SpoolFile:
        path = self._hot.spool.path(segment.archiver_id, segment.sequence)
        found = self._hot.spool.verified(path, segment.file_sha256 or "")
        return found if found is not None else sealing.rebuild(self._hot, segment)

    def _put(self, ref: SegmentRef, data: Path | bytes, metadata: dict[str, str]) -> None:
        self._metrics.add(CounterName.PUSH_ATTEMPTS)
        try:
            self._store.create(ref.key, data, metadata=metadata, archival=True)
        except OutcomeUnknownError as error:
            log.warning("push_unanswered", extra=fields(key=ref.key, error=str(error)))

    def _ask(self, segment: Segment, ref: SegmentRef, file: SpoolFile | None) -> Verdict:
        """What stands under the segment's name: its proven bytes, its void, or nothing usable yet."""
        info = self._store.head(ref.key)
        if info is None:
            return "absent"
        if info.metadata.get("void-of") == segment.membership_digest:
            return "void"
        if info.metadata.get("membership-digest") != segment.membership_digest:
            raise ConflictError(
                "another store wrote a segment of this archiver id and sequence; nothing was overwritten",
                operation="push", key=ref.key,
                hint="this store or the other is a copy: run `sessionlake doctor --new-archiver` on one of them",
            )  # fmt: skip
        if file is not None and self._stated(info, file):
            return "proven"
        if _read_back(self._store, ref, info):
            return "proven"
        return self._repair(segment, ref, info, file)

    def _stated(self, info: ObjectInfo, file: SpoolFile) -> bool:
        """Whether the store's own word proves the bytes, so that nothing need be read back."""
        if info.size_bytes != file.size_bytes:
            return False
        if self._facts is not None and self._facts.refuses_bad_checksum and info.sha256 is not None:
            return info.sha256 == file.sha256
        return info.md5 is not None and info.md5 == file.md5()

    def _repair(self, segment: Segment, ref: SegmentRef, info: ObjectInfo, file: SpoolFile | None) -> Verdict:
        if file is None or "erased" in info.metadata:
            raise CorruptDataError(
                "does not match its own digest, and there is no other copy to repair it from",
                operation="verify", key=ref.key, hint="restore an older version of the object",
            )  # fmt: skip
        log.error("segment_damaged", extra=fields(key=ref.key))
        try:
            self._store.replace(
                ref.key, file.path, if_match=info.etag, metadata=_metadata(segment, file), archival=True
            )
        except OutcomeUnknownError as error:
            log.warning("push_unanswered", extra=fields(key=ref.key, error=str(error)))
        return "absent"

    # ---------------------------------------------------------------- ways out

    def _without_file(self, segment: Segment, ref: SegmentRef, error: CorruptDataError, *, now_us: int) -> bool:
        """A closed segment that cannot be built: perhaps the archive has it already, else a void takes its place."""
        verdict = self._ask(segment, ref, None)
        if verdict == "absent":
            log.error("segment_void", extra=fields(key=ref.key, error=str(error)))
            header = segments.SegmentHeader(ref.archiver_id, ref.sequence)
            self._put(ref, segments.void_segment(header, reason=str(error)), _void_metadata(segment))
            verdict = self._ask(segment, ref, None)
        if verdict == "proven":
            self._hot.claims.verified(segment)
            return True
        if verdict == "void":
            self._void(segment, now_us=now_us, reason=str(error))
            return False
        raise StorageError("the void that takes its place is not there yet", operation="push", key=ref.key)

    def _void(self, segment: Segment, *, now_us: int, reason: str = "a void stands under its name") -> None:
        self._hot.claims.void(segment, reason, now_us=now_us)
        self._hot.spool.remove(self._hot.spool.path(segment.archiver_id, segment.sequence))


def _metadata(segment: Segment, file: SpoolFile) -> dict[str, str]:
    return {
        "membership-digest": segment.membership_digest or "",
        "sha256": file.sha256,
        "sessions": str(segment.n_sessions),
    }


def _void_metadata(segment: Segment) -> dict[str, str]:
    return {"void-of": segment.membership_digest or "", "sessions": "0"}


def _read_back(store: ObjectStore, ref: SegmentRef, info: ObjectInfo) -> bool:
    """Whether the object's bytes are those its metadata speaks of."""
    try:
        data = store.get(ref.key)
    except CorruptDataError:
        return False
    return hashlib.sha256(data).hexdigest() == info.metadata.get("sha256")


def _members(hot: HotStore, store: ObjectStore, segment: Segment, ref: SegmentRef) -> dict[str, Member]:
    """What a segment in the archive holds, by session_uid; from there if its spool file is gone or damaged."""
    path = hot.spool.path(segment.archiver_id, segment.sequence)
    if path.exists():
        try:
            return _members_in(path, ref)
        except CorruptDataError as error:
            log.warning("spool_file_damaged", extra=fields(key=ref.key, error=str(error)))
    return _members_in(pa.BufferReader(store.get(ref.key)), ref)


def _members_in(source: Path | pa.NativeFile, ref: SegmentRef) -> dict[str, Member]:
    members: dict[str, Member] = {}
    file = segments.open_segment(source, key=ref.key)
    for row_group, batch in enumerate(segments.read_batches(file, key=ref.key, columns=_MEMBER_COLUMNS)):
        uids, digests = (batch.column(name).to_pylist() for name in _MEMBER_COLUMNS)
        members |= {uid: Member(digest, row_group) for uid, digest in zip(uids, digests, strict=True)}
    return members


def _index_rows(hot: HotStore, store: ObjectStore, segment: Segment, ref: SegmentRef) -> Iterator[ArchivedRow]:
    """The archived index of an imported segment, from its file or, if that is gone, from the archive."""
    path = hot.spool.path(segment.archiver_id, segment.sequence)
    file = segments.open_segment(path if path.exists() else pa.BufferReader(store.get(ref.key)), key=ref.key)
    for row_group, batch in enumerate(segments.read_batches(file, key=ref.key, columns=_INDEX_COLUMNS)):
        times = {name: batch.column(name).cast(pa.int64()).to_pylist() for name in ("created_at", "updated_at")}
        for i, row in enumerate(batch.select(list(_INDEX_COLUMNS[:6])).to_pylist()):
            updated_us = times["updated_at"][i]
            yield ArchivedRow(
                session_uid=row["session_uid"],
                revision=row["revision"],
                session_id=row["session_id"],
                user_id=row["user_id"],
                created_us=times["created_at"][i],
                updated_us=updated_us,
                last_activity_us=updated_us if updated_us is not None else times["created_at"][i],
                language=row["language"],
                title=None,
                segment=segment.segment,
                row_group=row_group,
                reason="imported",
                content_sha256=row["content_sha256"],
            )
