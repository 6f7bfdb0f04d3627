"""What analysts and trainers do: open the tables and exports with their own tools, and find the same rows.

The tests with Spark run where it is installed (``pip install pyspark``, and Java 17); elsewhere they are skipped.
"""

import hashlib
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from datasets import load_dataset
from deltalake import DeltaTable

from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import query
from pipelines.schema import EXPORTS, TABLES

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Rows = Iterable[dict[str, Any]]


@pytest.fixture(scope="module")
def played(tmp_path_factory, sessionlake_in):
    command = sessionlake_in(tmp_path_factory.mktemp("readers"))
    command("demo", "--dir", "demo", "--sessions", "120")
    command.exports = {name: command.json("export", name, "--storage", "file:demo/lake")["url"] for name in EXPORTS}
    return command


@pytest.fixture(scope="module")
def lake(played):
    return played.directory / "demo" / "lake"


@pytest.fixture(scope="module")
def expected(lake):
    """The digest of every table as delta-rs and Arrow read it, row by row."""
    found = {table: (DeltaTable(f"{lake}/tables/{table}").to_pyarrow_table().to_pylist()) for table in TABLES}
    assert all(found.values())
    return {table: digest(table, rows) for table, rows in found.items()}


def digest(table: str, rows: Rows) -> tuple[int, str]:
    """Number and digest of a table's rows, whatever their order: sha256 over the sorted sha256 of each."""
    fields = TABLES[table].schema
    each = sorted(hashlib.sha256(repr([plain(row[f.name], f.type) for f in fields]).encode()).digest() for row in rows)
    return len(each), hashlib.sha256(b"".join(each)).hexdigest()


def plain(value: Any, type_: pa.DataType) -> Any:
    """A value as the schema means it: pandas has floats and NaN for integers with nulls, Spark naive times."""
    if pa.types.is_list(type_):
        return None if value is None else [plain(item, type_.value_type) for item in value]
    if value is None or pd.isna(value):
        return None
    if pa.types.is_timestamp(type_):
        aware = value.replace(tzinfo=UTC) if value.tzinfo is None else value
        return (aware - EPOCH) // timedelta(microseconds=1)
    return {pa.bool_(): bool, pa.string(): str, pa.float64(): float}.get(type_, int)(value)


def of_duckdb(lake: str, sql: str, *, views: bool = False) -> Rows:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        if views:
            connection.execute(query.sql_views(DirectoryStore(Path(lake)), Settings()))
        return connection.sql(sql).to_arrow_table().to_pylist()


def of_datasets(files: str | list[str], cache: str) -> Rows:
    return load_dataset("parquet", data_files=files, cache_dir=cache, split="train")


WAYS: dict[str, Callable[[str, str, str], Rows]] = {
    "pyarrow glob": lambda lake, table, _: ds.dataset(f"{lake}/tables/{table}/data").to_table().to_pylist(),
    "pyarrow delta": lambda lake, table, _: (
        DeltaTable(f"{lake}/tables/{table}").to_pyarrow_dataset().to_table().to_pylist()
    ),
    "duckdb glob": lambda lake, table, _: of_duckdb(lake, f"FROM '{glob_of(lake, table)}'"),
    "duckdb views": lambda lake, table, _: of_duckdb(lake, f"FROM {table}", views=True),
    "polars glob": lambda lake, table, _: pl.scan_parquet(glob_of(lake, table)).collect().iter_rows(named=True),
    "polars delta": lambda lake, table, _: pl.scan_delta(f"{lake}/tables/{table}").collect().iter_rows(named=True),
    "pandas glob": lambda lake, table, _: pd.read_parquet(f"{lake}/tables/{table}/data").to_dict("records"),
    "pandas delta": lambda lake, table, _: DeltaTable(f"{lake}/tables/{table}").to_pandas().to_dict("records"),
    "datasets glob": lambda lake, table, cache: of_datasets(glob_of(lake, table), cache),
    "datasets delta": lambda lake, table, cache: of_datasets(DeltaTable(f"{lake}/tables/{table}").file_uris(), cache),
}


def glob_of(lake: str, table: str) -> str:
    return f"{lake}/tables/{table}/data/**/*.parquet"


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("table", TABLES)
def test_every_reader_finds_the_same_rows(lake, expected, table, way, tmp_path):
    assert digest(table, WAYS[way](str(lake), table, str(tmp_path))) == expected[table]


@pytest.fixture(scope="module")
def spark():
    sql = pytest.importorskip("pyspark.sql", reason="Spark is not installed: pip install pyspark, and Java 17")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")  # Spark's Python rows have naive times in the process's own zone
        builder = sql.SparkSession.builder.master("local[1]").config("spark.driver.bindAddress", "127.0.0.1")
        local = {"spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false", "spark.sql.session.timeZone": "UTC"}
        session = builder.config(map=local).getOrCreate()
        yield session
        session.stop()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["glob", "delta"])
@pytest.mark.parametrize("table", TABLES)
def test_spark_finds_the_same_rows(spark, lake, expected, table, way):
    """Through the glob, and over the files that Delta's log names; Spark's own Delta reader is not on PyPI."""
    files = [glob_of(lake, table)] if way == "glob" else DeltaTable(f"{lake}/tables/{table}").file_uris()
    rows = [row.asDict() for row in spark.read.parquet(*files).collect()]
    assert digest(table, rows) == expected[table]


@pytest.mark.parametrize("name", EXPORTS)
def test_datasets_loads_every_export(played, name, tmp_path):
    loaded = load_dataset(played.exports[name].removeprefix("file://"), cache_dir=str(tmp_path))
    assert loaded["train"].num_rows > 0
    assert loaded["train"].column_names == EXPORTS[name].schema.names
