"""Names in the archive, and the walks over them; no key contains anything a user supplied."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from archiver import segments
from archiver.errors import CorruptDataError
from archiver.objects import ObjectInfo, ObjectStore

PREFIX: Final = "archive/v1"
ARCHIVERS: Final = f"{PREFIX}/_archivers/"
RETIRED: Final = f"{PREFIX}/_retired/"
_SEGMENT = re.compile(rf"{PREFIX}/([0-9a-f]{{32}})/(\d{{12}})\.parquet")


@dataclass(frozen=True, slots=True, order=True)
class SegmentRef:
    """A segment's place: whose, and which in that archiver's sequence (from 1)."""

    archiver_id: str
    sequence: int

    @property
    def key(self) -> str:
        """The object key."""
        return f"{PREFIX}/{self.archiver_id}/{self.sequence:012d}.parquet"

    @property
    def void_key(self) -> str:
        """The key of the marker that passes a lost segment."""
        return f"{PREFIX}/{self.archiver_id}/{self.sequence:012d}.void.json"

    @classmethod
    def from_key(cls, key: str) -> SegmentRef | None:
        """The reference a key stands for, None if it is no segment key."""
        match = _SEGMENT.fullmatch(key)
        return cls(match[1], int(match[2])) if match else None


def archiver_key(archiver_id: str) -> str:
    """Registry entry of an archiver."""
    return f"{ARCHIVERS}{archiver_id}.json"


def register_archiver(store: ObjectStore, archiver_id: str, first_sequence: int = 1) -> None:
    """Announce an archiver; idempotent. Costs one request."""
    body = json.dumps({"archiver_id": archiver_id, "first_sequence": first_sequence}, sort_keys=True)
    store.create(archiver_key(archiver_id), body.encode())


def list_archivers(store: ObjectStore) -> list[str]:
    """All registered archiver ids, sorted."""
    return sorted(info.key.removeprefix(ARCHIVERS).removesuffix(".json") for info in store.list(ARCHIVERS))


def retire_archiver(store: ObjectStore, archiver_id: str) -> None:
    """Note that an archiver is gone for good, with its hot store; idempotent. One request."""
    store.create(f"{RETIRED}{archiver_id}.json", b"{}")


def retired_archivers(store: ObjectStore) -> frozenset[str]:
    """Archivers that erasures do not wait for. One request per 1,000."""
    return frozenset(info.key.removeprefix(RETIRED).removesuffix(".json") for info in store.list(RETIRED))


def first_sequence(store: ObjectStore, archiver_id: str) -> int:
    """The first sequence number an archiver is answerable for. One request."""
    key = archiver_key(archiver_id)
    try:
        return int(json.loads(store.get(key))["first_sequence"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptDataError("is no registry entry", operation="read registry", key=key) from error


def list_segments(store: ObjectStore, archiver_id: str, after: int = 0) -> Iterator[tuple[SegmentRef, ObjectInfo]]:
    """Segments of one archiver with a sequence above ``after``, in order; requests grow with new segments only."""
    start = SegmentRef(archiver_id, after).key if after else None
    for info in store.list(f"{PREFIX}/{archiver_id}/", start_after=start):
        ref = SegmentRef.from_key(info.key)
        if ref is not None:
            yield ref, info


def open_remote(store: ObjectStore, ref: SegmentRef) -> pq.ParquetFile:
    """A segment's bytes, fetched whole and opened; CorruptDataError if they are no segment or another's."""
    return open_bytes(store.get(ref.key), ref)


def open_bytes(data: bytes, ref: SegmentRef) -> pq.ParquetFile:
    """Bytes that came from a segment's key, opened; CorruptDataError if they are no segment or another's."""
    return open_source(pa.BufferReader(data), ref)


def open_source(source: pa.NativeFile, ref: SegmentRef) -> pq.ParquetFile:
    """A segment opened for reading parts of it; CorruptDataError if it is no segment or another's."""
    file = segments.open_segment(source, key=ref.key)
    found = segments.segment_metadata(file, key=ref.key).get("segment_id")
    expected = segments.SegmentHeader(ref.archiver_id, ref.sequence).segment_id
    if found != expected:
        raise CorruptDataError(f"holds segment {found}", operation="read segment", key=ref.key)
    return file
