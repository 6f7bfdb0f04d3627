"""Lake versions, commits that land once, statistics that every reader may filter by, and columns of a later release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from archived import continued, put, session
from deltalake import DeltaTable

from archiver.errors import ConflictError, InputError
from archiver.objects import DirectoryStore, ObjectStore
from archiver.settings import Settings
from pipelines import compaction, datafiles, lake, query
from pipelines.schema import TABLES, Dataset

NOW_US = 1_790_900_000_000_000
SETTINGS = Settings(runner={"workers": 1})


def compact(store: ObjectStore) -> None:
    compaction.compact(store, SETTINGS, now_us=NOW_US)


@pytest.fixture
def filled(directory_store: DirectoryStore) -> DirectoryStore:
    put(directory_store, 1, [session(n) for n in range(30)])
    compact(directory_store)
    return directory_store


def commit(store: ObjectStore, base: int, run: int) -> lake.Committed:
    return lake.commit(store, "messages", base=base, run=run, watermarks={"a" * 32: run}, now_us=NOW_US)


def test_a_run_lands_once(any_store: ObjectStore) -> None:
    lake.create_tables(any_store)
    assert commit(any_store, 0, 1) == lake.Committed(1, by_us=True)
    assert commit(any_store, 0, 1) == lake.Committed(1, by_us=False)
    assert commit(any_store, 1, 2) == lake.Committed(2, by_us=True)
    assert commit(any_store, 0, 1) == lake.Committed(None, by_us=False)
    assert lake.run_of(any_store, "messages") == 2


def test_another_run_on_the_same_base_is_refused(directory_store: DirectoryStore) -> None:
    lake.create_tables(directory_store)
    commit(directory_store, 0, 1)
    with pytest.raises(ConflictError, match="no run"):
        commit(directory_store, 0, 2)


def test_creating_tables_again_changes_nothing(filled: DirectoryStore) -> None:
    before = lake.current(filled)
    lake.create_tables(filled)
    assert lake.current(filled) == before


def test_no_tables_yet(directory_store: DirectoryStore) -> None:
    assert not lake.exists(directory_store)
    with pytest.raises(InputError, match="no tables yet"):
        lake.current(directory_store)


def test_a_version_that_is_not_there(filled: DirectoryStore) -> None:
    with pytest.raises(InputError, match="no lake version 7"):
        lake.at_version(filled, 7)


def test_an_unknown_table(filled: DirectoryStore) -> None:
    with pytest.raises(InputError, match="no such table"):
        lake.open_table(filled, "users")


@pytest.mark.parametrize("table", TABLES)
def test_a_filter_on_any_column_finds_every_row(filled: DirectoryStore, table: str) -> None:
    rows = lake.scan(filled, table)
    path = lake.local_path(filled, f"tables/{table}")
    datasets = [lake.dataset(filled, table), DeltaTable(str(path)).to_pyarrow_dataset()]
    for name in rows.column_names:
        values = rows[name].drop_null()
        if not len(values) or pa.types.is_list(values.type):
            continue
        expected = sum(value == values[0] for value in rows[name])
        for dataset in datasets:
            found = dataset.to_table(filter=pc.field(name) == values[0])
            assert found.num_rows == expected, name


def test_polars_filters_rightly_through_the_log(filled: DirectoryStore) -> None:
    rows = lake.scan(filled, "feedback").to_pylist()
    frame = pl.scan_delta(str(lake.local_path(filled, "tables/feedback")))
    for row in rows[:5]:
        found = frame.filter(
            (pl.col("session_uid") == row["session_uid"]) & (pl.col("label") == row["label"])
        ).collect()
        same = [r for r in rows if (r["session_uid"], r["label"]) == (row["session_uid"], row["label"])]
        assert len(found) == len(same)


def later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    """A release whose sessions table has a column ``mood`` more."""
    known = TABLES["sessions"]
    mood = pa.field("mood", pa.string(), nullable=True, metadata={"description": "how it went"})
    monkeypatch.setitem(TABLES, "sessions", Dataset("sessions", known.rows, known.schema.append(mood), known.sort_keys))


def test_a_column_of_a_later_release_reads_as_null_in_older_files(
    filled: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    later_release(monkeypatch)
    lake.create_tables(filled)
    found = lake.scan(filled, "sessions")
    assert found["mood"].null_count == found.num_rows == 30
    assert query.query(filled, SETTINGS, "SELECT count(*) AS n, count(mood) AS m FROM sessions").to_pylist() == [
        {"n": 30, "m": 0}
    ]
    file = lake.data_files(filled, "sessions", None)[0]
    assert pa.concat_tables(datafiles.read(datafiles.fetch(filled, file), file)).schema.names[-1] == "mood"


def test_old_and_new_files_are_read_together(filled: DirectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    later_release(monkeypatch)
    from pipelines.compaction import rows

    before = rows.sessions
    schema = TABLES["sessions"].schema

    def with_mood(batch: pa.RecordBatch, *rest: object) -> pa.Table:
        plain = before(batch, *rest)
        return plain.append_column("mood", pa.array(["good"] * plain.num_rows))

    monkeypatch.setattr(rows, "SESSIONS", replace(TABLES["sessions"], schema=schema.remove(len(schema) - 1)))
    monkeypatch.setattr(rows, "sessions", with_mood)
    put(filled, 2, [continued(session(n)) for n in range(3)] + [session(n) for n in range(40, 45)])
    compact(filled)
    sql = "SELECT mood, count(*) AS n FROM sessions GROUP BY mood ORDER BY n"
    assert query.query(filled, SETTINGS, sql).to_pylist() == [{"mood": "good", "n": 8}, {"mood": None, "n": 27}]
    moods = lake.scan(filled, "sessions")["mood"].to_pylist()
    assert sorted(moods, key=str) == [None] * 27 + ["good"] * 8


def test_files_carry_what_readers_prune_by(filled: DirectoryStore) -> None:
    file = lake.data_files(filled, "messages", None)[0]
    path = lake.local_path(filled, file.key)
    metadata = pq.ParquetFile(path).metadata
    group = metadata.row_group(0)
    columns = {group.column(i).path_in_schema: group.column(i) for i in range(group.num_columns)}
    assert columns["content"].compression == "ZSTD"
    assert not columns["content"].is_stats_set
    assert "RLE_DICTIONARY" not in columns["content"].encodings
    assert columns["session_uid"].is_stats_set
    assert columns["session_uid"].has_offset_index
    assert group.sorting_columns
    assert b"ARROW:schema" not in (metadata.metadata or {})


def test_opening_stays_cheap_after_many_commits(directory_store: DirectoryStore, tmp_path: Path) -> None:
    lake.create_tables(directory_store)
    for run in range(45):
        commit(directory_store, run, run + 1)
    log = tmp_path / "lake/tables/messages/_delta_log"
    assert sorted(int(p.name[:20]) for p in log.glob("*.checkpoint.parquet")) == list(range(4, 46, 5))


def test_statistics_count_rows_and_files(filled: DirectoryStore) -> None:
    for found in lake.statistics(filled):
        rows = lake.scan(filled, found.table)
        files = lake.data_files(filled, found.table, None)
        assert (found.rows, found.files) == (rows.num_rows, len(files))
        assert found.size_bytes == sum(f.size_bytes for f in files) > 0
