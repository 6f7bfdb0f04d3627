"""However segments arrive, late, twice, in the wrong order, from several archivers: every session is there once."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import reference
from archived import ARCHIVER, DAY_US, OTHER_ARCHIVER, START_US, continued, put, session

from archiver.objects import DirectoryStore, ObjectStore
from archiver.settings import Settings
from pipelines import compaction, lake, maintenance, runs
from pipelines.compaction import CompactReport, driver
from pipelines.compaction.plan import Discovery
from pipelines.runs import RunPlan
from pipelines.schema import TABLES

NOW_US = 1_790_900_000_000_000
SETTINGS = Settings(runner={"workers": 1})


class DiedError(Exception):
    """Stands for the end of a process."""


def compact(store: ObjectStore, now_us: int = NOW_US) -> CompactReport:
    return compaction.compact(store, SETTINGS, now_us=now_us)


def assert_exact(store: ObjectStore) -> None:
    """At the current version every table is the reference's."""
    expected, found = reference.tables(store), reference.stored(store)
    for table in TABLES:
        assert found[table] == expected[table], table


@pytest.mark.parametrize("between", [False, True], ids=["one run", "a run each"])
def test_revisions_that_arrive_before_the_original(directory_store: DirectoryStore, between: bool) -> None:
    first = [session(n) for n in range(20)]
    put(directory_store, 1, [continued(r) for r in first])
    before = compact(directory_store).sessions_skipped if between else 0
    put(directory_store, 2, first)
    assert before + compact(directory_store).sessions_skipped == 20
    assert_exact(directory_store)


def test_a_segment_delivered_twice(directory_store: DirectoryStore) -> None:
    records = [session(n) for n in range(20)]
    put(directory_store, 1, records)
    put(directory_store, 2, records)
    compact(directory_store)
    put(directory_store, 3, records)
    report = compact(directory_store)
    assert (report.sessions_skipped, report.incomplete) == (20, False)
    assert_exact(directory_store)


@pytest.mark.parametrize("between", [False, True], ids=["one run", "a run each"])
def test_one_import_under_two_archivers(directory_store: DirectoryStore, between: bool) -> None:
    records = [session(n) for n in range(20)]
    put(directory_store, 1, records)
    added = compact(directory_store).rows_added["sessions"] if between else 0
    put(directory_store, 1, records, OTHER_ARCHIVER)
    assert added + compact(directory_store).rows_added["sessions"] == 20
    assert_exact(directory_store)


def test_an_archiver_that_lags(directory_store: DirectoryStore) -> None:
    put(directory_store, 1, [session(n) for n in range(20)])
    put(directory_store, 2, [session(n) for n in range(20, 40)])
    compact(directory_store)
    put(directory_store, 1, [session(n) for n in range(40, 60)], OTHER_ARCHIVER)
    assert compact(directory_store).rows_added["sessions"] == 20
    assert lake.current(directory_store).watermarks == {ARCHIVER: 2, OTHER_ARCHIVER: 1}
    assert_exact(directory_store)


def test_an_archiver_that_lags_a_day_behind_an_upkeep(directory_store: DirectoryStore) -> None:
    """Its sessions belong to a day whose files were merged meanwhile, some of them continued by the other archiver."""
    records = [session(n, created_at_us=START_US + n) for n in range(20)]
    put(directory_store, 1, [continued(r) for r in records[:5]] + records[5:10])
    compact(directory_store, START_US + DAY_US // 2)
    put(directory_store, 2, [session(n, created_at_us=START_US + DAY_US + n) for n in range(20, 30)])
    compact(directory_store, START_US + DAY_US)
    maintenance.maintain(directory_store, SETTINGS, now_us=START_US + DAY_US + 1)
    put(directory_store, 1, records, OTHER_ARCHIVER)
    report = compact(directory_store, START_US + 2 * DAY_US)
    assert (report.rows_added["sessions"], report.sessions_skipped) == (10, 10)
    assert_exact(directory_store)


def test_a_late_segment_of_a_day_that_was_closed(directory_store: DirectoryStore) -> None:
    """Sessions and revisions of day 0 come after days 1 and 2; the other days' files stay as they are."""
    days = [[session(10 * day + n, created_at_us=START_US + day * DAY_US + n) for n in range(10)] for day in range(3)]
    put(directory_store, 1, days[0][:6])
    put(directory_store, 2, days[1] + days[2])
    compact(directory_store)
    before = {file.key for table in TABLES for file in lake.data_files(directory_store, table, None)}
    put(directory_store, 3, [continued(r) for r in days[0][:3]] + days[0][6:])
    assert compact(directory_store).rows_added["sessions"] == 4
    assert_exact(directory_store)
    after = {file.key for table in TABLES for file in lake.data_files(directory_store, table, None)}
    late = f"dt={lake.data_files(directory_store, 'sessions', None)[0].dt}"
    assert {key.split("/")[3] for key in before ^ after} == {late}


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_revisions_over_any_number_of_runs(directory_store: DirectoryStore, seed: int) -> None:
    rng = random.Random(seed)
    deliveries = []
    for n in range(25):
        record = session(n, seed=seed)
        for _ in range(rng.randrange(1, 4)):
            deliveries.append(record)
            record = continued(record, messages=rng.randrange(3), interactions=rng.randrange(2))
    rng.shuffle(deliveries)
    cuts = sorted(rng.sample(range(1, len(deliveries)), 4))
    sequences = {ARCHIVER: 0, OTHER_ARCHIVER: 0}
    for start, stop in zip([0, *cuts], [*cuts, len(deliveries)], strict=True):
        archiver = rng.choice((ARCHIVER, OTHER_ARCHIVER))
        sequences[archiver] += 1
        put(directory_store, sequences[archiver], deliveries[start:stop], archiver)
        if rng.random() < 0.7:
            compact(directory_store)
    compact(directory_store)
    assert_exact(directory_store)


def seeing(archiver: str) -> Callable[..., Discovery]:
    """Discovery of a process whose listing shows one archiver only."""
    discover = driver.discover

    def found(store: ObjectStore, watermarks: Mapping[str, int], **values: Any) -> Discovery:
        everything = discover(store, watermarks, **values)
        return Discovery(tuple(r for r in everything.refs if r.archiver_id == archiver), everything.gaps)

    return found


@pytest.mark.parametrize("commits", [0, 1, 3, 5, 6], ids=lambda n: f"the other got {n} commits far")
def test_two_runs_with_disjoint_archivers(
    directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch, commits: int
) -> None:
    """Both plan the same run on the same versions, neither has seen the other's segments, which share sessions."""
    records = [session(n) for n in range(20)]
    put(directory_store, 1, records[:10] + [continued(r) for r in records[10:15]])
    put(directory_store, 1, [continued(r) for r in records[5:10]] + records[10:], OTHER_ARCHIVER)
    announce = runs.announce

    def second(store: ObjectStore, plan: RunPlan) -> RunPlan:
        monkeypatch.undo()
        with monkeypatch.context() as patch:
            patch.setattr(driver, "discover", seeing(OTHER_ARCHIVER))
            die_before_commit(patch, commits + 1)
            with pytest.raises(DiedError) if commits < len(TABLES) else nullcontext():
                compact(store)
        found = announce(store, plan)
        assert (found.run, set(found.watermarks)) == (plan.run, {OTHER_ARCHIVER})
        return found

    monkeypatch.setattr(driver, "discover", seeing(ARCHIVER))
    monkeypatch.setattr(runs, "announce", second)
    compact(directory_store)
    assert lake.current(directory_store).watermarks == {ARCHIVER: 1, OTHER_ARCHIVER: 1}
    assert_exact(directory_store)


def die_before_commit(patch: pytest.MonkeyPatch, number: int) -> None:
    """Let the process end before its ``number``-th table commit."""
    commit, calls = lake.commit, []

    def dying(*args: Any, **values: Any) -> lake.Committed:
        calls.append(args)
        if len(calls) == number:
            raise DiedError
        return commit(*args, **values)

    patch.setattr(lake, "commit", dying)
