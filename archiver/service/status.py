"""Where everything stands, for a person or a monitor."""

from __future__ import annotations

from dataclasses import dataclass

from archiver import archive, sealing
from archiver.errors import StorageError
from archiver.hot import HotStore
from archiver.hot.due import Backlog
from archiver.hot.progress import Progress
from archiver.hot.segment import Segment
from archiver.objects import ObjectStore
from archiver.settings import Settings


@dataclass(frozen=True, slots=True)
class StatusReport:
    """Where everything stands.

    Attributes:
        backlog: Sessions due and in no segment yet, and how far the store is above its limit.
        oldest_due_seconds: How long the oldest of them has been due; None without any.
        waiting: Segments not yet released, with the last error of each.
        archivers: Everyone registered in the archive; None if it could not be asked.
        unacknowledged: Archivers that still have to carry erasures out, and how many; the retired are left out.
        storage_error: Why it could not be asked.
    """

    progress: Progress
    backlog: Backlog
    oldest_due_seconds: float | None
    spool_bytes: int
    waiting: tuple[Segment, ...]
    archivers: tuple[str, ...] | None
    unacknowledged: dict[str, int]
    storage_error: str | None


def status(hot: HotStore, store: ObjectStore, settings: Settings, *, now_us: int) -> StatusReport:
    """Where everything stands; an answer even if the archive gives none.

    Two requests to the archive; while there are tombstones, one more and one for each archiver.
    """
    backlog = hot.claims.backlog(sealing.claim_limits(settings), now_us=now_us)
    archivers: tuple[str, ...] | None = None
    unacknowledged: dict[str, int] = {}
    storage_error = None
    try:
        archivers = tuple(archive.list_archivers(store))
        unacknowledged = _unacknowledged(store, archivers)
    except StorageError as error:
        storage_error = str(error)
    waited_us = now_us - backlog.oldest_due_us if backlog.oldest_due_us is not None else None
    return StatusReport(
        progress=hot.claims.progress(),
        backlog=backlog,
        oldest_due_seconds=waited_us / 1_000_000 if waited_us is not None else None,
        spool_bytes=hot.spool.size_bytes(),
        waiting=tuple(hot.claims.unreleased()),
        archivers=archivers,
        unacknowledged=unacknowledged,
        storage_error=storage_error,
    )


def _unacknowledged(store: ObjectStore, archivers: tuple[str, ...]) -> dict[str, int]:
    names = {tombstone.name for tombstone in archive.tombstones(store).entries}
    if not names:
        return {}
    waited_for = sorted(set(archivers) - archive.retired_archivers(store))
    missing = {archiver_id: len(names - archive.acknowledged(store, archiver_id)) for archiver_id in waited_for}
    return {archiver_id: count for archiver_id, count in missing.items() if count}
