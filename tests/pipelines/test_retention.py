"""Old log entries and plans go with the retention; every version that is younger stays readable."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
import reference
from archived import continued, put, session
from deltalake import DeltaTable

from archiver.errors import InputError
from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction, lake, maintenance, retention, runs
from pipelines.schema import TABLES

NOW_US = 1_790_900_000_000_000
HOUR_US = 3_600_000_000
SETTINGS = Settings(runner={"workers": 1}, tables={"retention_hours": 24})


def compact(store: DirectoryStore, hour: int) -> None:
    compaction.compact(store, SETTINGS, now_us=NOW_US + hour * HOUR_US)


def idle_run(store: DirectoryStore, hour: int) -> None:
    """A run without rows: what a log grows by, in a tenth of a compaction's time."""
    version = lake.current(store)
    base = runs.base_versions(store, version)
    assert base is not None
    now_us = NOW_US + hour * HOUR_US
    plan = runs.RunPlan(version.run + 1, "maintain", now_us, "", base, version.watermarks, {})
    assert runs.commit(store, runs.announce(store, plan), runs.Changes())


def maintain(store: DirectoryStore, hour: int, settings: Settings = SETTINGS) -> maintenance.MaintainReport:
    return maintenance.maintain(store, settings, now_us=NOW_US + hour * HOUR_US)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run an hour for three days, rows at noon, an upkeep every midnight."""
    root = tmp_path_factory.mktemp("three-days") / "lake"
    store = DirectoryStore(root)
    for hour in range(72):
        if hour % 24 == 12:
            first = [session(n) for n in range(hour, hour + 6)]
            put(store, hour // 24 + 1, [*first, *(continued(session(n - 24)) for n in range(36, hour, 12))])
            compact(store, hour)
        elif lake.exists(store):
            idle_run(store, hour)
        if hour % 24 == 23:
            maintain(store, hour)
    return root


@pytest.fixture
def three_days(built: Path, tmp_path: Path) -> DirectoryStore:
    shutil.copytree(built, tmp_path / "lake")
    return DirectoryStore(tmp_path / "lake")


def names(store: DirectoryStore, prefix: str) -> list[str]:
    return [info.key.removeprefix(prefix) for info in store.list(prefix)]


def test_a_log_holds_two_days_and_a_plan_for_each_of_their_runs(three_days: DirectoryStore) -> None:
    latest = lake.current(three_days).number
    for table in TABLES:
        entries = [int(name[:20]) for name in names(three_days, f"tables/{table}/_delta_log/") if name[0] == "0"]
        assert latest - min(entries) < 24 + 1 + 5
    assert latest - int(names(three_days, "tables/_runs/")[0][:12]) < 24 + 2


def test_every_version_of_the_last_day_is_whole(three_days: DirectoryStore) -> None:
    latest = lake.current(three_days)
    states = [reference.stored(three_days, lake.at_version(three_days, latest.number - back)) for back in range(25)]
    assert states[0] == reference.tables(three_days)
    assert len({str(rows) for rows in states}) == 2  # before and after the last noon


def test_a_version_whose_entry_went_is_named(three_days: DirectoryStore) -> None:
    with pytest.raises(InputError, match="no lake version 3"):
        lake.at_version(three_days, 3)


def test_other_readers_open_a_shortened_log(three_days: DirectoryStore) -> None:
    rows = len(reference.tables(three_days)["messages"])
    url = lake.table_url(three_days, "messages")
    assert DeltaTable(url).count() == rows
    assert pl.scan_delta(url).select(pl.len()).collect().item() == rows


def test_the_next_run_builds_on_a_shortened_log(three_days: DirectoryStore) -> None:
    put(three_days, 4, [continued(session(n)) for n in range(12, 18)])
    compact(three_days, 73)
    assert reference.stored(three_days) == reference.tables(three_days)


def test_nothing_goes_before_the_retention_is_over(directory_store: DirectoryStore) -> None:
    lake.create_tables(directory_store)
    for hour in range(23):
        idle_run(directory_store, hour)
    before = names(directory_store, "tables/")
    assert maintain(directory_store, 23).log_entries_removed == 0
    assert set(before) <= set(names(directory_store, "tables/"))


def test_a_longer_retention_brings_nothing_back_and_removes_nothing(three_days: DirectoryStore) -> None:
    week = Settings(runner={"workers": 1}, tables={"retention_hours": 168})
    assert maintain(three_days, 80, week).log_entries_removed == 0


def test_without_a_checkpoint_old_enough_the_log_stays(directory_store: DirectoryStore) -> None:
    lake.create_tables(directory_store)
    for hour in range(3):
        idle_run(directory_store, hour)
    oldest = replace(lake.current(directory_store), run=0)
    assert retention.shorten_logs(directory_store, oldest) == 0
