"""From the schema version a file has to the present one, in one transaction."""

from __future__ import annotations

import re
import secrets
import sqlite3
from collections.abc import Callable, Iterator
from typing import Final

from archiver.errors import CorruptDataError
from archiver.hot.schema import APPLICATION_ID, SCHEMA_VERSION, TABLES

_CREATED: Final = re.compile(r"CREATE (?:UNIQUE )?(?:TABLE|INDEX|TRIGGER) (\w+)")
_RESHAPED: Final = ("session", "claim", "archived")


def migrate(connection: sqlite3.Connection, *, key: str) -> None:
    """Bring the database to SCHEMA_VERSION, all or nothing; a newer or foreign file is refused untouched."""
    connection.execute("PRAGMA journal_mode=WAL").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    try:
        found = _version(connection, key)
        if found == 0:
            _create_what_is_missing(connection)
        for version in range(found or SCHEMA_VERSION, SCHEMA_VERSION):
            _MIGRATIONS[version](connection)
        if found < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
            connection.execute(f"PRAGMA application_id={APPLICATION_ID}")
            connection.execute(
                "INSERT OR IGNORE INTO store(name, value) VALUES('archiver_id', ?)", (secrets.token_hex(16),)
            )
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _version(connection: sqlite3.Connection, key: str) -> int:
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    empty = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0
    if not empty and application != APPLICATION_ID:
        raise CorruptDataError("is a SQLite database of another program", operation="open store", key=key)
    if version > SCHEMA_VERSION:
        raise CorruptDataError(
            f"has schema version {version}, this program knows up to {SCHEMA_VERSION}",
            operation="open store", key=key, hint="a newer sessionlake wrote it; use that version",
        )  # fmt: skip
    return version


def _create_what_is_missing(connection: sqlite3.Connection) -> None:
    known = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    for statement in _statements(TABLES):
        created = _CREATED.search(statement)
        if created is None or created[1] not in known:
            connection.execute(statement)


def _statements(script: str) -> Iterator[str]:
    """One at a time: ``executescript`` would commit the open transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _to_version_2(connection: sqlite3.Connection) -> None:
    """Version 1 had three indexes in random order on ``session`` and on ``archived`` each."""
    totals = connection.execute("SELECT sessions, interactions, verdicts FROM totals").fetchone()
    last_sid = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'session'").fetchone()
    found = connection.execute("SELECT type, name, tbl_name FROM sqlite_schema WHERE sql IS NOT NULL").fetchall()
    for kind, name, table in found:
        if kind == "trigger" or (kind == "index" and table in _RESHAPED):
            connection.execute(f"DROP {kind} {name}")
    for table in _RESHAPED:
        connection.execute(f"ALTER TABLE {table} RENAME TO old_{table}")
    _create_what_is_missing(connection)
    for table in _RESHAPED:
        columns = ", ".join(_columns(connection, table) & _columns(connection, f"old_{table}"))
        connection.execute(f"INSERT INTO {table}({columns}) SELECT {columns} FROM old_{table}")
        connection.execute(f"DROP TABLE old_{table}")
    connection.execute("UPDATE totals SET sessions = ?, interactions = ?, verdicts = ?", totals)
    if last_sid is not None:  # row ids of sessions that are gone stay taken
        connection.execute("UPDATE sqlite_sequence SET seq = ? WHERE name = 'session'", last_sid)


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


_MIGRATIONS: Final[dict[int, Callable[[sqlite3.Connection], None]]] = {1: _to_version_2}
"""Schema version found → what leads to the next one."""
