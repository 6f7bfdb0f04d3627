"""Which record of a session counts, and how much of it the tables hold already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from archiver.archive import Ledger
from archiver.objects import ObjectStore
from pipelines import datafiles, lake
from pipelines.compaction.plan import SegmentKeys
from pipelines.schema import TABLES

Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

STORED_COLUMNS: Final = (
    "session_uid", "revision", "n_messages", "n_interactions", "content_sha256", "prefix_sha256", "split",
)  # fmt: skip
CHOSEN: Final = pa.schema(
    [
        pa.field("row", pa.int64()),
        pa.field("stored_revision", pa.int32()),
        pa.field("stored_messages", pa.int32()),
        pa.field("stored_interactions", pa.int32()),
        pa.field("stored_prefix", pa.string()),
        pa.field("stored_split", pa.string()),
    ]
)
"""One row per record that counts: its row in the segment, and what the tables hold of its session (0: nothing)."""


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that was left out: which rule, where, and what a person should look at."""

    rule: str
    session_uid: str
    key: str
    detail: str


@dataclass(frozen=True, slots=True)
class Selection:
    """The records that count.

    Attributes:
        chosen: For every segment, in the order given, a CHOSEN table in row order.
        skipped: Records the tables hold already, at this revision or a higher one, or twice among the new ones.
        erased: Records a tombstone covers.
    """

    chosen: tuple[pa.Table, ...]
    rejects: tuple[Reject, ...]
    skipped: int
    erased: int


def dates(created_at: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """UTC dates of timestamps as date32: the partition of every row of a session."""
    return created_at.cast(pa.timestamp("us")).cast(pa.date32(), safe=False)


def stored_rows(store: ObjectStore, sessions_version: int, keys: pa.Table) -> pa.Table:
    """STORED_COLUMNS of the sessions among ``keys`` that the tables hold; reads only the touched dates' files."""
    days = pc.unique(dates(keys["created_at"])).cast(pa.string()).to_pylist()
    schema = pa.schema([f for f in TABLES["sessions"].schema if f.name in STORED_COLUMNS])
    uids = pc.unique(keys["session_uid"])
    files = lake.data_files(store, "sessions", sessions_version, dts=days)
    parts = [
        table.filter(pc.is_in(table["session_uid"], uids)).select(schema.names)
        for _, table in datafiles.read_each(store, files, STORED_COLUMNS)
    ]
    return pa.concat_tables(parts) if parts else schema.empty_table()


def select(segment_keys: Sequence[SegmentKeys], stored: pa.Table, ledger: Ledger) -> Selection:
    """Name the one record of each session that counts: the highest revision, the first of equal ones."""
    keys = pa.concat_tables(s.keys for s in segment_keys)
    codes = pa.concat_arrays([_whole(stored["session_uid"]), _whole(keys["session_uid"])]).dictionary_encode()
    code = codes.indices.to_numpy()[stored.num_rows :]
    erased = _erased(keys, ledger)
    revision = keys["revision"].to_numpy()
    winner_of_row = _winners(code, revision, ~erased, len(codes.dictionary))
    is_winner = winner_of_row == np.arange(len(code))
    stored_at = np.full(len(codes.dictionary), -1, np.int64)
    stored_at[codes.indices.to_numpy()[: stored.num_rows]] = np.arange(stored.num_rows)
    at = stored_at[code]
    stored_revision = np.where(at >= 0, _numbers(stored, "revision", at), 0)
    accepted = is_winner & (revision > stored_revision)
    conflicts = _conflicts(keys, stored, winner_of_row, at, revision, stored_revision) & ~erased
    accepted_rows = np.flatnonzero(accepted)
    chosen = _chosen(stored, accepted_rows, at[accepted_rows])
    return Selection(
        chosen=tuple(_per_segment(chosen, accepted_rows, segment_keys)),
        rejects=tuple(_rejects(keys, np.flatnonzero(conflicts), segment_keys)),
        skipped=int(len(code) - accepted.sum() - conflicts.sum() - erased.sum()),
        erased=int(erased.sum()),
    )


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _erased(keys: pa.Table, ledger: Ledger) -> Mask:
    if not ledger:
        return np.zeros(keys.num_rows, bool)
    created_us = keys["created_at"].cast(pa.int64()).to_pylist()
    rows = zip(keys["session_uid"].to_pylist(), keys["user_id"].to_pylist(), created_us, strict=True)
    return np.fromiter((ledger.covers(*row) for row in rows), bool, keys.num_rows)


def _winners(code: Indices, revision: Indices, valid: Mask, n_codes: int) -> Indices:
    """For every row the row that counts of its session; -1 where none does."""
    rows = np.flatnonzero(valid)
    order = rows[np.lexsort((-rows, revision[rows], code[rows]))]
    winner = np.full(n_codes, -1, np.int64)
    winner[code[order]] = order  # of equal codes the last assignment stays: the highest revision, the first such row
    return winner[code]


def _numbers(stored: pa.Table, column: str, at: Indices) -> npt.NDArray[np.int64]:
    if not stored.num_rows:
        return np.zeros(len(at), np.int64)
    values: npt.NDArray[np.int64] = stored[column].to_numpy().astype(np.int64)[at]
    return values


def _conflicts(
    keys: pa.Table, stored: pa.Table, winner: Indices, at: Indices, revision: Indices, stored_revision: Indices
) -> Mask:
    """Rows that claim the same revision as the record that counts, with other content."""
    found = np.zeros(len(winner), bool)
    rivals = np.flatnonzero((winner >= 0) & (revision == revision[winner]) & (winner != np.arange(len(winner))))
    if len(rivals):
        content = _whole(keys["content_sha256"])
        found[rivals] = pc.not_equal(content.take(pa.array(rivals)), content.take(pa.array(winner[rivals])))
    again = np.flatnonzero((at >= 0) & (revision == stored_revision))
    if len(again):
        known = _whole(stored["content_sha256"]).take(pa.array(at[again]))
        found[again] = pc.not_equal(_whole(keys["content_sha256"]).take(pa.array(again)), known)
    return found


def _chosen(stored: pa.Table, rows: Indices, at: Indices) -> pa.Table:
    """CHOSEN rows; ``row`` still counts over all segments."""
    index = pa.array(at, mask=at < 0)
    columns = {"row": pa.array(rows)}
    for name, source in (
        ("stored_revision", "revision"),
        ("stored_messages", "n_messages"),
        ("stored_interactions", "n_interactions"),
        ("stored_prefix", "prefix_sha256"),
        ("stored_split", "split"),
    ):
        values = _whole(stored[source]).take(index)
        columns[name] = values if pa.types.is_string(values.type) else values.fill_null(0)
    return pa.table(columns, schema=CHOSEN)


def _per_segment(chosen: pa.Table, rows: Indices, segment_keys: Sequence[SegmentKeys]) -> list[pa.Table]:
    starts = np.cumsum([0, *(s.keys.num_rows for s in segment_keys)])
    cuts = np.searchsorted(rows, starts)
    parts = []
    for i in range(len(segment_keys)):
        part = chosen.slice(cuts[i], cuts[i + 1] - cuts[i])
        parts.append(part.set_column(0, "row", pc.subtract(part["row"], int(starts[i]))))
    return parts


def _rejects(keys: pa.Table, rows: Indices, segment_keys: Sequence[SegmentKeys]) -> list[Reject]:
    starts = np.cumsum([0, *(s.keys.num_rows for s in segment_keys)])
    found = keys.take(pa.array(rows))
    return [
        Reject(
            "revision_conflict", uid, segment_keys[int(np.searchsorted(starts, row, "right")) - 1].ref.key,
            f"revision {revision} is known with other content",
        )
        for row, uid, revision in zip(
            rows.tolist(), found["session_uid"].to_pylist(), found["revision"].to_pylist(), strict=True
        )
    ]  # fmt: skip
