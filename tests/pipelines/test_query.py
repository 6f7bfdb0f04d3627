"""SQL over a lake version: the same answers locally and on S3, at any version, without any extension."""

from __future__ import annotations

from datetime import date

import duckdb
import pytest
import reference
from archived import continued, put, session

from archiver.errors import InputError
from archiver.objects import DirectoryStore, ObjectStore
from archiver.settings import Settings
from pipelines import compaction, lake, query
from pipelines.schema import TABLES

NOW_US = 1_790_900_000_000_000
SETTINGS = Settings(runner={"workers": 1})


def filled(store: ObjectStore) -> dict[str, list[reference.Row]]:
    put(store, 1, [session(n) for n in range(25)])
    compaction.compact(store, SETTINGS, now_us=NOW_US)
    return reference.tables(store)


def test_every_table_can_be_queried(any_store: ObjectStore) -> None:
    expected = filled(any_store)
    for table in TABLES:
        found = query.query(any_store, SETTINGS, f"SELECT * FROM {table}").to_pylist()
        assert reference.ordered(table, found) == expected[table], table


def test_a_join_with_a_filter(any_store: ObjectStore) -> None:
    expected = filled(any_store)
    sql = """SELECT s.dt, count(*) AS n FROM sessions s JOIN messages m USING (session_uid)
             WHERE m.role = 'user' GROUP BY s.dt ORDER BY s.dt"""
    found = query.query(any_store, SETTINGS, sql).to_pylist()
    days = sorted({row["dt"] for row in expected["messages"] if row["role"] == "user"})
    assert found == [
        {"dt": day, "n": sum(r["dt"] == day and r["role"] == "user" for r in expected["messages"])} for day in days
    ]
    assert isinstance(found[0]["dt"], date)


def test_an_earlier_version(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    first = lake.current(directory_store).number
    put(directory_store, 2, [continued(session(1)), session(99)])
    compaction.compact(directory_store, SETTINGS, now_us=NOW_US)
    count = "SELECT count(*) AS n FROM sessions"
    assert query.query(directory_store, SETTINGS, count).to_pylist() == [{"n": 26}]
    assert query.query(directory_store, SETTINGS, count, version=first).to_pylist() == [{"n": 25}]


def test_empty_tables_have_their_columns(directory_store: DirectoryStore) -> None:
    lake.create_tables(directory_store)
    for table, dataset in TABLES.items():
        found = query.query(directory_store, SETTINGS, f"SELECT * FROM {table}")
        assert found.num_rows == 0
        assert found.schema.names == [*dataset.schema.names, "dt"]


@pytest.mark.parametrize("sql", ["SELECT * FROM users", "SELEC 1", "SELECT nothing FROM sessions"])
def test_a_wrong_query_names_the_tables(directory_store: DirectoryStore, sql: str) -> None:
    filled(directory_store)
    with pytest.raises(InputError, match="tables are sessions, messages"):
        query.query(directory_store, SETTINGS, sql)


def test_a_query_cannot_fetch_extensions(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    with pytest.raises(InputError):
        query.query(directory_store, SETTINGS, "SET autoinstall_known_extensions = true")


def test_the_printed_views_work_in_a_plain_duckdb(directory_store: DirectoryStore) -> None:
    expected = filled(directory_store)
    connection = duckdb.connect()
    connection.execute(query.sql_views(directory_store, SETTINGS))
    for table, rows in expected.items():
        assert connection.execute(f"SELECT count(*) FROM {table}").fetchall() == [(len(rows),)]


def test_the_views_of_an_earlier_version(directory_store: DirectoryStore) -> None:
    filled(directory_store)
    text = query.sql_views(directory_store, SETTINGS, version=0)
    assert text.startswith("-- lake version 0, run 0\n")
    connection = duckdb.connect()
    connection.execute(text)
    assert connection.execute("SELECT count(*) FROM messages").fetchall() == [(0,)]
