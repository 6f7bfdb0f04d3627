"""Upkeep changes no row, keeps readers working, and removes only what no version needs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest
import reference
from archived import DAY_US, continued, put, session

from archiver import archive
from archiver.archive import Tombstone
from archiver.errors import StoreBusyError
from archiver.objects import DirectoryStore, ObjectStore
from archiver.settings import Settings
from pipelines import compaction, lake, maintenance, runs
from pipelines.maintenance import MaintainReport
from pipelines.schema import TABLES

NOW_US = 1_790_900_000_000_000


def settings(**tables: float) -> Settings:
    return Settings(runner={"workers": 1}, tables=tables)


def compact(store: ObjectStore, now_us: int = NOW_US) -> None:
    compaction.compact(store, settings(), now_us=now_us)


def maintain(store: ObjectStore, now_us: int = NOW_US + DAY_US, **tables: float) -> MaintainReport:
    return maintenance.maintain(store, settings(**tables), now_us=now_us)


def filled(store: ObjectStore, segments: int = 3) -> None:
    for i in range(segments):
        put(store, i + 1, [session(n) for n in range(i * 12, i * 12 + 12)])
        compact(store, NOW_US + i)


@pytest.fixture(params=["directory", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("moto", "seaweed"))])
def store(request: pytest.FixtureRequest) -> ObjectStore:
    """The quick suite needs one store; S3 does not differ here."""
    found: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return found


def on_disk(store: DirectoryStore) -> set[str]:
    return {info.key for table in TABLES for info in store.list(f"tables/{table}/data/")}


def test_merging_leaves_one_file_per_date_and_the_same_rows(store: ObjectStore) -> None:
    filled(store)
    before = reference.stored(store)
    report = maintain(store)
    assert report.files_merged > report.files_made > 0
    assert reference.stored(store) == before
    for table in TABLES:
        dates = [file.dt for file in lake.data_files(store, table, None)]
        assert len(dates) == len(set(dates)), table


def test_merged_files_are_sorted(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    maintain(directory_store)
    for table, dataset in TABLES.items():
        for file in lake.data_files(directory_store, table, None):
            keys = pq.read_table(
                lake.local_path(directory_store, file.key), columns=list(dataset.sort_keys)
            ).to_pylist()
            assert keys == sorted(keys, key=lambda row: tuple(row.values()))


def test_rows_merge_in_order_across_many_row_groups(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.datafiles.ROW_GROUP_BYTES", 2_000)
    filled(directory_store)
    before = reference.stored(directory_store)
    maintain(directory_store)
    assert reference.stored(directory_store) == before
    file = lake.data_files(directory_store, "messages", None)[0]
    merged = pq.ParquetFile(lake.local_path(directory_store, file.key))
    assert merged.num_row_groups > 3
    uids = merged.read(["session_uid"])["session_uid"].to_pylist()
    assert uids == sorted(uids)


def test_a_day_that_is_still_open_is_left_alone(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    report = maintain(directory_store, now_us=session(0, days=1).created_at_us)
    assert report.files_merged == 0


def test_superseded_files_stay_for_the_retention_and_then_go(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    old = lake.current(directory_store)
    expected = reference.stored(directory_store, old)
    merged = NOW_US + DAY_US
    assert maintain(directory_store, merged).files_merged > 0
    maintain(directory_store, merged + DAY_US - 1)
    assert reference.stored(directory_store, old) == expected
    assert maintain(directory_store, merged + 2 * DAY_US).files_removed > 0
    live = {f.key for table in TABLES for f in lake.data_files(directory_store, table, None)}
    assert on_disk(directory_store) == live


def test_what_a_run_in_progress_staged_and_published_is_never_removed(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    ahead = lake.current(directory_store).run + 5
    published = f"tables/messages/data/dt=2026-01-01/part-{ahead:010d}-{'0' * 24}.parquet"
    directory_store.create(published, b"x")
    token = directory_store.stage(published, b"x")
    for day in range(1, 5):
        maintain(directory_store, NOW_US + day * DAY_US)
    assert published in on_disk(directory_store)
    assert [s.token for s in directory_store.list_staged("tables/")] == [token]


def test_leftovers_of_finished_runs_go(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    orphan = f"tables/messages/data/dt=2026-01-01/part-{2:010d}-{'0' * 24}.parquet"
    directory_store.create(orphan, b"x")
    directory_store.stage(orphan, b"x")
    maintain(directory_store, NOW_US + DAY_US)
    maintain(directory_store, NOW_US + 3 * DAY_US)
    assert orphan not in on_disk(directory_store)
    assert list(directory_store.list_staged("tables/")) == []


def test_it_does_not_start_while_a_compaction_is_unfinished(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    version = lake.current(directory_store)
    plan = runs.RunPlan(
        run=version.run + 1, kind="compact", created_us=NOW_US, code_version="", base=dict(version.tables),
        watermarks={}, body={"segments": [], "tasks": []},
    )  # fmt: skip
    runs.announce(directory_store, plan)
    with pytest.raises(StoreBusyError, match="unfinished"):
        maintain(directory_store)


def test_a_compaction_ends_an_unfinished_upkeep_and_goes_on(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    version = lake.current(directory_store)
    plan = runs.RunPlan(
        run=version.run + 1, kind="maintain", created_us=NOW_US, code_version="", base=dict(version.tables),
        watermarks=dict(version.watermarks), body={},
    )  # fmt: skip
    runs.announce(directory_store, plan)
    put(directory_store, 4, [continued(session(1)), session(500)])
    compact(directory_store)
    assert lake.current(directory_store).run == plan.run + 1
    assert reference.stored(directory_store) == reference.tables(directory_store)


def test_an_upkeep_that_was_ended_by_others_leaves_nothing_visible(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    version = lake.current(directory_store)
    plan = runs.RunPlan(
        run=version.run + 1, kind="maintain", created_us=NOW_US, code_version="", base=dict(version.tables),
        watermarks=dict(version.watermarks), body={},
    )  # fmt: skip
    runs.announce(directory_store, plan)
    files = lake.data_files(directory_store, "messages", None)
    same_date = [f for f in files if f.dt == files[0].dt]
    staged = maintenance.merge(maintenance.MergeTask(directory_store, plan.run, tuple(same_date)))
    changes = runs.Changes({"messages": runs.TableChange((staged,), tuple(same_date))})
    runs.publish(directory_store, plan, changes.staged)
    runs.finish_empty(directory_store, replace(plan))
    assert not runs.commit(directory_store, plan, changes)
    assert staged.key not in on_disk(directory_store)


def test_merging_again_has_nothing_to_do(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    maintain(directory_store)
    assert maintain(directory_store, NOW_US + DAY_US + 1).files_merged == 0


def test_compaction_goes_on_after_upkeep(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    maintain(directory_store)
    put(directory_store, 4, [continued(session(n)) for n in range(30)])
    compact(directory_store)
    assert reference.stored(directory_store) == reference.tables(directory_store)


def test_erase_takes_a_user_out_of_every_table_and_every_file(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    put(directory_store, 4, [continued(session(n)) for n in range(0, 30, 4)])
    compact(directory_store)
    rows = lake.scan(directory_store, "sessions", columns=["session_uid", "user_id"]).to_pylist()
    user = next(row["user_id"] for row in rows if row["user_id"])
    gone = {row["session_uid"] for row in rows if row["user_id"] == user}
    archive.put_tombstone(directory_store, Tombstone.of("user", user, NOW_US))
    report = maintenance.erase(directory_store, settings(), now_us=NOW_US + 5)
    assert (report.sessions, report.rows_removed["sessions"]) == (len(gone), len(gone))
    expected = without(reference.tables(directory_store), gone)
    found = reference.stored(directory_store)
    for table in expected:
        assert found[table] == expected[table], table
    for key in on_disk(directory_store):
        assert not gone & set(session_uids(directory_store, key))


def without(tables: dict[str, list[dict[str, Any]]], gone: set[str]) -> dict[str, list[dict[str, Any]]]:
    rows = {t: [r for r in found if r["session_uid"] not in gone] for t, found in tables.items() if t in EVENTS}
    latest = [row for row in rows["feedback"] if row["is_latest"]]
    return {**rows, "feedback_summary": reference.ordered("feedback_summary", reference.summary(latest))}


EVENTS = ("sessions", "messages", "interactions", "nodes", "feedback")


def session_uids(store: DirectoryStore, key: str) -> list[str]:
    file = pq.ParquetFile(lake.local_path(store, key))
    return file.read(["session_uid"])["session_uid"].to_pylist() if "session_uid" in file.schema_arrow.names else []


def test_erasing_again_finds_nothing(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    archive.put_tombstone(directory_store, Tombstone.of("session", session(1).session_uid, NOW_US))
    assert maintenance.erase(directory_store, settings(), now_us=NOW_US).sessions == 1
    again = maintenance.erase(directory_store, settings(), now_us=NOW_US)
    assert (again.run, again.sessions, again.files_removed) == (None, 0, 0)
    compact(directory_store)
    assert session(1).session_uid not in lake.scan(directory_store, "sessions")["session_uid"].to_pylist()


def test_erasing_before_there_are_tables(directory_store: DirectoryStore) -> None:
    assert maintenance.erase(directory_store, settings(), now_us=NOW_US).run is None
