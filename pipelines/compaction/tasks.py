"""A task of the map: derive the rows of some parts of new segments, and stage them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from archiver import archive, segments
from archiver.errors import CorruptDataError
from archiver.objects import ObjectStore
from pipelines import datafiles, derive
from pipelines.ahead import ahead
from pipelines.columns import compacted, rows_of
from pipelines.compaction import gather, rows
from pipelines.compaction.plan import Gap, Part, SegmentKeys, fetch
from pipelines.compaction.redaction import redacted
from pipelines.compaction.select import CHOSEN, Reject, dates
from pipelines.datafiles import EncodedFile, StagedFile
from pipelines.schema import TABLES
from pipelines.summary import Partial, partial

ORIGIN: Final = pa.schema([*CHOSEN, ("archive_key", pa.string()), ("archive_sha256", pa.string()), ("dt", pa.date32())])


@dataclass(frozen=True, slots=True)
class ChosenPart:
    """A part of a segment and which of its rows count; ``chosen.row`` counts within the part."""

    part: Part
    sha256: str
    chosen: pa.Table

    @classmethod
    def cut(cls, part: Part, keys: SegmentKeys, chosen: pa.Table) -> ChosenPart:
        """Of a segment's chosen rows those in a part; copied, for a slice is sent with all that it was cut from."""
        ends = [sum(n for n, _ in keys.row_groups[:i]) for i in (part.start, part.stop or len(keys.row_groups))]
        rows = chosen["row"].to_numpy()
        low, high = rows.searchsorted(ends)
        inside = chosen.take(pa.array(np.arange(low, high)))
        return cls(part, keys.sha256, inside.set_column(0, "row", pa.array(rows[low:high] - ends[0])))


@dataclass(frozen=True, slots=True)
class MapTask:
    """Derive the tables' rows of some parts. Its outputs are named by ``identity``."""

    store: ObjectStore
    run: int
    parts: tuple[ChosenPart, ...]
    salt: str
    redact: bool

    @property
    def identity(self) -> str:
        """Digest of the run and the inputs."""
        names = [f"{p.part.ref.key}:{p.part.start}:{p.part.stop}" for p in self.parts]
        return hashlib.sha256("\n".join([str(self.run), *names]).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class MapResult:
    """What a map task staged and found.

    Attributes:
        superseded: date → sessions whose rows in the session-level tables these rows replace.
        withdrawn: date → sessions stored earlier that must not be in any table any more.
        gap: The segment that could not be read; then nothing else here counts.
        stale: An erasure rewrote a segment since its keys were read; then nothing else here counts.
    """

    files: tuple[StagedFile, ...] = ()
    partials: tuple[Partial, ...] = ()
    superseded: Mapping[str, frozenset[str]] = field(default_factory=dict)
    withdrawn: Mapping[str, frozenset[str]] = field(default_factory=dict)
    rejects: tuple[Reject, ...] = ()
    excluded: int = 0
    gap: Gap | None = None
    stale: bool = False


def map_parts(task: MapTask) -> MapResult:
    """Read, derive, write and stage; nothing becomes visible. Memory: a few times the task's bytes."""
    tables: list[pa.Table] = []
    origins: list[pa.Table] = []
    for part, table in zip(task.parts, _tables(task), strict=True):
        if isinstance(table, Gap):
            return MapResult(gap=table)
        if table is None:
            return MapResult(stale=True)
        origins.append(_origin(part, table, sum(t.num_rows for t in tables)))
        tables.append(table)
    return _stage_all(task, *_sorted(pa.concat_tables(tables), pa.concat_tables(origins)))


def _tables(task: MapTask) -> Iterator[pa.Table | Gap | None]:
    """For every part what :func:`_read` finds."""
    fetched = ahead(lambda part: fetch(task.store, part.part.ref), task.parts, most=1)
    return map(_read, task.parts, fetched)


def _read(chosen: ChosenPart, data: bytes | Gap) -> pa.Table | Gap | None:
    """The part's rows; None if these are not the bytes that the rows were chosen from."""
    part = chosen.part
    if isinstance(data, Gap):
        return data
    if hashlib.sha256(data).hexdigest() != chosen.sha256:
        return None
    try:
        file = archive.open_bytes(data, part.ref)
        stop = file.num_row_groups if part.stop is None else min(part.stop, file.num_row_groups)
        return segments.read_table(file, key=part.ref.key, row_groups=range(part.start, stop))
    except CorruptDataError as error:
        return Gap(part.ref, "damaged", str(error))


def _origin(part: ChosenPart, table: pa.Table, before: int) -> pa.Table:
    """What is known of the rows that count; ``row`` now counts over the whole task, where ``before`` rows precede."""
    count, row = part.chosen.num_rows, part.chosen["row"]
    added = [
        pa.repeat(part.part.ref.key, count),
        pa.repeat(part.sha256, count),
        dates(table["created_at"].take(row)),
    ]
    return pa.Table.from_arrays([pc.add(row, before), *part.chosen.columns[1:], *added], schema=ORIGIN)


def _sorted(sessions: pa.Table, origin: pa.Table) -> tuple[pa.RecordBatch, pa.RecordBatch]:
    """The sessions that count, by date, then session_uid, and what is known of them, each as one batch."""
    keys = pa.table({"dt": origin["dt"], "uid": sessions["session_uid"].take(origin["row"])})
    order = pc.sort_indices(keys, [("dt", "ascending"), ("uid", "ascending")])
    of_rows = _one_batch(origin).take(order)
    whole, wanted = _one_batch(sessions), of_rows.column("row")
    return (whole if gather.unchanged(wanted, len(whole)) else gather.take(whole, wanted)), of_rows


def _one_batch(table: pa.Table) -> pa.RecordBatch:
    batches = table.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def _stage_all(task: MapTask, sessions: pa.RecordBatch, origin: pa.RecordBatch) -> MapResult:
    clash = _prefix_clashes(sessions, origin)
    barred = pc.equal(rows.consent(sessions.column("metadata")), "none").fill_null(False)
    stored = pc.greater(origin.column("stored_revision"), 0)
    keep = pc.invert(pc.or_(barred, clash))
    kept, of_kept = (sessions, origin) if pc.all(keep).as_py() else (sessions.filter(keep), origin.filter(keep))
    tables = _derived(task, kept, of_kept) if len(kept) else {}
    uids, dts = sessions.column("session_uid"), origin.column("dt")
    owners = {name: rows_of(table["session_uid"], kept.column("session_uid")) for name, table in tables.items()}
    encoded = _encoded(task, tables, owners, _date_starts(of_kept))
    return MapResult(
        files=tuple(datafiles.stage_each(task.store, encoded)),
        partials=tuple(_partials(tables, owners, of_kept.column("dt"))),
        superseded=_by_date(uids, dts, pc.and_(keep, stored)),
        withdrawn=_by_date(uids, dts, pc.and_(barred, stored)),
        rejects=tuple(_prefix_rejects(sessions, origin, clash)),
        excluded=pc.sum(barred).as_py() or 0,
    )


def _by_date(uids: pa.Array, dts: pa.Array, which: pa.BooleanArray) -> dict[str, frozenset[str]]:
    """session_uids of the sessions that are marked, for each date that has some."""
    found: dict[str, set[str]] = {}
    for dt, uid in zip(dts.filter(which).cast(pa.string()).to_pylist(), uids.filter(which).to_pylist(), strict=True):
        found.setdefault(dt, set()).add(uid)
    return {dt: frozenset(members) for dt, members in found.items()}


def _date_starts(origin: pa.RecordBatch) -> list[tuple[str, int]]:
    """Every date and the row its sessions start at, which are sorted by date."""
    days = origin.column("dt").cast(pa.int32()).to_numpy()
    starts = [0, *(np.flatnonzero(np.diff(days)) + 1).tolist()] if len(days) else []
    return [(str(origin.column("dt")[start]), start) for start in starts]


def _prefix_clashes(batch: pa.RecordBatch, origin: pa.RecordBatch) -> pa.BooleanArray:
    """Which sessions do not begin with the events that the tables hold of them."""
    clash = np.zeros(batch.num_rows, bool)
    again = np.flatnonzero(pc.greater(origin.column("stored_revision"), 0).to_numpy(zero_copy_only=False))
    if len(again):
        old = batch.take(pa.array(again))
        counts = [origin.column(n).to_numpy()[again] for n in ("stored_messages", "stored_interactions")]
        lengths = [pc.list_value_length(old.column(n)).to_numpy() for n in ("messages", "interactions")]
        enough = (lengths[0] >= counts[0]) & (lengths[1] >= counts[1])
        found = rows.prefix_digests(old, np.minimum(counts[0], lengths[0]), np.minimum(counts[1], lengths[1]))
        same = pc.equal(pa.array(found), origin.column("stored_prefix").take(pa.array(again)))
        clash[again] = ~(enough & same.to_numpy(zero_copy_only=False))
    return pa.array(clash)


def _prefix_rejects(batch: pa.RecordBatch, origin: pa.RecordBatch, clash: pa.BooleanArray) -> list[Reject]:
    uids = batch.column("session_uid").filter(clash).to_pylist()
    keys = origin.column("archive_key").filter(clash).to_pylist()
    return [
        Reject("prefix_conflict", uid, key, "its first events differ from those in the tables")
        for uid, key in zip(uids, keys, strict=True)
    ]


def _derived(task: MapTask, batch: pa.RecordBatch, origin: pa.RecordBatch) -> dict[str, pa.Table]:
    """Rows of every table, in the order of the sessions."""
    known = rows.facts(batch, origin, task.salt)
    if task.redact:
        batch, known["redaction_count"] = redacted(batch, task.salt)
    derived = derive.table_rows(batch)
    return {
        "messages": rows.messages(batch, origin.column("stored_messages")),
        "interactions": rows.interactions(batch, origin.column("stored_interactions")),
        "nodes": derived.nodes,
        "feedback": derived.feedback,
        "sessions": rows.sessions(batch, derived, known),
    }


def _encoded(
    task: MapTask, tables: Mapping[str, pa.Table], owners: Mapping[str, pa.Array], dates: Sequence[tuple[str, int]]
) -> Iterator[EncodedFile]:
    """A file for each table and date; ``owners``: the session of each row, ``dates``: the first of each."""
    for name, table in tables.items():
        starts = np.searchsorted(owners[name].to_numpy(), [start for _, start in dates]).tolist()
        for (dt, _), (start, stop) in zip(dates, pairwise([*starts, table.num_rows]), strict=True):
            part = compacted(table.slice(start, stop - start))
            file = datafiles.encode(TABLES[name], dt, [part], run=task.run, task=task.identity)
            if file:
                yield file


def _partials(tables: Mapping[str, pa.Table], owners: Mapping[str, pa.Array], dts: pa.Array) -> Iterator[Partial]:
    if tables:
        yield partial(tables["feedback"], dts.take(owners["feedback"]).cast(pa.string()))
