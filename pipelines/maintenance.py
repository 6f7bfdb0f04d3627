"""Upkeep of the tables: merge small files of closed days, checkpoint, remove what no version needs.

It is a run like any other, so it starts only when none is unfinished. What it removes is decided by
run numbers and the times in our own plans, never by a file's modification time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from archiver import archive
from archiver.archive import Ledger
from archiver.errors import StoreBusyError
from archiver.events import format_time
from archiver.objects import ObjectStore
from archiver.settings import Settings
from pipelines import datafiles, lake, retention, runs
from pipelines.ahead import ahead
from pipelines.datafiles import ROW_GROUP_BYTES, StagedFile
from pipelines.lake import DataFile, LakeVersion
from pipelines.rewrites import Rewriter
from pipelines.runner import open_runner, worker_count
from pipelines.runs import Changes, RunKind, RunPlan, TableChange
from pipelines.schema import COMMIT_ORDER, TABLES

TARGET_BYTES: Final = 64 * 1024**2
"""A file of at least this size is left alone; smaller ones are merged until one reaches it."""

_ROW_TABLES: Final = ("messages", "interactions", "nodes", "feedback")


@dataclass(frozen=True, slots=True)
class MaintainReport:
    """What an upkeep did: files merged away and made; superseded files, stale uploads and log entries removed."""

    run: int
    files_merged: int
    files_made: int
    files_removed: int
    uploads_discarded: int
    log_entries_removed: int
    lake_version: int


@dataclass(frozen=True, slots=True)
class MergeTask:
    """Small files of one table and date, to become one."""

    store: ObjectStore
    run: int
    files: tuple[DataFile, ...]


def maintain(store: ObjectStore, settings: Settings, *, now_us: int) -> MaintainReport:
    """Merge, checkpoint and clean up; StoreBusyError while another run is unfinished.

    Readers of earlier versions keep working for ``tables.retention_hours``.
    """
    lake.create_tables(store)
    version = lake.current(store)
    plan = _plan(store, version, "maintain", now_us)
    groups = _small_files(store, version, settings, today=format_time(now_us)[:10])
    staged: list[tuple[MergeTask, StagedFile]] = []
    with open_runner(settings.runner) as runner:
        tasks = [MergeTask(store, plan.run, group) for group in groups]
        runner.run(merge, tasks, lambda task, file: staged.append((task, file)))
    changes = _changes(staged)
    runs.publish(store, plan, changes.staged)
    if not runs.commit(store, plan, changes):
        raise _busy(plan, "was ended by another process")
    for table in COMMIT_ORDER:
        lake.checkpoint(store, table)
    oldest = retention.oldest_retained(store, plan, settings.tables.retention_hours, now_us)
    removed, discarded, shortened = (0, 0, 0) if oldest is None else _clean_up(store, oldest)
    return MaintainReport(
        run=plan.run,
        files_merged=sum(len(t.files) for t, _ in staged),
        files_made=len(staged),
        files_removed=removed,
        uploads_discarded=discarded,
        log_entries_removed=shortened,
        lake_version=lake.current(store).number,
    )


def _clean_up(store: ObjectStore, oldest: LakeVersion) -> tuple[int, int, int]:
    """Remove what neither ``oldest`` nor a later version needs: data files, uploads, log entries."""
    removed = retention.remove_files(store, oldest.run, [oldest, lake.current(store)])
    return removed, retention.discard_uploads(store, oldest.run), retention.shorten_logs(store, oldest)


@dataclass(frozen=True, slots=True)
class EraseReport:
    """What an erasure took out of the tables: rows per table, and the data files removed for good."""

    run: int | None
    sessions: int
    rows_removed: Mapping[str, int]
    files_removed: int


def covered_sessions(store: ObjectStore, version: LakeVersion, ledger: Ledger) -> dict[str, set[str]]:
    """Date → session_uids of the sessions in the tables that a tombstone covers.

    Rows of the other tables whose session is not in ``sessions`` count too: a run that was half
    committed when its session was erased leaves them, and nothing else can.
    """
    found: dict[str, set[str]] = defaultdict(set)
    if not ledger:
        return found
    known: dict[str, set[str]] = defaultdict(set)
    files = lake.data_files(store, "sessions", version.tables["sessions"])
    for file, table in datafiles.read_each(store, files, ("session_uid", "user_id", "created_at")):
        times = table["created_at"].cast(pa.int64()).to_pylist()
        uids = table["session_uid"].to_pylist()
        known[file.dt].update(uids)
        rows = zip(uids, table["user_id"].to_pylist(), times, strict=True)
        found[file.dt].update(uid for uid, user, time in rows if ledger.covers(uid, user, time))
    for name in _ROW_TABLES:
        files = lake.data_files(store, name, version.tables[name])
        for file, table in datafiles.read_each(store, files, ("session_uid",)):
            found[file.dt].update(set(table["session_uid"].unique().to_pylist()) - known[file.dt])
    return {dt: uids for dt, uids in found.items() if uids}


def covered_uids(store: ObjectStore) -> frozenset[str]:
    """Every session in the current tables that a tombstone covers."""
    if not lake.exists(store):
        return frozenset()
    covered = covered_sessions(store, lake.current(store), archive.tombstones(store))
    return frozenset().union(*covered.values())


def erase(store: ObjectStore, settings: Settings, *, now_us: int) -> EraseReport:
    """Take every session that a tombstone covers out of all tables, and remove every superseded file at once.

    Idempotent; StoreBusyError while another run is unfinished. Versions before it cannot be read any
    more where they need a removed file: that is the point.
    """
    report = EraseReport(None, 0, {}, 0)
    if not lake.exists(store):
        return report
    version = lake.current(store)
    gone = covered_sessions(store, version, archive.tombstones(store))
    if gone:
        plan = _plan(store, version, "erase", now_us)
        with open_runner(settings.runner) as runner:
            rewriter = Rewriter(store, runner, TARGET_BYTES)
            changes = rewriter.changes(plan, superseded={}, withdrawn=gone)
        runs.publish(store, plan, changes.staged)
        if not runs.commit(store, plan, changes):
            raise _busy(plan, "was ended by another process")
        version = lake.current(store)
        report = EraseReport(plan.run, sum(map(len, gone.values())), {t: -n for t, n in changes.rows_added.items()}, 0)
    retention.discard_uploads(store, version.run)
    return replace(report, files_removed=retention.remove_files(store, version.run, [version]))


def _plan(store: ObjectStore, version: LakeVersion, kind: RunKind, now_us: int) -> RunPlan:
    unfinished = runs.unfinished(store, version)
    if unfinished is not None and unfinished.kind == "compact":
        raise _busy(unfinished, "is unfinished")
    if unfinished is not None:
        runs.finish_empty(store, unfinished)
        version = lake.current(store)
    base = runs.base_versions(store, version)
    if base is None:
        raise StoreBusyError(f"run {version.run + 1} began meanwhile", operation=kind, hint="run again")
    mine = RunPlan(
        run=version.run + 1,
        kind=kind,
        created_us=now_us,
        code_version=runs.code_version(),
        base=base,
        watermarks=version.watermarks,
        body={},
    )
    plan = runs.announce(store, mine)
    if plan != mine:
        raise _busy(plan, "began at the same moment")
    return plan


def _busy(plan: RunPlan, what: str) -> StoreBusyError:
    return StoreBusyError(
        f"run {plan.run} ({plan.kind}) {what}",
        operation=plan.kind,
        key=plan.key,
        hint="run sessionlake compact, which finishes it, then this again",
    )


def _small_files(
    store: ObjectStore, version: LakeVersion, settings: Settings, *, today: str
) -> list[tuple[DataFile, ...]]:
    """Groups of small files of one table and closed date, each as many as memory allows to merge at once."""
    per_process = settings.tables.memory_limit // (worker_count(settings.runner) + 1)
    most = max(2, per_process // (3 * ROW_GROUP_BYTES))
    groups: list[tuple[DataFile, ...]] = []
    for table in COMMIT_ORDER:
        by_date: dict[str, list[DataFile]] = {}
        for file in lake.data_files(store, table, version.tables[table]):
            if file.dt < today and file.size_bytes < TARGET_BYTES:
                by_date.setdefault(file.dt, []).append(file)
        for files in by_date.values():
            groups += _grouped(files, most)
    return groups


def _grouped(files: Sequence[DataFile], most: int) -> Iterator[tuple[DataFile, ...]]:
    group: list[DataFile] = []
    for file in sorted(files, key=lambda f: (f.size_bytes, f.path)):
        group.append(file)
        if len(group) == most or sum(f.size_bytes for f in group) >= TARGET_BYTES:
            yield tuple(group)
            group = []
    if len(group) > 1:
        yield tuple(group)


def merge(task: MergeTask) -> StagedFile:
    """Write the rows of sorted files as one sorted file and stage it. Memory: one row group of each."""
    first = task.files[0]
    names = "\n".join(f.path for f in task.files)
    staged = datafiles.stage(
        task.store, TABLES[first.table], first.dt, _merged(task.store, task.files), run=task.run, task=names
    )
    if staged is None:
        raise AssertionError(f"files without rows: {names}")
    return staged


def _merged(store: ObjectStore, files: Sequence[DataFile]) -> Iterator[pa.Table]:
    """Rows in order: whatever sorts up to the smallest of the last keys at hand can be given out."""
    key, *_ = TABLES[files[0].table].sort_keys
    order = [(name, "ascending") for name in TABLES[files[0].table].sort_keys]
    fetched = ahead(lambda file: datafiles.fetch(store, file), files)
    sources = [datafiles.read(source, file) for file, source in zip(files, fetched, strict=True)]
    heads = [head for source in sources if (head := next(source, None)) is not None]
    while heads:
        bound = min(head[key][-1].as_py() for head in heads)
        counts = [pc.sum(pc.less_equal(head[key], bound)).as_py() for head in heads]
        yield pa.concat_tables(h.slice(0, n) for h, n in zip(heads, counts, strict=True)).sort_by(order)
        left = [(h.slice(n), s) for h, n, s in zip(heads, counts, sources, strict=True)]
        refilled = [(h if h.num_rows else next(s, None), s) for h, s in left]
        heads = [h for h, _ in refilled if h is not None]
        sources = [s for h, s in refilled if h is not None]


def _changes(staged: Iterable[tuple[MergeTask, StagedFile]]) -> Changes:
    tables: dict[str, TableChange] = {}
    for task, file in sorted(staged, key=lambda pair: pair[1].key):
        known = tables.get(file.table, TableChange())
        tables[file.table] = TableChange((*known.add, file), (*known.remove, *task.files))
    return Changes(tables)
