"""Changes that take rows away: files rewritten without some sessions, and the summary of the touched dates."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from archiver.objects import ObjectStore, RangeFile
from pipelines import datafiles, lake
from pipelines.ahead import ahead
from pipelines.datafiles import EncodedFile, StagedFile
from pipelines.lake import DataFile
from pipelines.runner import Runner
from pipelines.runs import Changes, RunPlan, TableChange
from pipelines.schema import FEEDBACK_SUMMARY, TABLES
from pipelines.summary import INPUT_COLUMNS, Partial, partial, summarise

ROW_TABLES: Final = ("messages", "interactions")
"""Append-only: a row goes only when its session must not be in the tables any more."""
SESSION_TABLES: Final = ("nodes", "feedback", "sessions")
"""Replaced as a whole by a session's higher revision."""

Sessions = Mapping[str, AbstractSet[str]]
"""Date → session_uids."""


@dataclass(frozen=True, slots=True)
class RewriteTask:
    """Stage active files again, each without the rows of some sessions."""

    store: ObjectStore
    run: int
    files: tuple[tuple[DataFile, tuple[str, ...]], ...]


@dataclass(frozen=True, slots=True)
class RewriteResult:
    """``found`` is false if the file holds none of the sessions: then it stays and nothing was staged."""

    found: bool
    staged: StagedFile | None = None
    partial: Partial | None = None


@dataclass(frozen=True, slots=True)
class Rewriter:
    """Where rewrites run, and how large a task may be."""

    store: ObjectStore
    runner: Runner
    task_bytes: int

    def changes(
        self,
        plan: RunPlan,
        *,
        superseded: Sessions,
        withdrawn: Sessions,
        added: Sequence[StagedFile] = (),
        counted: Sequence[Partial] = (),
    ) -> Changes:
        """All of a run's changes: ``added`` files, without the rows of superseded and withdrawn sessions.

        Superseded ones lose their rows in SESSION_TABLES only. ``counted`` are the verdicts in ``added``;
        feedback_summary is made anew for every date that they or a rewrite touch.
        """
        replaced = union(superseded, withdrawn)
        touched = {dt for part in counted for dt in part.dates} | set(replaced)
        tasks = [
            task
            for table in (*ROW_TABLES, *SESSION_TABLES)
            for task in self._tasks(plan, table, withdrawn if table in ROW_TABLES else replaced, touched)
        ]
        results: list[tuple[DataFile, RewriteResult]] = []
        self.runner.run(rewrite, tasks, lambda _, found: results.extend(found))
        results.sort(key=lambda pair: pair[0].key)
        tables = {table: _change(table, added, results) for table in (*ROW_TABLES, *SESSION_TABLES)}
        left = [result.partial for _, result in results if result.partial]
        tables["feedback_summary"] = self._summary(plan, touched, [*counted, *left])
        return Changes(tables)

    def _tasks(self, plan: RunPlan, table: str, gone: Sessions, touched: AbstractSet[str]) -> list[RewriteTask]:
        """Files to look at: those that may hold a session, and for the summary all feedback of touched dates."""
        dts = touched if table == "feedback" else set(gone)
        tasks: list[RewriteTask] = []
        batch: list[tuple[DataFile, tuple[str, ...]]] = []
        for file in lake.data_files(self.store, table, plan.base[table], dts=dts) if dts else ():
            uids = tuple(sorted(gone.get(file.dt, ())))
            if table != "feedback" and not file.may_hold(uids):
                continue
            batch.append((file, uids))
            if sum(f.size_bytes for f, _ in batch) >= self.task_bytes:
                tasks.append(RewriteTask(self.store, plan.run, tuple(batch)))
                batch = []
        return [*tasks, RewriteTask(self.store, plan.run, tuple(batch))] if batch else tasks

    def _summary(self, plan: RunPlan, touched: AbstractSet[str], partials: Sequence[Partial]) -> TableChange:
        if not touched:
            return TableChange()
        old = lake.data_files(self.store, "feedback_summary", plan.base["feedback_summary"], dts=touched)
        encoded = (
            datafiles.encode(FEEDBACK_SUMMARY, dt, [rows], run=plan.run, task=f"summary {dt}")
            for dt, rows in sorted(summarise(partials).items())
        )
        return TableChange(tuple(datafiles.stage_each(self.store, (f for f in encoded if f))), tuple(old))


def union(*parts: Sessions) -> dict[str, set[str]]:
    """Sessions by date, over several mappings."""
    found: dict[str, set[str]] = {}
    for part in parts:
        for dt, uids in part.items():
            found.setdefault(dt, set()).update(uids)
    return found


def _change(table: str, added: Sequence[StagedFile], results: Sequence[tuple[DataFile, RewriteResult]]) -> TableChange:
    rewritten = [(file, result) for file, result in results if file.table == table and result.found]
    return TableChange(
        add=(*(f for f in added if f.table == table), *(r.staged for _, r in rewritten if r.staged)),
        remove=tuple(file for file, _ in rewritten),
    )


def rewrite(task: RewriteTask) -> list[tuple[DataFile, RewriteResult]]:
    """Drop rows from files; of a feedback file also count what is left."""
    fetched = ahead(lambda pair: datafiles.fetch(task.store, pair[0]), task.files)
    rewritten = (
        _rewritten(task, file, source, pa.array(without, pa.string()))
        for (file, without), source in zip(task.files, fetched, strict=True)
    )
    results = ahead(lambda pair: _staged(task.store, *pair), rewritten)
    return [(file, result) for (file, _), result in zip(task.files, results, strict=True)]


def _rewritten(
    task: RewriteTask, file: DataFile, source: RangeFile, gone: pa.Array
) -> tuple[RewriteResult, EncodedFile | None]:
    """Most files that may hold a session by their bounds do not, so its column is looked at first."""
    is_feedback = file.table == "feedback"
    columns = INPUT_COLUMNS if is_feedback else ("session_uid",)
    left = list(_without(datafiles.read(source, file, columns), gone))
    n_left = sum(t.num_rows for t in left)
    counted = partial(pa.concat_tables(left), pa.repeat(file.dt, n_left)) if is_feedback and left else None
    if n_left == file.n_rows:
        return RewriteResult(found=False, partial=counted), None
    source.prefetch(0, source.size_bytes)
    rows = _without(datafiles.read(source, file), gone)
    encoded = datafiles.encode(TABLES[file.table], file.dt, rows, run=task.run, task=f"rewrite {file.path}")
    return RewriteResult(found=True, partial=counted), encoded


def _staged(store: ObjectStore, result: RewriteResult, encoded: EncodedFile | None) -> RewriteResult:
    return result if encoded is None else replace(result, staged=datafiles.stage_encoded(store, encoded))


def _without(tables: Iterator[pa.Table], gone: pa.Array) -> Iterator[pa.Table]:
    for table in tables:
        yield table.filter(pc.invert(pc.is_in(table["session_uid"], gone)))
