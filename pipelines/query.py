"""SQL over one lake version, with DuckDB; no extension is downloaded and no server is needed."""

from __future__ import annotations

from typing import Any, Final

import duckdb
import pyarrow as pa

from archiver.errors import InputError
from archiver.objects import ObjectStore
from archiver.settings import Settings
from pipelines import lake
from pipelines.lake import DataFile, LakeVersion
from pipelines.schema import TABLES, table_with_partition

_DUCKDB_TYPES: Final = {
    pa.string(): "VARCHAR", pa.bool_(): "BOOLEAN", pa.int32(): "INTEGER", pa.int64(): "BIGINT", pa.float32(): "FLOAT",
    pa.float64(): "DOUBLE", pa.date32(): "DATE", pa.timestamp("us", "UTC"): "TIMESTAMPTZ",
}  # fmt: skip


def query(store: ObjectStore, settings: Settings, sql: str, version: int | None = None) -> pa.Table:
    """The result of one SELECT over the six tables (and ``dt``) at a lake version, by default the current one.

    A local directory is read by DuckDB itself, S3 through pyarrow. InputError carries DuckDB's message.
    """
    pinned = lake.current(store) if version is None else lake.at_version(store, version)
    with _connect(settings) as connection:  # an unfetched result, even an empty one, would block the next statement
        for table in TABLES:
            if lake.local_path(store, table) is None:
                connection.register(table, lake.dataset(store, table, pinned))
            else:
                connection.execute(_view(store, table, pinned)).fetchall()
        connection.execute("SET lock_configuration = true").fetchall()
        try:
            found: Any = connection.sql(sql)  # None for a statement without rows, whatever its annotation says
            return pa.table({}) if found is None else found.to_arrow_table()
        except duckdb.Error as error:
            raise InputError(str(error), operation="query", hint=f"tables are {', '.join(TABLES)}") from error


def sql_views(store: ObjectStore, settings: Settings, version: int | None = None) -> str:
    """CREATE VIEW statements for DuckDB over the exact files of a lake version; rerun compact, print them anew.

    On S3 the files have s3:// addresses: DuckDB reads them with its httpfs extension and its own secret.
    """
    del settings
    pinned = lake.current(store) if version is None else lake.at_version(store, version)
    head = f"-- lake version {pinned.number}, run {pinned.run}\n"
    return head + "\n".join(f"{_view(store, table, pinned)};" for table in TABLES) + "\n"


def _connect(settings: Settings) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(
        config={
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "memory_limit": f"{settings.tables.memory_limit // 1024**2}MiB",
        }
    )
    connection.execute("SET TimeZone = 'UTC'").fetchall()
    return connection


def _view(store: ObjectStore, table: str, version: LakeVersion) -> str:
    files = lake.data_files(store, table, version.tables[table])
    columns = ", ".join(f'"{name}"' for name in table_with_partition(TABLES[table]).names)
    return f'CREATE OR REPLACE VIEW "{table}" AS SELECT {columns} FROM {_source(store, table, files)}'  # noqa: S608  our own names


def _source(store: ObjectStore, table: str, files: list[DataFile]) -> str:
    """The files, after an empty relation of all columns: one that every file lacks (they are older) reads as null."""
    fields = table_with_partition(TABLES[table])
    empty = ", ".join(f'NULL::{_duckdb_type(f.type)} AS "{f.name}"' for f in fields)
    if not files:
        return f"(SELECT {empty} WHERE false)"
    paths = ", ".join("'" + _address(store, file).replace("'", "''") + "'" for file in files)
    read = f"read_parquet([{paths}], hive_partitioning = true, hive_types = {{dt: DATE}}, union_by_name = true)"
    return f"(SELECT {empty} WHERE false UNION ALL BY NAME SELECT * FROM {read})"  # noqa: S608  our own names


def _duckdb_type(type_: pa.DataType) -> str:
    if pa.types.is_list(type_):
        return f"{_duckdb_type(type_.value_type)}[]"
    return _DUCKDB_TYPES[type_]


def _address(store: ObjectStore, file: DataFile) -> str:
    path = lake.local_path(store, file.key)
    return f"{store.url}/{file.key}" if path is None else str(path)
