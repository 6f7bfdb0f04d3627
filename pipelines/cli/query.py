"""The commands ``query`` and ``sql``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import typer
from pyarrow import csv

from archiver.console import Console
from archiver.program import HotOption, Program, StorageOption
from pipelines import query
from pipelines.cli.base import VersionOption, open_lake


def query_(
    context: typer.Context,
    sql: Annotated[str, typer.Argument(help="SQL over the six tables, DuckDB's dialect")],
    version: VersionOption = None,
    output: Annotated[
        Literal["table", "csv", "json"], typer.Option("--format", help="how to print the rows")
    ] = "table",
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="write the rows to a Parquet file instead")] = None,
    limit: Annotated[int, typer.Option(min=1, help="rows of a printed table")] = 100,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Run SQL over the tables, at one version of all six."""
    program, settings, store = open_lake(context, hot, storage)
    rows = query.query(store, settings, sql, version=version)
    if out is not None:
        pq.write_table(rows, out, compression="zstd")
        program.console.line(f"{rows.num_rows:,} rows written to {out}")
        program.console.result({"rows_written": rows.num_rows, "file": out})
    else:
        _print_rows(program, rows, output, limit)


def _print_rows(program: Program, rows: pa.Table, output: str, limit: int) -> None:
    console = program.console
    if output == "csv":
        sink = pa.BufferOutputStream()
        csv.write_csv(rows, sink)
        console.raw(sink.getvalue().to_pybytes().decode())
    elif console.as_json or output == "json":
        Console(as_json=True).result({"columns": rows.column_names, "rows": rows.to_pylist()})
    else:
        shown = rows.slice(0, limit).to_pylist()
        console.rows(rows.column_names, [tuple(row.values()) for row in shown])
        if rows.num_rows > limit:
            console.line(f"… {rows.num_rows - limit:,} rows more; --limit, --format csv or --out FILE show them")


def sql_(
    context: typer.Context,
    views: Annotated[bool, typer.Option("--views", help="print the views (the only choice so far)")] = True,  # noqa: ARG001
    version: VersionOption = None,
    hot: HotOption = None,
    storage: StorageOption = None,
) -> None:
    """Print DuckDB views over the exact files of one lake version, for use anywhere DuckDB runs."""
    program, settings, store = open_lake(context, hot, storage)
    program.console.raw(query.sql_views(store, settings, version=version))
