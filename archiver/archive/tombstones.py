"""The ledger of the erased, and the rewrite that makes a segment obey it.

A tombstone is an object whose key says all: reading the ledger costs one listing and no GET.
Ids are in it as digests only. It covers sessions created up to the moment of the erasure, so that
someone who comes back later is a new user.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from archiver import segments
from archiver.archive.keys import PREFIX, SegmentRef, open_bytes
from archiver.errors import StorageError
from archiver.objects import ObjectStore

TOMBSTONES: Final = f"{PREFIX}/_tombstones/"
ACKNOWLEDGEMENTS: Final = f"{PREFIX}/_acks/"
_NAME = re.compile(r"(session|user)-([0-9a-f]{64})-(\d{16,18})")
_TRIES: Final = 5

TombstoneKind = Literal["session", "user"]


@dataclass(frozen=True, slots=True, order=True)
class Tombstone:
    """One erasure: of a session (by session_uid) or of a user (by user_id)."""

    kind: TombstoneKind
    digest: str
    erased_us: int

    @classmethod
    def of(cls, kind: TombstoneKind, value: str, erased_us: int) -> Tombstone:
        """The tombstone of a session_uid or user_id."""
        return cls(kind, _digest(kind, value), erased_us)

    @property
    def name(self) -> str:
        """The last part of its key."""
        return f"{self.kind}-{self.digest}-{self.erased_us:016d}"

    @property
    def key(self) -> str:
        """The object key."""
        return f"{TOMBSTONES}{self.name}.json"


class Ledger:
    """All tombstones at one moment; false when there are none."""

    def __init__(self, entries: frozenset[Tombstone]) -> None:
        self.entries = entries
        latest: dict[tuple[str, str], int] = defaultdict(int)
        for entry in entries:
            latest[entry.kind, entry.digest] = max(latest[entry.kind, entry.digest], entry.erased_us)
        self._latest = dict(latest)

    def __bool__(self) -> bool:
        return bool(self.entries)

    def covers(self, session_uid: str, user_id: str | None, created_at_us: int) -> bool:
        """Whether a session must not exist any more."""
        if not self._latest:
            return False
        erased_us = self._latest.get(("session", _digest("session", session_uid)), -1)
        if user_id is not None:
            erased_us = max(erased_us, self._latest.get(("user", _digest("user", user_id)), -1))
        return created_at_us <= erased_us

    def of_session(self, session_uid: str, created_at_us: int) -> Tombstone | None:
        """The tombstone that names this very session and covers it, so that it needs no second one."""
        digest = _digest("session", session_uid)
        erased_us = self._latest.get(("session", digest), -1)
        return Tombstone("session", digest, erased_us) if created_at_us <= erased_us else None

    def names_session(self, session_uid: str) -> bool:
        """Whether this very session was erased, whatever is known of its user and age."""
        return ("session", _digest("session", session_uid)) in self._latest


def _digest(kind: str, value: str) -> str:
    return hashlib.sha256(f"{kind}\x1f{value}".encode()).hexdigest()


def put_tombstone(store: ObjectStore, tombstone: Tombstone, *, session_id: str | None = None) -> None:
    """Enter an erasure into the ledger; idempotent. One request.

    ``session_id`` is what the erasure was asked for; its digest lets a killed one be found again.
    """
    body = {} if session_id is None else {"session_id": _digest("session_id", session_id)}
    store.create(tombstone.key, json.dumps(body).encode())


def tombstones_of_id(store: ObjectStore, ledger: Ledger, session_id: str) -> Iterator[Tombstone]:
    """The tombstones an erasure of this session id has left. One request for each erased session."""
    wanted = _digest("session_id", session_id)
    for tombstone in sorted(ledger.entries):
        if tombstone.kind == "session" and json.loads(store.get(tombstone.key)).get("session_id") == wanted:
            yield tombstone


def tombstones(store: ObjectStore) -> Ledger:
    """Read the ledger. One request per 1,000 tombstones."""
    names = (info.key.removeprefix(TOMBSTONES).removesuffix(".json") for info in store.list(TOMBSTONES))
    return Ledger(frozenset(_parsed(names)))


def _parsed(names: Iterator[str]) -> Iterator[Tombstone]:
    for name in names:
        match = _NAME.fullmatch(name)
        if match:
            yield Tombstone("session" if match[1] == "session" else "user", match[2], int(match[3]))


def acknowledge(store: ObjectStore, archiver_id: str, tombstone: Tombstone) -> None:
    """Say that this archiver holds nothing a tombstone covers, nor will push any; idempotent. One request."""
    store.create(f"{ACKNOWLEDGEMENTS}{archiver_id}/{tombstone.name}", b"{}")


def acknowledged(store: ObjectStore, archiver_id: str) -> frozenset[str]:
    """Names of the tombstones an archiver has acknowledged. One request per 1,000."""
    prefix = f"{ACKNOWLEDGEMENTS}{archiver_id}/"
    return frozenset(info.key.removeprefix(prefix) for info in store.list(prefix))


@dataclass(frozen=True, slots=True)
class ErasedSegment:
    """What one rewrite removed."""

    ref: SegmentRef
    erased_sessions: int
    removed_versions: int


def erase_from_segment(store: ObjectStore, ref: SegmentRef, ledger: Ledger) -> ErasedSegment | None:
    """Rewrite a segment without the sessions the ledger covers, then delete its older versions; None: none covered.

    Key and stored membership digest stay, so that its archiver still knows it as its own; the metadata
    says how many were erased and the digest of what is left. Safe to repeat and to race.
    """
    for _ in range(_TRIES):
        info = store.head(ref.key)
        if info is None:
            return None
        file = open_bytes(store.get(ref.key), ref)
        kept, erased = _without_covered(file, ledger, key=ref.key)
        if not erased:
            # An earlier rewrite may have been killed before it removed the old versions.
            removed = store.delete_versions(ref.key, keep_latest=True) if "erased" in info.metadata else 0
            return ErasedSegment(ref, 0, removed) if removed else None
        data, metadata = _rewritten(ref, file, kept, info.metadata, erased)
        if store.replace(ref.key, data, if_match=info.etag, metadata=metadata, archival=True):
            return ErasedSegment(ref, erased, store.delete_versions(ref.key, keep_latest=True))
    raise StorageError(
        f"changed during each of {_TRIES} attempts", operation="erase from segment", key=ref.key, hint="run it again"
    )


def _without_covered(file: pq.ParquetFile, ledger: Ledger, *, key: str) -> tuple[list[pa.RecordBatch], int]:
    kept: list[pa.RecordBatch] = []
    erased = 0
    for batch in segments.read_batches(file, key=key):
        uids, users = batch.column("session_uid").to_pylist(), batch.column("user_id").to_pylist()
        times = batch.column("created_at").cast(pa.int64()).to_pylist()
        mask = [not ledger.covers(*row) for row in zip(uids, users, times, strict=True)]
        erased += mask.count(False)
        if any(mask):
            kept.append(batch.filter(pa.array(mask)))
    return kept, erased


def _rewritten(
    ref: SegmentRef, file: pq.ParquetFile, kept: list[pa.RecordBatch], metadata: Mapping[str, str], erased: int
) -> tuple[bytes, dict[str, str]]:
    stored = segments.segment_metadata(file, key=ref.key)
    total = erased + int(stored.get("erased", "0"))
    sealed = stored.get("sealed_membership_digest", stored["membership_digest"])
    sink = io.BytesIO()
    notes = {"erased": str(total), "sealed_membership_digest": sealed}
    summary = segments.write_segment(sink, segments.SegmentHeader(ref.archiver_id, ref.sequence), kept, notes=notes)
    data = sink.getvalue()
    return data, {
        **metadata,
        "membership-digest": sealed,
        "content-digest": summary.membership_digest,
        "sessions": str(summary.n_sessions),
        "sha256": hashlib.sha256(data).hexdigest(),
        "erased": str(total),
    }
