"""Erase a session or a user: from this host's store, from every segment, from every object version.

A tombstone comes first, so that whoever archives, imports, restores or compacts from then on leaves the
erased out, and so that a killed erasure is finished by running it again. The tables and exports obey the
same tombstones (pipelines). Other hosts carry a tombstone out at their next sweep and acknowledge it.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from archiver import archive, segments
from archiver.archive import ErasedSegment, Ledger, SegmentRef, Tombstone
from archiver.errors import CorruptDataError, InputError, UnknownSessionError, UnsuitableStorageError
from archiver.hot import HotStore
from archiver.objects import ObjectStore
from archiver.telemetry import fields

log = logging.getLogger(__name__)
T = TypeVar("T")

WORKERS: Final = 4  # segments looked at together; each takes its size in memory
_KEYS: Final = ["session_uid", "session_id", "user_id", "created_at"]


class Found(NamedTuple):
    """One session that an erasure is about."""

    session_uid: str
    user_id: str | None
    created_us: int


@dataclass(frozen=True, slots=True)
class ErasePlan:
    """What an erasure is about to do; making it writes nothing.

    Attributes:
        tombstones: One for every conversation, and one for the user, for what others may still bring.
        live_sessions: Sessions in this host's store.
        segments: Segment key → sessions in it (a session counts once for each revision).
        unreadable: Segments that cannot be looked into; they keep an erasure from being complete.
        session_id: What was asked for, if not a user.
    """

    tombstones: tuple[Tombstone, ...]
    live_sessions: int
    segments: dict[str, int]
    unreadable: tuple[str, ...]
    session_id: str | None = None


@dataclass(frozen=True, slots=True)
class EraseReceipt:
    """What an erasure did, in names and numbers; it holds no id and no text of the erased.

    Attributes:
        tombstones: Names in the ledger.
        live_sessions: Sessions deleted from this host's store.
        segments: Key → sessions removed from it.
        removed_versions: Older versions of those objects that were deleted.
        unreadable: Damaged segments that could not be rewritten.
        pending_archivers: Archivers that have not acknowledged: their next sweep does.
    """

    tombstones: tuple[str, ...]
    live_sessions: int
    segments: dict[str, int]
    removed_versions: int
    unreadable: tuple[str, ...]
    pending_archivers: tuple[str, ...]

    @property
    def complete(self) -> bool:
        """Whether nothing of the erased is left in any store and any segment."""
        return not self.unreadable and not self.pending_archivers


def plan_erasure(
    hot: HotStore, store: ObjectStore, *, user_id: str | None = None, session_id: str | None = None, now_us: int
) -> ErasePlan:
    """Find everything about one user, or every conversation of one session id; reads the keys of all segments.

    UnknownSessionError if nobody has ever seen the session id. A user without sessions can be erased:
    the tombstone then keeps an import of older sessions out.
    """
    if (user_id is None) == (session_id is None):
        raise InputError("name a user or a session", operation="erase", hint="exactly one: --user ID or --session ID")
    column, wanted = ("user_id", user_id or "") if session_id is None else ("session_id", session_id)
    in_segments, unreadable = _outcomes(_walk(store, lambda ref: _matching(store, ref, column, wanted)))
    live, indexed = (_in_table(hot, table, column, wanted) for table in ("session", "archived"))
    found = {f.session_uid: f for part in (live, indexed, *(p for _, p in in_segments)) for f in part}
    entered = archive.tombstones(store)
    stones = {
        entered.of_session(f.session_uid, f.created_us)
        or Tombstone.of("session", f.session_uid, max(now_us, f.created_us))
        for f in found.values()
    }
    if user_id is not None:
        stones.add(Tombstone.of("user", user_id, now_us))
        ledger = Ledger(frozenset(stones))  # earlier revisions may not have known the user
        in_segments, _ = _outcomes(_walk(store, lambda ref: _covered(store, ref, ledger))) if found else ([], [])
    else:
        stones |= set(archive.tombstones_of_id(store, entered, wanted))
    if not stones:
        raise UnknownSessionError(
            "no such session, here or in the archive", operation="erase", key=wanted,
            hint=f"unreadable segments: {', '.join(unreadable)}" if unreadable else "",
        )  # fmt: skip
    counts = {ref.key: len(part) for ref, part in in_segments if part}
    return ErasePlan(tuple(sorted(stones)), len(live), counts, tuple(unreadable), session_id)


def erase(hot: HotStore, store: ObjectStore, plan: ErasePlan, *, push: Callable[[], object]) -> EraseReceipt:
    """Carry a plan out; safe to repeat, and a killed one is finished by repeating it.

    ``push`` is a sweep of this host: it brings claimed segments to the archive, where they can be
    rewritten, and acknowledges. UnsuitableStorageError, before anything is written, if the storage
    cannot replace objects safely.
    """
    if not store.probe(f"_doctor/{uuid.uuid4().hex}").replaces_if_match:
        raise UnsuitableStorageError(
            "objects cannot be replaced safely there: it does not honour If-Match", operation="erase", key=store.url,
            hint="nothing was erased and trying again will not help: move the archive to a server that does",
        )  # fmt: skip
    for tombstone in plan.tombstones:
        archive.put_tombstone(store, tombstone, session_id=plan.session_id)
    ledger = archive.tombstones(store)
    live = sum(ledger.covers(*found) for found in _live(hot))
    hot.claims.drop_covered(ledger.covers)
    push()
    rewritten, unreadable = _outcomes(_walk(store, lambda ref: _rewrite(store, ref, ledger)))
    hot.checkpoint()
    names = tuple(tombstone.name for tombstone in plan.tombstones)
    receipt = EraseReceipt(
        tombstones=names,
        live_sessions=live,
        segments={ref.key: done.erased_sessions for ref, done in rewritten if done},
        removed_versions=sum(done.removed_versions for _, done in rewritten if done),
        unreadable=tuple(unreadable),
        pending_archivers=tuple(pending_archivers(store, names)),
    )
    log.info("erased", extra=fields(tombstones=len(names), sessions=live, segments=len(receipt.segments)))
    return receipt


def pending_archivers(store: ObjectStore, tombstones: tuple[str, ...]) -> Iterator[str]:
    """Archivers, but the retired, that have not acknowledged all of these tombstones yet. One request each."""
    for archiver_id in sorted(set(archive.list_archivers(store)) - archive.retired_archivers(store)):
        if not archive.acknowledged(store, archiver_id).issuperset(tombstones):
            yield archiver_id


def _walk(store: ObjectStore, look: Callable[[SegmentRef], T]) -> Iterator[tuple[SegmentRef, T | CorruptDataError]]:
    """Look at every segment of every archiver; a damaged one is its own outcome, not the end of the walk."""

    def attempt(ref: SegmentRef) -> tuple[SegmentRef, T | CorruptDataError]:
        try:
            return ref, look(ref)
        except CorruptDataError as error:
            return ref, error

    refs = [ref for archiver in archive.list_archivers(store) for ref, _ in archive.list_segments(store, archiver)]
    with ThreadPoolExecutor(WORKERS) as pool:
        yield from pool.map(attempt, refs)


def _outcomes(
    walked: Iterator[tuple[SegmentRef, T | CorruptDataError]],
) -> tuple[list[tuple[SegmentRef, T]], list[str]]:
    good: list[tuple[SegmentRef, T]] = []
    damaged: list[str] = []
    for ref, outcome in walked:
        if isinstance(outcome, CorruptDataError):
            log.error("segment_unreadable", extra=fields(key=ref.key, error=str(outcome)))
            damaged.append(ref.key)
        else:
            good.append((ref, outcome))
    return good, damaged


def _matching(store: ObjectStore, ref: SegmentRef, column: str, wanted: str) -> list[Found]:
    keys = _keys(archive.open_remote(store, ref), ref)
    return list(_found(keys.filter(pc.equal(keys.column(column), wanted))))


def _covered(store: ObjectStore, ref: SegmentRef, ledger: Ledger) -> list[Found]:
    return [found for found in _found(_keys(archive.open_remote(store, ref), ref)) if ledger.covers(*found)]


def _rewrite(store: ObjectStore, ref: SegmentRef, ledger: Ledger) -> ErasedSegment | None:
    file = archive.open_remote(store, ref)
    covered = any(ledger.covers(*found) for found in _found(_keys(file, ref)))
    # a rewrite that was killed may have left old versions behind
    if covered or "erased" in segments.segment_metadata(file, key=ref.key):
        return archive.erase_from_segment(store, ref, ledger)
    return None


def _keys(file: pq.ParquetFile, ref: SegmentRef) -> pa.Table:
    batches = list(segments.read_batches(file, key=ref.key, columns=_KEYS))
    return pa.Table.from_batches(batches, schema=pa.schema([segments.SCHEMA.field(name) for name in _KEYS]))


def _found(keys: pa.Table) -> Iterator[Found]:
    created = keys.column("created_at").cast(pa.int64()).to_pylist()
    rows = zip(keys.column("session_uid").to_pylist(), keys.column("user_id").to_pylist(), created, strict=True)
    yield from (Found(*row) for row in rows)


def _live(hot: HotStore) -> list[Found]:
    with hot.reader() as connection:
        return [Found(*row) for row in connection.execute("SELECT session_uid, user_id, created_us FROM session")]


def _in_table(hot: HotStore, table: str, column: str, wanted: str) -> list[Found]:
    with hot.reader() as connection:
        rows = connection.execute(
            f"SELECT session_uid, user_id, created_us FROM {table} WHERE {column} = ?",  # noqa: S608  our own names
            (wanted,),
        ).fetchall()
    return [Found(*row) for row in rows]
