"""Sessions of one table version, in slices that fit in memory, ready to be replayed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any, Final, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from archiver import archive
from archiver.objects import ObjectStore
from pipelines import lake
from pipelines.derive import Act, Session, Turn
from pipelines.derive.acts import decode_object

SLICE_BYTES: Final = 2 * 1024**2
"""Compressed bytes of all three tables that one slice covers: about 10 MB of texts."""

_TABLES: Final = ("sessions", "messages", "interactions")
_SESSION_COLUMNS: Final = (
    "session_uid", "session_id", "user_id", "language", "created_at", "consent", "split", "n_messages", "graph_state",
    "extra",
)  # fmt: skip
_MESSAGE_COLUMNS: Final = ("session_uid", "message_index", "role", "content", "created_at")
_ACT_COLUMNS: Final = (
    "session_uid", "interaction_index", "created_at", "action_type", "node_id", "content", "feedback", "metadata",
)  # fmt: skip
_CHUNK_SESSIONS: Final = 256


@dataclass(frozen=True, slots=True)
class Slice:
    """The sessions of some dates whose uid is at least ``low`` and below ``high`` (empty: no bound)."""

    dts: tuple[str, ...]
    low: str = ""
    high: str = ""


@dataclass(frozen=True, slots=True)
class SessionTables:
    """The rows of one slice in the three tables that a replay reads."""

    sessions: pa.Table
    messages: pa.Table
    interactions: pa.Table


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A session and what the tables say of it beside."""

    session: Session
    split: str
    consent: str | None
    created_at_us: int


class Source(Protocol):
    """Sessions of a fixed version. Pickled to workers, so it holds no open handles."""

    def slices(self) -> list[Slice]:
        """All sessions, cut so that any one slice fits in memory."""
        ...

    def read(self, part: Slice, *, all_columns: bool) -> SessionTables:
        """The rows of a slice; every column of sessions if asked."""
        ...


@dataclass(frozen=True, slots=True)
class LakeSource:
    """The tables at a lake version."""

    store: ObjectStore
    version: lake.LakeVersion

    def slices(self) -> list[Slice]:
        """Small dates together, large ones cut by ranges of session_uid, which is uniform."""
        sizes: dict[str, int] = defaultdict(int)
        for table in _TABLES:
            for file in lake.data_files(self.store, table, self.version.tables[table]):
                sizes[file.dt] += file.size_bytes
        return list(slices_of(sizes))

    def read(self, part: Slice, *, all_columns: bool) -> SessionTables:
        """The rows of a slice; row groups of other uids are skipped by their statistics."""
        columns = {"sessions": None if all_columns else _SESSION_COLUMNS, "messages": _MESSAGE_COLUMNS}
        tables = []
        for name in _TABLES:
            dataset = lake.dataset(self.store, name, self.version)
            wanted = columns.get(name, _ACT_COLUMNS) or [n for n in dataset.schema.names if n != "dt"]
            tables.append(dataset.to_table(columns=list(wanted), filter=_condition(part)))
        return SessionTables(*tables)


def accepted_gaps(store: ObjectStore, version: lake.LakeVersion) -> tuple[str, ...]:
    """Markers of lost segments that a person let this version pass over. One request for 1,000 segments."""
    found = []
    for archiver_id, last in sorted(version.watermarks.items()):
        for info in store.list(f"{archive.PREFIX}/{archiver_id}/"):
            name = info.key.rpartition("/")[2]
            if name.endswith(".void.json") and int(name.partition(".")[0]) <= last:
                found.append(info.key)
    return tuple(found)


def slices_of(sizes: Mapping[str, int]) -> Iterator[Slice]:
    """Dates, by compressed bytes, as slices of about SLICE_BYTES."""
    together: list[str] = []
    for dt, size in sorted(sizes.items()):
        if together and sum(sizes[d] for d in together) + size > SLICE_BYTES:
            yield Slice(tuple(together))
            together = []
        n_slices = -(-size // SLICE_BYTES)
        if n_slices <= 1:
            together.append(dt)
            continue
        bounds = ["", *(f"{i * 2**32 // n_slices:08x}" for i in range(1, n_slices)), ""]
        yield from (Slice((dt,), low, high) for low, high in pairwise(bounds))
    if together:
        yield Slice(tuple(together))


def _condition(part: Slice) -> pc.Expression:
    condition = pc.field("dt").isin([date.fromisoformat(dt) for dt in part.dts])
    if part.low:
        condition &= pc.field("session_uid") >= part.low
    if part.high:
        condition &= pc.field("session_uid") < part.high
    return condition


def sessions_in(tables: SessionTables) -> Iterator[StoredSession]:
    """The sessions of a slice in the order of session_uid; a few hundred are Python objects at a time."""
    sessions = tables.sessions.select(_SESSION_COLUMNS).sort_by("session_uid").combine_chunks()
    uids = sessions.column("session_uid")
    messages = _Rows(tables.messages, "message_index", ("role", "content", "created_at"), uids)
    acts = _Rows(tables.interactions, "interaction_index", _ACT_COLUMNS[1:], uids)
    for start in range(0, sessions.num_rows, _CHUNK_SESSIONS):
        chunk = sessions.slice(start, _CHUNK_SESSIONS)
        keys = zip(*(_plain(column) for column in chunk.columns), strict=True)
        turns = messages.lists(start, chunk.num_rows)
        events = acts.lists(start, chunk.num_rows)
        for row, own_turns, own_acts in zip(keys, turns, events, strict=True):
            yield _stored(row, own_turns, own_acts)


def _stored(row: Sequence[Any], turns: list[tuple[Any, ...]], acts: list[tuple[Any, ...]]) -> StoredSession:
    uid, session_id, user_id, language, created_at, consent, split, n_messages, graph_state, extra = row
    session = Session(
        uid, session_id, user_id, language, graph_state, n_messages,
        turns=[Turn(*turn) for turn in turns],
        acts=[Act._make((*act[:-1], decode_object(act[-1]))) for act in acts],
        extra=extra,
    )  # fmt: skip
    return StoredSession(session, split, consent, created_at)


class _Rows:
    """Rows of a table, found by the position of their session in a sorted column of uids."""

    def __init__(self, table: pa.Table, index: str, columns: Sequence[str], uids: pa.ChunkedArray) -> None:
        ordered = table.sort_by([("session_uid", "ascending"), (index, "ascending")])
        position = pc.index_in(ordered.column("session_uid"), value_set=uids.combine_chunks())
        known = ordered.filter(pc.is_valid(position))
        self._columns = known.select(columns).combine_chunks()
        counts = np.bincount(position.drop_null().to_numpy(), minlength=len(uids))
        self._offsets = np.concatenate(([0], np.cumsum(counts)))

    def lists(self, start: int, n_sessions: int) -> list[list[tuple[Any, ...]]]:
        """The rows of consecutive sessions, one list of tuples for each."""
        bounds = self._offsets[start : start + n_sessions + 1].tolist()
        part = self._columns.slice(bounds[0], bounds[-1] - bounds[0])
        rows = list(zip(*(_plain(column) for column in part.columns), strict=True))
        return [rows[a - bounds[0] : b - bounds[0]] for a, b in pairwise(bounds)]


def _plain(column: pa.ChunkedArray) -> list[Any]:
    """Values as Python's, times as microseconds."""
    return list((column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist())
