"""The loop of a compaction: finish what is unfinished, plan, map, rewrite, publish, commit; again."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import pyarrow as pa

from archiver import archive, telemetry
from archiver.errors import ConflictError
from archiver.objects import ObjectStore
from archiver.settings import Settings
from pipelines import lake, runs
from pipelines.compaction.plan import (
    Discovery,
    Gap,
    SegmentKeys,
    advanced,
    cut_tasks,
    discover,
    from_body,
    read_keys,
    to_body,
)
from pipelines.compaction.select import Reject, Selection, select, stored_rows
from pipelines.compaction.tasks import ChosenPart, MapResult, MapTask, map_parts
from pipelines.datafiles import StagedFile
from pipelines.lake import LakeVersion
from pipelines.rewrites import Rewriter, union
from pipelines.runner import Runner, open_runner, release_memory, worker_count
from pipelines.runs import Changes, RunPlan
from pipelines.schema import TABLES

log = logging.getLogger(__name__)

Progress = Callable[[int], None]

_TASK_SHARE: Final = 12
"""A task may hold a twelfth of one process's memory uncompressed: it is decoded, sorted, encoded and compressed."""
_RUN_SHARE: Final = 2
"""A run takes in at most so many times the memory limit, so that what the driver keeps of it is bounded too."""


@dataclass(frozen=True, slots=True)
class CompactReport:
    """What a compaction did.

    Attributes:
        runs: Numbers of the runs it committed, finished ones of others included.
        rows_added: Rows added less rows replaced, per table.
        sessions_skipped: Records the tables held already, or that came twice.
        sessions_excluded: Sessions that withhold consent or are erased.
        rejects: Records left out that a person should look at.
        gaps: Sequence numbers no archiver's watermark could pass.
        lake_version: The version afterwards.
    """

    runs: tuple[int, ...] = ()
    segments: int = 0
    rows_added: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    sessions_skipped: int = 0
    sessions_excluded: int = 0
    rejects: tuple[Reject, ...] = ()
    gaps: tuple[Gap, ...] = ()
    lake_version: int = 0
    seconds: float = 0.0

    @property
    def problems(self) -> tuple[str, ...]:
        """One line for every gap and reject."""
        lines = [f"{g.reason} segment {g.ref.key}: {g.detail}" for g in self.gaps]
        return (*lines, *(f"{r.rule}: session {r.session_uid} in {r.key}: {r.detail}" for r in self.rejects))

    @property
    def incomplete(self) -> bool:
        """Whether something that was archived is not in the tables."""
        return bool(self.gaps or self.rejects)


@dataclass(frozen=True, slots=True)
class _Done:
    """What one run did."""

    segments: int = 0
    rows_added: Mapping[str, int] = field(default_factory=dict)
    skipped: int = 0
    excluded: int = 0
    rejects: tuple[Reject, ...] = ()
    gap: Gap | None = None


def compact(store: ObjectStore, settings: Settings, *, now_us: int, progress: Progress | None = None) -> CompactReport:
    """Bring everything that was archived into the tables, exactly once; safe to race, to kill and to repeat.

    ``progress`` is told the number of segments done so far.
    """
    started = time.monotonic()
    lake.create_tables(store)
    done: list[_Done] = []
    numbers: list[int] = []
    damaged: list[Gap] = []
    with open_runner(settings.runner) as runner:
        while True:
            compaction = _Compaction(store, settings, runner, now_us)
            step = compaction.next_run(damaged)
            if isinstance(step, Discovery):
                break
            numbers.append(step[0])
            done.append(step[1])
            if step[1].gap is not None:
                damaged.append(step[1].gap)
            if progress is not None:
                progress(sum(d.segments for d in done))
    return CompactReport(
        runs=tuple(numbers),
        segments=sum(d.segments for d in done),
        rows_added={t: sum(d.rows_added.get(t, 0) for d in done) for t in TABLES},
        sessions_skipped=sum(d.skipped for d in done),
        sessions_excluded=sum(d.excluded for d in done),
        rejects=tuple(r for d in done for r in d.rejects),
        gaps=step.gaps,
        lake_version=lake.current(store).number,
        seconds=time.monotonic() - started,
    )


class _Compaction:
    """One run: its collaborators, and what its steps share."""

    def __init__(self, store: ObjectStore, settings: Settings, runner: Runner, now_us: int) -> None:
        self._store, self._settings, self._runner, self._now_us = store, settings, runner, now_us
        per_process = settings.tables.memory_limit // (worker_count(settings.runner) + 1)
        self._task_bytes = max(1, per_process // _TASK_SHARE)

    def next_run(self, damaged: Sequence[Gap]) -> tuple[int, _Done] | Discovery:
        """Finish or make one run; a Discovery without segments if there is nothing to do."""
        version = lake.current(self._store)
        plan = runs.unfinished(self._store, version)
        if plan is not None:
            return plan.run, self._finish(plan)
        keys, gaps = self._new_segments(version, damaged)
        if not keys:
            return Discovery((), gaps)
        mine = self._plan(version, keys)
        if mine is None:  # another process planned this run meanwhile
            return self.next_run(damaged)
        plan = runs.announce(self._store, mine)
        return plan.run, self._execute(plan, keys) if plan == mine else self._finish(plan)

    def _new_segments(
        self, version: LakeVersion, damaged: Sequence[Gap]
    ) -> tuple[Sequence[SegmentKeys], tuple[Gap, ...]]:
        """Readable segments for one run; a damaged one holds back its own archiver and nobody else's."""
        tables = self._settings.tables
        while True:
            found = discover(self._store, version.watermarks, stop_at=damaged, limit=tables.max_segments_per_run)
            if found.size_bytes > self._task_bytes:  # several tasks, for uncompressed they are larger
                self._runner.prepare(map_parts.__module__)
            keys, more = read_keys(self._store, found.refs, max_bytes=tables.memory_limit * _RUN_SHARE)
            if keys or not more:
                return keys, (*found.gaps, *more)
            damaged = [*damaged, *more]

    def _plan(self, version: LakeVersion, keys: Sequence[SegmentKeys]) -> RunPlan | None:
        base = runs.base_versions(self._store, version)
        if base is None:
            return None
        return RunPlan(
            run=version.run + 1,
            kind="compact",
            created_us=self._now_us,
            code_version=runs.code_version(),
            base=base,
            watermarks=advanced(version.watermarks, keys),
            body=to_body(keys, cut_tasks(keys, self._task_bytes)),
        )

    def _finish(self, plan: RunPlan) -> _Done:
        if plan.kind != "compact":
            runs.finish_empty(self._store, plan)
            return _Done()
        refs, _ = from_body(plan.body)
        keys, gaps = read_keys(self._store, refs, max_bytes=2**63)
        return self._abandon(plan, gaps[0]) if gaps else self._execute(plan, keys)

    def _execute(self, plan: RunPlan, keys: Sequence[SegmentKeys]) -> _Done:
        stored = stored_rows(self._store, plan.base["sessions"], pa.concat_tables(k.keys for k in keys))
        release_memory()  # before choosing needs it
        while True:
            ledger = archive.tombstones(self._store)
            selection = select(keys, stored, ledger)
            release_memory()  # before the workers need it
            results = self._map(plan, keys, selection)
            gap = next((r.gap for r in results if r.gap), None)
            if gap is not None:
                return self._abandon(plan, gap, results)
            if any(r.stale for r in results):
                self._discard([f for r in results for f in r.files])
                return self._finish(plan)  # which reads the keys again
            changes = self._changes(plan, results)
            if archive.tombstones(self._store).entries == ledger.entries:
                break
            self._discard(changes.staged)
        if runs.decide(self._store, plan, "commit") == "abandon":
            return self._abandon(plan, None, results)
        if lake.run_of(self._store, "sessions") >= plan.run:  # others finished it; what they removed since stays so
            self._discard(changes.staged)
            return _Done()
        runs.publish(self._store, plan, changes.staged)
        runs.commit(self._store, plan, changes)
        done = _report(keys, selection, results, changes)
        log.info("run_committed", extra=telemetry.fields(run=plan.run, segments=done.segments, **done.rows_added))
        return done

    def _abandon(self, plan: RunPlan, gap: Gap | None, results: Sequence[MapResult] = ()) -> _Done:
        """End the run without rows, so that the next one can be planned around a damaged segment."""
        if runs.decide(self._store, plan, "abandon") == "commit":
            raise ConflictError(
                f"run {plan.run} is being committed and {gap.ref.key if gap else 'a segment'} cannot be read any more",
                operation="compact", key=plan.key, hint="restore the segment from a backup, then run again",
            )  # fmt: skip
        self._discard([f for r in results for f in r.files])
        runs.finish_empty(self._store, plan)
        return _Done(gap=gap)

    def _discard(self, staged: Sequence[StagedFile]) -> None:
        for file in staged:
            self._store.discard(file.key, file.token)

    def _map(self, plan: RunPlan, keys: Sequence[SegmentKeys], selection: Selection) -> list[MapResult]:
        _, cuts = from_body(plan.body)
        by_ref = {k.ref: (k, c) for k, c in zip(keys, selection.chosen, strict=True)}
        tasks = [
            MapTask(
                self._store,
                plan.run,
                tuple(ChosenPart.cut(part, *by_ref[part.ref]) for part in parts),
                self._settings.exports.split_salt,
                self._settings.tables.redact,
            )
            for parts in cuts
        ]
        results: dict[str, MapResult] = {}
        self._runner.run(map_parts, tasks, lambda task, result: results.update({task.identity: result}))
        return [results[task.identity] for task in tasks]

    def _changes(self, plan: RunPlan, results: Sequence[MapResult]) -> Changes:
        rewriter = Rewriter(self._store, self._runner, self._task_bytes)
        return rewriter.changes(
            plan,
            superseded=union(*(r.superseded for r in results)),
            withdrawn=union(*(r.withdrawn for r in results)),
            added=[f for r in results for f in r.files],
            counted=[p for r in results for p in r.partials],
        )


def _report(keys: Sequence[SegmentKeys], selection: Selection, results: Sequence[MapResult], changes: Changes) -> _Done:
    return _Done(
        segments=len(keys),
        rows_added=changes.rows_added,
        skipped=selection.skipped,
        excluded=selection.erased + sum(r.excluded for r in results),
        rejects=(*selection.rejects, *(r for result in results for r in result.rejects)),
    )
