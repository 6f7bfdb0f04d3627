"""The same job in other engines: sessions, messages, interactions and feedback_summary from the same segments.

    python tests/bench/compact_peers.py polars|duckdb INPUT OUTPUT

Each keeps the highest revision of a session, writes hive partitions by date with zstd level 3, and does no
more: no exactly-once, no graphs, no checksums, no sorting. What they leave out is in our time.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

VERDICTS = ("correct", "incorrect", "partial")
SESSION = (
    "session_uid", "session_id", "user_id", "created_at", "updated_at", "tz_assumed", "language", "content_sha256",
    "graph_state", "metadata", "extra", "revision", "archived_at",
)  # fmt: skip


def polars(source: Path, target: Path) -> None:
    """Polars streaming: keys first, then one pass per table."""
    import polars as pl

    glob = f"{source}/archive/v1/*/*.parquet"

    def scan() -> pl.LazyFrame:
        return pl.scan_parquet(glob, row_index_name="rid")

    keys = scan().select("session_uid", "revision", "rid").collect(engine="streaming")
    best = keys.sort("revision", "rid", descending=[True, False]).unique(
        "session_uid", keep="first", maintain_order=True
    )
    rows = scan().join(best.lazy().select("rid"), on="rid", how="semi")
    dt = pl.col("created_at").dt.date().cast(pl.String).alias("dt")

    def sink(frame: pl.LazyFrame, table: str) -> None:
        frame.sink_parquet(
            pl.PartitionBy(f"{target}/{table}", key="dt", include_key=False),
            compression="zstd",
            compression_level=3,
            row_group_size=50_000,
            mkdir=True,
            maintain_order=False,
            engine="streaming",
        )

    def count(name: str, where: pl.Expr) -> pl.Expr:
        return pl.col(name).list.eval(where.cast(pl.Int32)).list.sum().cast(pl.Int32)

    first_user = pl.col("messages").list.filter(pl.element().struct.field("role") == "user").list.first()
    element = pl.element().struct
    sessions = rows.select(
        *SESSION,
        first_user.struct.field("content").str.slice(0, 80).alias("title"),
        pl.col("messages").list.len().cast(pl.Int32).alias("n_messages"),
        count("messages", element.field("role") == "user").alias("n_user_messages"),
        count("messages", element.field("role") == "assistant").alias("n_assistant_messages"),
        pl.col("interactions").list.len().cast(pl.Int32).alias("n_interactions"),
        *(count("interactions", element.field("feedback") == v).alias(f"feedback_{v}") for v in VERDICTS),
        dt,
    )
    sink(sessions, "sessions")
    ids = ("session_uid", "session_id", "user_id")
    turns = rows.select(*ids, dt, pl.col("messages").alias("e")).filter(pl.col("e").list.len() > 0).explode("e")
    field = pl.col("e").struct.field
    names = ("created_at", "role", "language", "content")
    n_chars = field("content").str.len_chars().cast(pl.Int32).alias("n_chars")
    sink(
        turns.select(*ids, field("index").alias("message_index"), *(field(n) for n in names), n_chars, "dt"), "messages"
    )
    kept = rows.select(*ids, dt, pl.col("language").alias("lang"), pl.col("interactions").alias("e"))
    acts = kept.filter(pl.col("e").list.len() > 0).explode("e")
    names = ("created_at", "action_type", "node_id", "content", "feedback", "metadata")
    actor = pl.concat_str(pl.lit("human:"), "user_id").alias("actor")
    kind = pl.lit("human").alias("actor_kind")
    columns = [field("index").alias("interaction_index"), *(field(n) for n in names), actor, kind, "lang"]
    sink(acts.select(*ids, *columns, "dt"), "interactions")
    judged = pl.scan_parquet(f"{target}/interactions/**/*.parquet", hive_partitioning=True, try_parse_hive_dates=False)
    verdict = pl.col("feedback")
    summary = judged.filter(verdict.is_not_null()).group_by("dt", "lang", "actor_kind", "action_type").agg(
        n=pl.len(), **{v: (verdict == v).sum() for v in VERDICTS},
        n_sessions=pl.col("session_uid").n_unique(), n_users=pl.col("user_id").n_unique(),
    )  # fmt: skip
    summary.sink_parquet(f"{target}/feedback_summary.parquet")


def duckdb(source: Path, target: Path) -> None:
    """DuckDB: keys first, then one pass per table."""
    import duckdb as engine

    db = engine.connect()
    db.execute(f"SET memory_limit = '4GB'; SET temp_directory = '{target}/spill'; SET preserve_insertion_order = false")
    db.execute("SET threads = 2; SET TimeZone = 'UTC'")
    read = f"read_parquet('{source}/archive/v1/*/*.parquet', file_row_number = true)"
    row = "{'f': file_index, 'r': file_row_number}"
    db.execute(
        "CREATE TEMP TABLE best AS SELECT x.f AS f, x.r AS r"
        f" FROM (SELECT arg_max({row}, revision) AS x FROM {read} GROUP BY session_uid)"
    )

    def rows(columns: str) -> str:
        match = "EXISTS (FROM best WHERE best.f = s.file_index AND best.r = s.file_row_number)"
        return f"(SELECT {columns}, strftime(created_at, '%Y-%m-%d') AS dt FROM {read} s WHERE {match})"

    def copy(query: str, table: str) -> None:
        options = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 3, PARTITION_BY (dt), ROW_GROUP_SIZE 50000"
        db.execute(f"COPY ({query}) TO '{target}/{table}' ({options}, FILE_EXTENSION 'parquet')")

    ids = "session_uid, session_id, user_id"
    copy(f"SELECT {', '.join(SESSION)}, {_duckdb_counts()}, dt FROM {rows('*')}", "sessions")
    copy(
        f"SELECT {ids}, e.index AS message_index, {_fields('created_at', 'role', 'language', 'content')},"
        f" length(e.content)::INT AS n_chars, dt"
        f" FROM (SELECT {ids}, dt, unnest(messages) AS e FROM {rows(f'{ids}, created_at, messages')})",
        "messages",
    )
    event = _fields("created_at", "action_type", "node_id", "content", "feedback", "metadata")
    kept = rows(f"{ids}, created_at, language, interactions")
    copy(
        f"SELECT {ids}, e.index AS interaction_index, {event}, 'human:' || user_id AS actor, 'human' AS actor_kind,"
        f" language, dt FROM (SELECT {ids}, language, dt, unnest(interactions) AS e FROM {kept})",
        "interactions",
    )
    verdicts = ", ".join(f"count(*) FILTER (feedback = '{v}') AS {v}" for v in VERDICTS)
    db.execute(
        f"COPY (SELECT dt, language, actor_kind, action_type, count(*) AS n, {verdicts},"
        " count(DISTINCT session_uid) AS n_sessions, count(DISTINCT user_id) AS n_users"
        f" FROM read_parquet('{target}/interactions/**/*.parquet', hive_partitioning = true)"
        " WHERE feedback IS NOT NULL GROUP BY ALL)"
        f" TO '{target}/feedback_summary.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )


def _fields(*names: str) -> str:
    return ", ".join(f"e.{name} AS {name}" for name in names)


def _duckdb_counts() -> str:
    """Title and counts of the sessions table."""

    def some(column: str, field: str, value: str) -> str:
        return f"list_filter({column}, lambda x: x.{field} = '{value}')"

    counts = {
        "n_messages": "len(messages)",
        "n_user_messages": f"len({some('messages', 'role', 'user')})",
        "n_assistant_messages": f"len({some('messages', 'role', 'assistant')})",
        "n_interactions": "len(interactions)",
        **{f"feedback_{v}": f"len({some('interactions', 'feedback', v)})" for v in VERDICTS},
        "title": f"left({some('messages', 'role', 'user')}[1].content, 80)",
    }
    return ", ".join(f"{expression} AS {name}" for name, expression in counts.items())


if __name__ == "__main__":
    engine_name, source_dir, target_dir = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    shutil.rmtree(target_dir, ignore_errors=True)
    target_dir.mkdir(parents=True)
    {"polars": polars, "duckdb": duckdb}[engine_name](source_dir, target_dir)
