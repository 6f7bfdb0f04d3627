"""A compaction cut short, and what then meets it: a newer release, a damaged archive, an erasure."""

import pytest
from archived import ARCHIVER, DAY_US, OTHER_ARCHIVER, START_US, put, session
from deltalake.schema import Field, PrimitiveType

from archiver import archive
from archiver.archive import SegmentRef
from archiver.settings import load_settings
from pipelines import lake, maintenance
from pipelines.compaction import compact

NOW_US = START_US + 20 * DAY_US
SETTINGS = load_settings(None, {"runner.workers": 1, "tables.max_segments_per_run": 2})
ROW_TABLES = ("messages", "interactions", "nodes", "feedback")


class DiedError(Exception):
    """Stands for the end of the process."""


def sessions(store):
    return sorted(lake.scan(store, "sessions")["session_id"].to_pylist())


def die_at_commit(monkeypatch, number):
    """Let the process end before its ``number``-th table commit."""
    commit, calls = lake.commit, []

    def dying(*args, **values):
        calls.append(args)
        if len(calls) >= number:
            raise DiedError
        return commit(*args, **values)

    monkeypatch.setattr(lake, "commit", dying)


def test_a_run_planned_before_a_release_added_a_column_is_finished_after_it(directory_store, monkeypatch):
    put(directory_store, 1, [session(1)])
    compact(directory_store, SETTINGS, now_us=NOW_US)
    put(directory_store, 2, [session(2)])
    with monkeypatch.context() as patch:
        die_at_commit(patch, 1)
        with pytest.raises(DiedError):
            compact(directory_store, SETTINGS, now_us=NOW_US)
    for table in ("messages", "sessions"):
        handle = lake.open_table(directory_store, table)
        handle.alter.add_columns([Field("of_a_newer_release", PrimitiveType("string"), nullable=True)])
    compact(directory_store, SETTINGS, now_us=NOW_US)
    assert sessions(directory_store) == ["s1", "s2"]


def test_a_damaged_segment_holds_back_its_own_archiver_only_however_many_wait_behind_it(directory_store):
    for sequence in (1, 2, 3):
        put(directory_store, sequence, [session(sequence)])
    put(directory_store, 1, [session(9)], OTHER_ARCHIVER)
    damaged = SegmentRef(ARCHIVER, 1).key
    directory_store.delete_versions(damaged)
    directory_store.create(damaged, b"damaged")
    report = compact(directory_store, SETTINGS, now_us=NOW_US)
    assert sessions(directory_store) == ["s9"]
    assert [gap.ref.key for gap in report.gaps] == [damaged]
    assert report.incomplete


def test_rows_of_a_session_erased_while_its_run_was_half_committed_are_found_and_removed(directory_store, monkeypatch):
    gone = session(1, user_id="u", n_messages=3)
    put(directory_store, 1, [session(7)])
    compact(directory_store, SETTINGS, now_us=NOW_US)
    put(directory_store, 2, sorted([gone, session(2)], key=lambda r: r.session_uid))
    with monkeypatch.context() as patch:
        die_at_commit(patch, 4)
        with pytest.raises(DiedError):
            compact(directory_store, SETTINGS, now_us=NOW_US)
    archive.put_tombstone(directory_store, archive.Tombstone.of("user", "u", NOW_US))
    compact(directory_store, SETTINGS, now_us=NOW_US)
    maintenance.erase(directory_store, SETTINGS, now_us=NOW_US)
    assert sessions(directory_store) == ["s2", "s7"]
    known = set(lake.scan(directory_store, "sessions")["session_uid"].to_pylist())
    for table in ROW_TABLES:
        assert set(lake.scan(directory_store, table)["session_uid"].to_pylist()) <= known, table
    assert maintenance.covered_uids(directory_store) == frozenset()
