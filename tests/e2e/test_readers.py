"""What analysts and trainers do: open the tables and exports with their own tools."""

import duckdb
import pandas as pd
import polars as pl
import pyarrow.dataset as ds
import pytest
from datasets import load_dataset
from deltalake import DeltaTable

from pipelines.schema import EXPORTS, TABLES


@pytest.fixture(scope="module")
def played(tmp_path_factory, sessionlake_in):
    command = sessionlake_in(tmp_path_factory.mktemp("readers"))
    command("demo", "--dir", "demo", "--sessions", "120")
    command.exports = {name: command.json("export", name, "--storage", "file:demo/lake")["url"] for name in EXPORTS}
    return command


@pytest.fixture(scope="module")
def lake(played):
    return played.directory / "demo" / "lake"


@pytest.mark.parametrize("table", TABLES)
def test_every_reader_counts_the_same(lake, table):
    glob = f"{lake}/tables/{table}/data/**/*.parquet"
    counts = {
        "delta": DeltaTable(f"{lake}/tables/{table}").count(),
        "pyarrow": ds.dataset(f"{lake}/tables/{table}/data", partitioning="hive").count_rows(),
        "duckdb": duckdb.sql(f"select count(*) from '{glob}'").fetchall()[0][0],
        "polars glob": pl.scan_parquet(glob).select(pl.len()).collect().item(),
        "polars delta": pl.scan_delta(f"{lake}/tables/{table}").select(pl.len()).collect().item(),
        "pandas": len(pd.read_parquet(f"{lake}/tables/{table}/data")),
    }
    assert len(set(counts.values())) == 1, counts
    assert counts["delta"] > 0


@pytest.mark.parametrize("name", EXPORTS)
def test_datasets_loads_every_export(played, name, tmp_path):
    loaded = load_dataset(played.exports[name].removeprefix("file://"), cache_dir=str(tmp_path))
    assert loaded["train"].num_rows > 0
    assert loaded["train"].column_names == EXPORTS[name].schema.names
