"""Planners meet in one object, an outcome is settled once, and nothing is committed that is not there."""

from __future__ import annotations

from dataclasses import replace

import pyarrow as pa
import pytest
from archived import put, session

from archiver.errors import CorruptDataError, StorageError
from archiver.objects import DirectoryStore, ObjectStore
from archiver.settings import Settings
from pipelines import compaction, datafiles, lake, runs
from pipelines.datafiles import StagedFile
from pipelines.runs import Changes, RunPlan, TableChange
from pipelines.schema import FEEDBACK_SUMMARY

NOW_US = 1_790_900_000_000_000


@pytest.fixture
def plan(directory_store: DirectoryStore) -> RunPlan:
    """The run after a first one."""
    put(directory_store, 1, [session(n) for n in range(10)])
    compaction.compact(directory_store, Settings(runner={"workers": 1}), now_us=NOW_US)
    version = lake.current(directory_store)
    return RunPlan(2, "maintain", NOW_US, "1", dict(version.tables), dict(version.watermarks), {"note": [1, None]})


def staged_summary(store: ObjectStore, task: str) -> StagedFile:
    rows = lake.scan(store, "feedback_summary").drop_columns(["dt"])
    file = datafiles.stage(store, FEEDBACK_SUMMARY, "2026-01-01", [rows], run=2, task=task)
    assert file is not None
    return file


def test_a_plan_is_read_back_as_written(directory_store: DirectoryStore, plan: RunPlan) -> None:
    assert runs.announce(directory_store, plan) == plan
    assert runs.unfinished(directory_store, lake.current(directory_store)) == plan


def test_the_second_planner_gets_the_first_ones_plan(directory_store: DirectoryStore, plan: RunPlan) -> None:
    runs.announce(directory_store, plan)
    assert runs.announce(directory_store, replace(plan, created_us=NOW_US + 1)) == plan


def test_an_outcome_is_settled_by_the_first(directory_store: DirectoryStore, plan: RunPlan) -> None:
    assert runs.decide(directory_store, plan, "abandon") == "abandon"
    assert runs.decide(directory_store, plan, "commit") == "abandon"


def test_a_plan_of_a_newer_format_is_refused(directory_store: DirectoryStore, plan: RunPlan) -> None:
    directory_store.create(plan.key, plan.to_json().replace(b'"format":1', b'"format":2'))
    with pytest.raises(CorruptDataError, match="format 2"):
        runs.read_plan(directory_store, plan.run)


def test_a_file_that_did_not_arrive_stops_the_run(
    directory_store: DirectoryStore, plan: RunPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = staged_summary(directory_store, "x")
    monkeypatch.setattr(directory_store, "publish", lambda key, token: None)
    with pytest.raises(StorageError, match="nothing was committed"):
        runs.publish(directory_store, plan, [file])


def test_files_of_a_rival_attempt_go_once_the_run_is_committed(directory_store: DirectoryStore, plan: RunPlan) -> None:
    rival, mine = staged_summary(directory_store, "rival"), staged_summary(directory_store, "mine")
    runs.publish(directory_store, plan, [rival])
    assert directory_store.head(rival.key) is not None
    runs.publish(directory_store, plan, [mine])
    assert runs.commit(directory_store, plan, Changes({"feedback_summary": TableChange((mine,))}))
    assert directory_store.head(rival.key) is None
    assert directory_store.head(mine.key) is not None


def test_a_finisher_that_comes_late_leaves_what_a_later_run_replaced(
    directory_store: DirectoryStore, plan: RunPlan
) -> None:
    mine = staged_summary(directory_store, "mine")
    changes = Changes({"feedback_summary": TableChange((mine,))})
    runs.publish(directory_store, plan, [mine])
    assert runs.commit(directory_store, plan, changes)
    version = lake.current(directory_store)
    later = replace(plan, run=3, base=dict(version.tables))
    replaced = [f for f in lake.data_files(directory_store, "feedback_summary", None) if f.key == mine.key]
    runs.commit(directory_store, later, Changes({"feedback_summary": TableChange(remove=tuple(replaced))}))
    assert runs.commit(directory_store, plan, changes)
    assert lake.scan(directory_store, "feedback_summary", version).num_rows > mine.n_rows


def test_ending_a_run_keeps_rows_and_watermarks(directory_store: DirectoryStore, plan: RunPlan) -> None:
    before = lake.current(directory_store)
    runs.finish_empty(directory_store, replace(plan, watermarks={"f" * 32: 9}))
    after = lake.current(directory_store)
    assert (after.run, after.watermarks) == (2, before.watermarks)
    assert lake.scan(directory_store, "messages").num_rows == lake.scan(directory_store, "messages", before).num_rows


def test_no_plan_on_tables_that_are_past_the_version(directory_store: DirectoryStore, plan: RunPlan) -> None:
    before = lake.current(directory_store)
    assert runs.base_versions(directory_store, before) == dict(before.tables)
    runs.finish_empty(directory_store, plan)
    assert runs.base_versions(directory_store, before) is None


def test_a_file_without_rows_is_not_staged(directory_store: DirectoryStore) -> None:
    empty = FEEDBACK_SUMMARY.schema.empty_table()
    assert datafiles.stage(directory_store, FEEDBACK_SUMMARY, "2026-01-01", [empty], run=1, task="t") is None
    assert list(directory_store.list_staged("tables/")) == []


def test_names_of_files_follow_task_and_bytes(directory_store: DirectoryStore) -> None:
    row = {f.name: "x" if pa.types.is_string(f.type) else 1 for f in FEEDBACK_SUMMARY.schema}
    rows = pa.Table.from_pylist([row], schema=FEEDBACK_SUMMARY.schema)
    names = [
        datafiles.stage(directory_store, FEEDBACK_SUMMARY, "2026-01-01", [rows], run=run, task=task)
        for run, task in ((1, "a"), (1, "a"), (1, "b"), (2, "a"))
    ]
    keys = [file.key for file in names if file]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_a_null_where_the_schema_allows_none_is_never_written(directory_store: DirectoryStore) -> None:
    nullable = pa.schema([f.with_nullable(True) for f in FEEDBACK_SUMMARY.schema])
    rows = pa.Table.from_pylist([dict.fromkeys(nullable.names)], schema=nullable)
    with pytest.raises(pa.ArrowInvalid, match="non-nullable"):
        datafiles.stage(directory_store, FEEDBACK_SUMMARY, "2026-01-01", [rows], run=1, task="t")
