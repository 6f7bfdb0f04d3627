"""Segment format v1: one Parquet file, one row per session, sorted by session_uid (docs/FORMAT.md).

The writer takes record batches and streams; the reader yields record batches, or one session by a
range read of one row group. Bytes are deterministic for one pyarrow version; the membership digest
is the same for all.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from archiver.errors import CorruptDataError
from archiver.events import (
    FeedbackCounts,
    Interaction,
    Message,
    SessionRecord,
    SessionRow,
    membership_digest,
)

FORMAT_VERSION: Final = 1
ROW_GROUP_SESSIONS: Final = 128
ROW_GROUP_BYTES: Final = 8 * 1024**2

TIME: Final = pa.timestamp("us", "UTC")
MESSAGE: Final = pa.struct(
    [
        pa.field("index", pa.int32(), nullable=False),
        pa.field("role", pa.string(), nullable=False),
        pa.field("content", pa.string()),
        pa.field("created_at", TIME, nullable=False),
        pa.field("language", pa.string()),
    ]
)
INTERACTION: Final = pa.struct(
    [
        pa.field("index", pa.int32(), nullable=False),
        pa.field("created_at", TIME, nullable=False),
        pa.field("action_type", pa.string(), nullable=False),
        pa.field("node_id", pa.string()),
        pa.field("content", pa.string()),
        pa.field("feedback", pa.string()),
        pa.field("metadata", pa.string(), nullable=False),
    ]
)
SCHEMA: Final = pa.schema(
    [
        pa.field("session_uid", pa.string(), nullable=False),
        pa.field("session_id", pa.string(), nullable=False),
        pa.field("revision", pa.int32(), nullable=False),
        pa.field("user_id", pa.string()),
        pa.field("created_at", TIME, nullable=False),
        pa.field("updated_at", TIME),
        pa.field("archived_at", TIME, nullable=False),
        pa.field("tz_assumed", pa.bool_(), nullable=False),
        pa.field("language", pa.string()),
        pa.field("messages", pa.list_(pa.field("element", MESSAGE, nullable=False)), nullable=False),
        pa.field("interactions", pa.list_(pa.field("element", INTERACTION, nullable=False)), nullable=False),
        pa.field("graph_state", pa.string()),
        pa.field("metadata", pa.string(), nullable=False),
        pa.field("extra", pa.string()),
        pa.field("reported_correct", pa.int64()),
        pa.field("reported_incorrect", pa.int64()),
        pa.field("reported_partial", pa.int64()),
        pa.field("content_sha256", pa.string(), nullable=False),
    ]
)
_KEY_COLUMNS = ("session_uid", "session_id", "user_id", "created_at", "updated_at", "archived_at", "revision")


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself before its rows are read; all of it is file metadata."""

    archiver_id: str
    sequence: int

    @property
    def segment_id(self) -> str:
        """``{archiver_id}/{sequence:012d}``: the tail of its key."""
        return f"{self.archiver_id}/{self.sequence:012d}"


@dataclass(frozen=True, slots=True)
class SegmentSummary:
    """What the writer found out while writing.

    Attributes:
        membership_digest: See :func:`archiver.events.membership_digest`.
        row_groups: session_uid of the first session of every row group, in order.
    """

    membership_digest: str
    n_sessions: int
    n_messages: int
    n_interactions: int
    min_created_at_us: int | None
    max_created_at_us: int | None
    row_groups: tuple[str, ...]


def records_to_batch(records: Iterable[SessionRecord]) -> pa.RecordBatch:
    """Sessions as one record batch in SCHEMA, in the given order."""
    return rows_to_batch([SessionRow.of(record) for record in records])


def rows_to_batch(rows: Sequence[SessionRow]) -> pa.RecordBatch:
    """Sessions as one record batch in SCHEMA, in the given order."""
    columns = [
        pa.array([r.session_uid for r in rows], pa.string()),
        pa.array([r.session_id for r in rows], pa.string()),
        pa.array([r.revision for r in rows], pa.int32()),
        pa.array([r.user_id for r in rows], pa.string()),
        pa.array([r.created_at_us for r in rows], TIME),
        pa.array([r.updated_at_us for r in rows], TIME),
        pa.array([r.archived_at_us for r in rows], TIME),
        pa.array([r.tz_assumed for r in rows], pa.bool_()),
        pa.array([r.language for r in rows], pa.string()),
        _list_column(MESSAGE, [r.messages for r in rows], (1, 2, 3, 4)),
        _list_column(INTERACTION, [r.interactions for r in rows], (1, 2, 3, 4, 5, 6)),
        pa.array([r.graph_state for r in rows], pa.string()),
        pa.array([r.metadata for r in rows], pa.string()),
        pa.array([r.extra for r in rows], pa.string()),
        *(pa.array([r.reported[i] if r.reported else None for r in rows], pa.int64()) for i in range(3)),
        pa.array([r.content_sha256 for r in rows], pa.string()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


def _list_column(struct: pa.DataType, lists: Sequence[Sequence[Sequence[Any]]], fields: Sequence[int]) -> pa.Array:
    """Events as list<struct>: index first, then their values as the struct's other fields."""
    offsets = np.zeros(len(lists) + 1, np.int32)
    np.cumsum([len(events) for events in lists], out=offsets[1:])
    index = np.arange(offsets[-1], dtype=np.int32) - np.repeat(offsets[:-1], np.diff(offsets))
    flat = list(zip(*chain.from_iterable(lists), strict=True)) or [()] * len(fields)
    arrays = [pa.array(index)]
    arrays += [pa.array(column, struct.field(i).type) for i, column in zip(fields, flat, strict=True)]
    values = pa.StructArray.from_arrays(arrays, fields=list(struct))
    return pa.ListArray.from_arrays(
        pa.array(offsets), values, type=pa.list_(pa.field("element", struct, nullable=False))
    )


def batch_to_records(batch: pa.RecordBatch) -> Iterator[SessionRecord]:
    """The sessions of a batch as records; the inverse of :func:`records_to_batch`."""
    plain = batch
    for name, struct in (("messages", MESSAGE), ("interactions", INTERACTION)):
        i = plain.schema.get_field_index(name)
        plain = plain.set_column(i, name, _times_to_us(batch.column(name), struct))
    for name in ("created_at", "updated_at", "archived_at"):
        i = plain.schema.get_field_index(name)
        plain = plain.set_column(i, name, plain.column(i).cast(pa.int64()))
    for row in plain.to_pylist():
        reported = (row["reported_correct"], row["reported_incorrect"], row["reported_partial"])
        yield SessionRecord(
            session_id=row["session_id"],
            created_at_us=row["created_at"],
            updated_at_us=row["updated_at"],
            user_id=row["user_id"],
            language=row["language"],
            tz_assumed=row["tz_assumed"],
            messages=tuple(Message(m["role"], m["content"], m["created_at"], m["language"]) for m in row["messages"]),
            interactions=tuple(
                Interaction(i["created_at"], i["action_type"], i["node_id"], i["content"], i["feedback"], i["metadata"])
                for i in row["interactions"]
            ),
            graph_state=row["graph_state"],
            metadata=row["metadata"],
            extra=row["extra"],
            reported=None if None in reported else FeedbackCounts(*reported),
            revision=row["revision"],
            archived_at_us=row["archived_at"],
        )


def _times_to_us(lists: pa.ListArray, struct: pa.StructType) -> pa.ListArray:
    values = lists.flatten()
    arrays = [
        values.field(i).cast(pa.int64()) if struct.field(i).name == "created_at" else values.field(i)
        for i in range(struct.num_fields)
    ]
    offsets = pc.subtract(lists.offsets, lists.offsets[0])
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(arrays, names=[f.name for f in struct]))


def row_groups(records: Iterable[SessionRecord]) -> Iterator[list[SessionRecord]]:
    """Cut a stream of sessions where a row group ends: ROW_GROUP_SESSIONS, or ROW_GROUP_BYTES of text."""
    group: list[SessionRecord] = []
    size = 0
    for record in records:
        group.append(record)
        size += text_bytes(record)
        if len(group) >= ROW_GROUP_SESSIONS or size >= ROW_GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def text_bytes(record: SessionRecord) -> int:
    """Characters of a session's texts: what its size in memory and in a segment grows with."""
    own = len(record.graph_state or "") + len(record.metadata) + len(record.extra or "")
    said = sum(len(m.content or "") for m in record.messages)
    return own + said + sum(len(i.content or "") + len(i.metadata) for i in record.interactions)


def write_segment(
    sink: Path | IO[bytes],
    header: SegmentHeader,
    batches: Iterable[pa.RecordBatch],
    *,
    notes: Mapping[str, str] | None = None,
) -> SegmentSummary:
    """Write batches, already sorted by session_uid over all of them, as one segment; returns its summary.

    Each batch becomes one row group (see row_groups). ``notes`` are further file metadata. Memory: one batch.
    """
    members: list[tuple[str, int, str]] = []
    row_groups: list[str] = []
    counts = {"messages": 0, "interactions": 0}
    times: list[int] = []
    with pq.ParquetWriter(sink, SCHEMA, **_WRITER_OPTIONS) as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=max(1, batch.num_rows))
            uids = batch.column("session_uid").to_pylist()
            row_groups.append(uids[0])
            revisions, digests = batch.column("revision").to_pylist(), batch.column("content_sha256").to_pylist()
            members += zip(uids, revisions, digests, strict=True)
            for name in counts:
                counts[name] += len(batch.column(name).flatten())
            times += batch.column("created_at").cast(pa.int64()).to_pylist()
        summary = SegmentSummary(
            membership_digest=membership_digest(members),
            n_sessions=len(members),
            n_messages=counts["messages"],
            n_interactions=counts["interactions"],
            min_created_at_us=min(times, default=None),
            max_created_at_us=max(times, default=None),
            row_groups=tuple(row_groups),
        )
        writer.add_key_value_metadata(_file_metadata(header, summary, notes or {}))
    return summary


_WRITER_OPTIONS: Final = {
    "compression": "zstd",
    "compression_level": 3,
    "write_page_checksum": True,
    "use_dictionary": [
        "messages.list.element.role",
        "interactions.list.element.action_type",
        "interactions.list.element.feedback",
        "language",
    ],
    "write_statistics": list(_KEY_COLUMNS),
    "store_schema": True,
}


def _file_metadata(header: SegmentHeader, summary: SegmentSummary, notes: Mapping[str, str]) -> dict[str, str]:
    values: dict[str, object] = {
        **notes,
        "format_version": FORMAT_VERSION,
        "segment_id": header.segment_id,
        "archiver_id": header.archiver_id,
        "sequence": header.sequence,
        "membership_digest": summary.membership_digest,
        "n_sessions": summary.n_sessions,
        "n_messages": summary.n_messages,
        "n_interactions": summary.n_interactions,
        "min_created_at_us": summary.min_created_at_us,
        "max_created_at_us": summary.max_created_at_us,
    }
    return {f"sessionlake.{k}": str(v) for k, v in values.items() if v is not None}


def void_segment(header: SegmentHeader, *, reason: str) -> bytes:
    """A segment without rows, which stands where one could not be built and says why."""
    sink = io.BytesIO()
    write_segment(sink, header, (), notes={"void": reason[:500]})
    return sink.getvalue()


def segment_metadata(file: pq.ParquetFile, *, key: str) -> Mapping[str, str]:
    """The ``sessionlake.*`` file metadata without the prefix; CorruptDataError if this is no segment v1."""
    raw = file.metadata.metadata or {}
    prefix = b"sessionlake."
    values = {k.removeprefix(prefix).decode(): v.decode() for k, v in raw.items() if k.startswith(prefix)}
    if values.get("format_version") != str(FORMAT_VERSION):
        raise CorruptDataError(
            f"not a segment of format {FORMAT_VERSION}: format_version is {values.get('format_version')!r}",
            operation="read segment", key=key, hint="a newer sessionlake may have written it",
        )  # fmt: skip
    return values


def open_segment(source: Path | IO[bytes] | pa.NativeFile | pa.Buffer, *, key: str) -> pq.ParquetFile:
    """Open a segment with page checksums verified; CorruptDataError names ``key`` if it cannot be one."""
    try:
        file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=False)
    except (pa.ArrowInvalid, OSError) as error:
        raise CorruptDataError(f"cannot be opened as Parquet: {error}", operation="read segment", key=key) from error
    segment_metadata(file, key=key)
    return file


def read_batches(
    file: pq.ParquetFile, *, key: str, columns: Sequence[str] | None = None, row_groups: Sequence[int] | None = None
) -> Iterator[pa.RecordBatch]:
    """Row groups as record batches, one at a time; CorruptDataError if a page fails its checksum."""
    for i in range(file.num_row_groups) if row_groups is None else row_groups:
        yield from _row_group(file, i, columns, key).to_batches()


def _row_group(file: pq.ParquetFile, i: int, columns: Sequence[str] | None, key: str) -> pa.Table:
    try:
        return file.read_row_group(i, columns=columns, use_threads=False)  # threads cost twice the CPU for small groups
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(f"damaged: {error}", operation="read segment", key=key) from error


def read_table(
    file: pq.ParquetFile, *, key: str, row_groups: Sequence[int], columns: Sequence[str] | None = None
) -> pa.Table:
    """Row groups as one table of SCHEMA's columns, in one piece; CorruptDataError if a page fails its checksum."""
    names = SCHEMA.names if columns is None else list(columns)
    try:
        found = file.read_row_groups(row_groups, columns=names, use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(f"damaged: {error}", operation="read segment", key=key) from error
    return found.select(names).cast(pa.schema([SCHEMA.field(name) for name in names]))


def row_group_of(file: pq.ParquetFile, uid: str) -> int | None:
    """The row group that may hold a session, from the footer's statistics alone."""
    column = SCHEMA.get_field_index("session_uid")
    for i in range(file.num_row_groups):
        statistics = file.metadata.row_group(i).column(column).statistics
        if statistics is not None and statistics.min <= uid <= statistics.max:
            return i
    return None
