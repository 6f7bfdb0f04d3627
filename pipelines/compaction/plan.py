"""What a compaction takes in: new segments after every archiver's watermark, cut into tasks of bounded size."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa

from archiver import archive, segments
from archiver.archive import SegmentRef
from archiver.errors import CorruptDataError, InputError
from archiver.objects import ObjectStore
from pipelines.ahead import ahead

KEY_COLUMNS: Final = ("session_uid", "revision", "user_id", "created_at", "content_sha256")
_SEGMENTS_AHEAD: Final = 2  # each may have tens of megabytes


@dataclass(frozen=True, slots=True)
class Gap:
    """Why an archiver's watermark cannot pass a sequence number: ``missing`` or ``damaged``."""

    ref: SegmentRef
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Discovery:
    """New segments in (archiver, sequence) order, and the gaps behind which nothing was taken.

    Attributes:
        size_bytes: Of the segments' objects, compressed as they are.
    """

    refs: tuple[SegmentRef, ...]
    gaps: tuple[Gap, ...]
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class SegmentKeys:
    """What planning needs of one segment.

    Attributes:
        row_groups: (rows, uncompressed bytes) of every row group.
        keys: KEY_COLUMNS of every row.
        sha256: Digest of the object's bytes.
    """

    ref: SegmentRef
    sha256: str
    row_groups: tuple[tuple[int, int], ...]
    keys: pa.Table


@dataclass(frozen=True, slots=True)
class Part:
    """Row groups ``start`` to ``stop`` (None: to the end) of one segment."""

    ref: SegmentRef
    start: int
    stop: int | None


def discover(store: ObjectStore, watermarks: Mapping[str, int], *, stop_at: Iterable[Gap], limit: int) -> Discovery:
    """List what was archived after the watermarks: one listing per archiver, whatever lies before them.

    An archiver's segments are taken up to the first missing sequence number that no void marker
    passes, or up to a segment in ``stop_at``.
    """
    known = {gap.ref.archiver_id: gap for gap in stop_at}
    refs: list[SegmentRef] = []
    gaps: list[Gap] = []
    size = 0
    for archiver_id in archive.list_archivers(store):
        watermark = watermarks.get(archiver_id, 0)
        expected = watermark + 1 if watermark else archive.first_sequence(store, archiver_id)
        for ref, info in archive.list_segments(store, archiver_id, watermark):
            missing = _first_missing(store, archiver_id, expected, ref.sequence)
            if missing is not None:
                gaps.append(Gap(missing, "missing", f"{ref.key} follows"))
                break
            stop = known.get(archiver_id)
            if stop is not None and ref.sequence >= stop.ref.sequence:
                gaps.append(stop)
                break
            if len(refs) == limit:
                return Discovery(tuple(refs), tuple(gaps), size)
            refs.append(ref)
            size += info.size_bytes
            expected = ref.sequence + 1
    return Discovery(tuple(refs), tuple(gaps), size)


def _first_missing(store: ObjectStore, archiver_id: str, expected: int, found: int) -> SegmentRef | None:
    for sequence in range(expected, found):
        ref = SegmentRef(archiver_id, sequence)
        if store.head(ref.void_key) is None:
            return ref
    return None


def accept_gap(store: ObjectStore, archiver_id: str, sequence: int, *, reason: str, now_us: int) -> None:
    """Let an archiver's watermark pass a segment that is lost for good: a marker beside the missing key.

    InputError if the segment is there; idempotent.
    """
    ref = SegmentRef(archiver_id, sequence)
    if store.head(ref.key) is not None:
        raise InputError(
            "the segment exists", operation="accept gap", key=ref.key, hint="only a missing one can be passed"
        )
    store.create(ref.void_key, json.dumps({"reason": reason, "accepted_us": now_us}, sort_keys=True).encode())


def read_keys(store: ObjectStore, refs: Sequence[SegmentRef], *, max_bytes: int) -> tuple[list[SegmentKeys], list[Gap]]:
    """Keys of the segments, up to about ``max_bytes`` of uncompressed rows, at least one.

    A damaged segment ends its archiver. One GET per segment; memory grows with the number of sessions, and holds
    three segments.
    """
    found: list[SegmentKeys] = []
    gaps: dict[str, Gap] = {}
    total = 0
    for ref, data in zip(refs, ahead(lambda ref: fetch(store, ref), refs, most=_SEGMENTS_AHEAD), strict=True):
        if ref.archiver_id in gaps:
            continue
        read = data if isinstance(data, Gap) else _keys_of(ref, data)
        if isinstance(read, Gap):
            gaps[ref.archiver_id] = read
            continue
        total += sum(size for _, size in read.row_groups)
        if found and total > max_bytes:
            break
        found.append(read)
    return found, list(gaps.values())


def fetch(store: ObjectStore, ref: SegmentRef) -> bytes | Gap:
    """A segment's bytes; a Gap if they do not arrive as they were sent."""
    try:
        return store.get(ref.key)
    except CorruptDataError as error:
        return Gap(ref, "damaged", str(error))


def _keys_of(ref: SegmentRef, data: bytes) -> SegmentKeys | Gap:
    try:
        file = archive.open_bytes(data, ref)
        groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
        keys = segments.read_table(file, key=ref.key, row_groups=range(file.num_row_groups), columns=KEY_COLUMNS)
    except CorruptDataError as error:
        return Gap(ref, "damaged", str(error))
    sizes = tuple((g.num_rows, g.total_byte_size) for g in groups)
    return SegmentKeys(ref=ref, sha256=hashlib.sha256(data).hexdigest(), row_groups=sizes, keys=keys)


def cut_tasks(segment_keys: Sequence[SegmentKeys], task_bytes: int) -> list[list[Part]]:
    """Consecutive row groups of up to ``task_bytes``, at least one per task."""
    tasks: list[list[Part]] = [[]]
    held = 0
    for segment in segment_keys:
        start = 0
        for i, (_, size) in enumerate(segment.row_groups):
            if held and held + size > task_bytes:
                if i > start:
                    tasks[-1].append(Part(segment.ref, start, i))
                tasks.append([])
                start, held = i, 0
            held += size
        if len(segment.row_groups) > start:
            tasks[-1].append(Part(segment.ref, start, None))
    return [parts for parts in tasks if parts]


def to_body(segment_keys: Sequence[SegmentKeys], tasks: Sequence[Sequence[Part]]) -> dict[str, Any]:
    """The plan's inputs and task boundaries as JSON values."""
    return {
        "segments": [[k.ref.archiver_id, k.ref.sequence] for k in segment_keys],
        "tasks": [[[p.ref.archiver_id, p.ref.sequence, p.start, p.stop] for p in parts] for parts in tasks],
    }


def from_body(body: Mapping[str, Any]) -> tuple[list[SegmentRef], list[list[Part]]]:
    """The inverse of :func:`to_body`."""
    refs = [SegmentRef(*pair) for pair in body["segments"]]
    tasks = [[Part(SegmentRef(a, s), start, stop) for a, s, start, stop in parts] for parts in body["tasks"]]
    return refs, tasks


def advanced(watermarks: Mapping[str, int], segment_keys: Iterable[SegmentKeys]) -> dict[str, int]:
    """The watermarks once these segments are consumed."""
    after = dict(watermarks)
    for segment in segment_keys:
        after[segment.ref.archiver_id] = segment.ref.sequence
    return after
