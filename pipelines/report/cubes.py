"""The numbers of the report: counts by period and the filters' dimensions, small however large the tables are.

Everything is summed in DuckDB. The page gets cubes of counts, never rows, and never a text that is
longer than a label; rare values of a dimension are folded into "others", and days into weeks,
months or years until all cubes together fit a budget of rows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

MAX_ROWS: Final = 40_000
"""Rows of all cubes together; at most about 0.8 MB of page."""

PERIODS: Final = ("day", "week", "month", "quarter", "year", "decade", "century")
LABEL_CHARS: Final = 40
_MAX_VALUES: Final = {"language": 100, "actor_kind": 10, "action": 30, "level": 10}

Source: TypeAlias = pa.Table | pads.Dataset


@dataclass(frozen=True, slots=True)
class _Cube:
    """One cube: how it is read from the tables by day, and what of it is a dimension and what a count."""

    name: str
    by_day: str
    dimensions: tuple[str, ...]
    counts: tuple[str, ...]


_CUBES: Final = (
    _Cube(
        "sessions",
        """
        SELECT dt AS day, left(coalesce(language, 'und'), $chars) AS language, count(*) AS sessions,
               sum(n_messages) AS messages, sum(n_user_messages) AS user_messages,
               sum(n_assistant_messages) AS assistant_messages, count_if(graph_format <> 'none') AS with_graph,
               count_if(tz_assumed) AS tz_assumed, count_if(feedback_mismatch) AS feedback_mismatch
        FROM sessions GROUP BY ALL
        """,
        ("language",),
        ("sessions", "messages", "user_messages", "assistant_messages", "with_graph", "tz_assumed",
         "feedback_mismatch"),
    ),
    _Cube(
        "verdicts",
        """
        SELECT CAST(day AS DATE) AS day, left(language, $chars) AS language, actor_kind,
               left(action_type, $chars) AS action, left(level, $chars) AS level,
               sum(correct) AS correct, sum(incorrect) AS incorrect, sum(partial) AS partial
        FROM feedback_summary WHERE grain = 'full' GROUP BY ALL
        """,
        ("language", "actor_kind", "action", "level"),
        ("correct", "incorrect", "partial"),
    ),
    _Cube(
        "actions",
        """
        SELECT i.dt AS day, left(coalesce(s.language, 'und'), $chars) AS language, i.actor_kind,
               left(i.action_type, $chars) AS action, count(*) AS n
        FROM interactions i JOIN sessions s USING (session_uid)
        WHERE i.action_type <> 'graph_snapshot' GROUP BY ALL
        """,
        ("language", "actor_kind", "action"),
        ("n",),
    ),
    _Cube(
        "nodes",
        """
        SELECT n.dt AS day, left(coalesce(s.language, 'und'), $chars) AS language, count(*) AS nodes,
               count_if(n.n_prune > 0) AS ever_pruned,
               count_if(n.n_prune > 0 AND n.n_resurrect > 0) AS resurrected,
               count_if(n.n_prune > 0 AND n.status <> 'pruned') AS returned,
               count_if(n.injected) AS injected, count_if(n.injected AND n.status <> 'pruned') AS injected_kept,
               count_if(n.label IS NOT NULL) AS judged, count_if(n.label = 'conflict') AS conflicts
        FROM nodes n JOIN sessions s USING (session_uid) GROUP BY ALL
        """,
        ("language",),
        ("nodes", "ever_pruned", "resurrected", "returned", "injected", "injected_kept", "judged", "conflicts"),
    ),
)  # fmt: skip

_VALUES: Final = {
    "language": """
        SELECT language AS name, sessions AS n FROM sessions_by_day
        UNION ALL SELECT language, 0 FROM verdicts_by_day
    """,
    "actor_kind": """
        SELECT actor_kind AS name, n FROM actions_by_day
        UNION ALL SELECT actor_kind, 0 FROM verdicts_by_day
    """,
    "action": """
        SELECT action AS name, n FROM actions_by_day
        UNION ALL SELECT action, 0 FROM verdicts_by_day
    """,
    "level": "SELECT level AS name, correct + incorrect + partial AS n FROM verdicts_by_day",
}
"""Every value of a dimension, and what ranks it."""


def cubes(tables: Mapping[str, Source], *, memory_limit_bytes: int, max_rows: int = MAX_ROWS) -> dict[str, Any]:
    """All cubes as plain lists by column, with the names that their codes stand for.

    ``tables`` holds sessions, interactions, nodes and feedback_summary, each with the partition
    column ``dt`` (a date). ``period`` of a row is the first day of its period, in days since 1970.
    Code ``len(values)`` of a dimension stands for its ``others``.
    """
    with (
        tempfile.TemporaryDirectory(prefix="sessionlake-report-") as scratch,
        duckdb.connect(":memory:", config=_options(memory_limit_bytes, scratch)) as connection,
    ):
        for name, table in tables.items():
            connection.register(name, table)
        for cube in _CUBES:
            _run(connection, f"CREATE TEMP TABLE {cube.name}_by_day AS {cube.by_day}", {"chars": LABEL_CHARS})
        names = {dimension: _name_codes(connection, dimension) for dimension in _VALUES}
        for cube in _CUBES:
            _run(connection, _coded_sql(cube))
        period = _finest_period(connection, max_rows)
        rolled = {cube.name: _columns(connection.sql(_rolled_sql(cube, period))) for cube in _CUBES}
        ((users,),) = _run(connection, "SELECT count(DISTINCT user_id) FROM sessions")
    return {"period": period, "names": names, "cubes": rolled, "users": users}


def _run(connection: duckdb.DuckDBPyConnection, sql: str, values: Mapping[str, Any] | None = None) -> list[Any]:
    """Execute to the end: DuckDB 2 leaves a result that nobody fetches unfinished."""
    return connection.execute(sql, values).fetchall()


def _options(memory_limit_bytes: int, scratch: str) -> dict[str, str | bool | int | float | list[str]]:
    return {
        "memory_limit": f"{memory_limit_bytes // 1024}KiB",
        "temp_directory": scratch,
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
    }


def _name_codes(connection: duckdb.DuckDBPyConnection, dimension: str) -> dict[str, Any]:
    """Number the values of a dimension, the most frequent first; those past the limit share one code."""
    limit = _MAX_VALUES[dimension]
    _run(
        connection,
        f"""
        CREATE TEMP TABLE {dimension}_names AS
        SELECT name, least(row_number() OVER (ORDER BY sum(n) DESC, name) - 1, {limit}) AS code
        FROM ({_VALUES[dimension]}) GROUP BY name
        """,  # noqa: S608  constants of this module only
    )
    rows = _run(connection, f"SELECT name, code FROM {dimension}_names ORDER BY code, name")  # noqa: S608
    values = [name for name, code in rows if code < limit]
    return {"values": values, "others": len(rows) - len(values)}


def _coded_sql(cube: _Cube) -> str:
    codes = ", ".join(f"{d}_names.code AS {d}" for d in cube.dimensions)
    joins = " ".join(f"JOIN {d}_names ON {d}_names.name = c.{d}" for d in cube.dimensions)
    counts = ", ".join(f"sum(c.{n}) AS {n}" for n in cube.counts)
    return (
        f"CREATE TEMP TABLE {cube.name}_coded AS "  # noqa: S608  constants of this module only
        f"SELECT c.day, {codes}, {counts} FROM {cube.name}_by_day c {joins} GROUP BY ALL"
    )


def _finest_period(connection: duckdb.DuckDBPyConnection, max_rows: int) -> str:
    """The shortest period at which all cubes together have at most ``max_rows`` rows."""
    for period in PERIODS:
        rows = sum(
            _run(connection, f"SELECT count(*) FROM ({_rolled_sql(cube, period)})")[0][0]  # noqa: S608
            for cube in _CUBES
        )
        if rows <= max_rows:
            return period
    return PERIODS[-1]


def _rolled_sql(cube: _Cube, period: str) -> str:
    dimensions = ", ".join(cube.dimensions)
    counts = ", ".join(f"CAST(sum({n}) AS BIGINT) AS {n}" for n in cube.counts)
    start = f"CAST(date_trunc('{period}', day) AS DATE) - DATE '1970-01-01'"
    return (
        f"SELECT CAST({start} AS BIGINT) AS period, {dimensions}, {counts} "  # noqa: S608  constants of this module only
        f"FROM {cube.name}_coded GROUP BY ALL ORDER BY period, {dimensions}"
    )


def _columns(result: duckdb.DuckDBPyRelation) -> dict[str, list[int]]:
    table: pa.Table = result.to_arrow_table()
    return {name: table.column(name).to_pylist() for name in table.column_names}
