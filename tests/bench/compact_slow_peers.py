"""The same four tables by Spark on this machine, and by json.load and from_pylist from the sessions as JSON.

Spark needs Java and pyspark in the Python that runs this: ``compact.py --spark-python PYTHON``. The JSON is one list of
sessions per segment, made before the clock starts; a directory with one file per session would cost more.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

VERDICTS = ("correct", "incorrect", "partial")
IDS = ("session_uid", "session_id", "user_id")
SESSION = (
    *IDS, "created_at", "updated_at", "tz_assumed", "language", "content_sha256", "graph_state", "metadata", "extra",
    "revision", "archived_at",
)  # fmt: skip
MESSAGE = ("created_at", "role", "language", "content")
ACT = ("created_at", "action_type", "node_id", "content", "feedback", "metadata")


def write_json(source: Path) -> None:
    """The segments' sessions as JSON beside them, once."""
    from archiver import segments
    from archiver.events import content_sha256

    for path in sorted(source.glob("archive/v1/*/*.parquet")):
        target = source / "json" / f"{path.stem}.json"
        if target.exists():
            continue
        target.parent.mkdir(exist_ok=True)
        batches = segments.read_batches(segments.open_segment(path, key=path.name), key=path.name)
        records = chain.from_iterable(map(segments.batch_to_records, batches))
        target.write_text(json.dumps([_plain(r, content_sha256(r)) for r in records], ensure_ascii=False))


def _plain(record: Any, digest: str) -> dict[str, Any]:
    values = {name.removesuffix("_us"): value for name, value in asdict(record).items()}
    for name in ("messages", "interactions"):
        values[name] = [
            {"index": i} | {key.removesuffix("_us"): value for key, value in event._asdict().items()}
            for i, event in enumerate(getattr(record, name))
        ]
    return values | {"session_uid": record.session_uid, "content_sha256": digest}


def pylist(source: Path, target: Path) -> None:
    """Python's own means: everything is loaded, rows are dicts, Arrow makes tables of them."""
    best: dict[str, dict[str, Any]] = {}
    for path in sorted(source.glob("json/*.json")):
        with path.open(encoding="utf-8") as file:
            for session in json.load(file):
                known = best.get(session["session_uid"])
                if known is None or session["revision"] > known["revision"]:
                    best[session["session_uid"]] = session
    sessions = [_session_row(s) for s in best.values()]
    _write(sessions, target, "sessions")
    _write(list(_event_rows(best.values(), "messages", MESSAGE)), target, "messages")
    acts = list(_event_rows(best.values(), "interactions", ACT))
    _write(acts, target, "interactions")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for act in acts:
        if act["feedback"]:
            groups.setdefault(tuple(act[k] for k in ("dt", "lang", "actor_kind", "action_type")), []).append(act)
    _write([_summary_row(key, found) for key, found in groups.items()], target, "feedback_summary")


def _session_row(session: dict[str, Any]) -> dict[str, Any]:
    roles = Counter(m["role"] for m in session["messages"])
    verdicts = Counter(i["feedback"] for i in session["interactions"])
    asked = (m["content"][:80] for m in session["messages"] if m["role"] == "user")
    row = {name: session[name] for name in SESSION} | {"dt": _date(session), "title": next(asked, None)}
    row |= {"n_messages": len(session["messages"]), "n_interactions": len(session["interactions"])}
    row |= {f"n_{role}_messages": roles[role] for role in ("user", "assistant")}
    return row | {f"feedback_{verdict}": verdicts[verdict] for verdict in VERDICTS}


def _event_rows(sessions: Any, table: str, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for session in sessions:
        own = {name: session[name] for name in IDS} | {"dt": _date(session)}
        if table == "interactions":
            own |= {"actor": f"human:{session['user_id']}", "actor_kind": "human", "lang": session["language"]}
        for event in session[table]:
            row = own | {name: event[name] for name in names} | {f"{table[:-1]}_index": event["index"]}
            if table == "messages":
                row["n_chars"] = len(event["content"])
            yield row


def _summary_row(key: tuple[Any, ...], acts: list[dict[str, Any]]) -> dict[str, Any]:
    counts = Counter(act["feedback"] for act in acts)
    row = dict(zip(("dt", "lang", "actor_kind", "action_type"), key, strict=True)) | {"n": len(acts)}
    row |= {verdict: counts[verdict] for verdict in VERDICTS}
    return row | {
        f"n_{n}s": len({act[column] for act in acts}) for n, column in (("session", IDS[0]), ("user", IDS[2]))
    }


def _date(session: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(session["created_at"] / 1e6, UTC).date().isoformat()


def _write(rows: list[dict[str, Any]], target: Path, name: str) -> None:
    import pyarrow as pa
    import pyarrow.dataset as ds

    table = pa.Table.from_pylist(rows)
    for column in {"created_at", "updated_at", "archived_at"} & set(table.column_names):
        index = table.schema.get_field_index(column)
        table = table.set_column(index, column, table[column].cast(pa.timestamp("us", "UTC")))
    options = ds.ParquetFileFormat().make_write_options(compression="zstd", compression_level=3)
    partitioning = ds.partitioning(pa.schema([("dt", pa.string())]), flavor="hive")
    ds.write_dataset(table, target / name, format="parquet", file_options=options, partitioning=partitioning)


def spark(source: Path, target: Path) -> None:
    """Spark with as many threads as this machine has cores; its zstd level is 3 too."""
    from pyspark.sql import SparkSession, Window
    from pyspark.sql import functions as sql

    settings = {
        "spark.driver.memory": "4g", "spark.sql.session.timeZone": "UTC", "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "8", "spark.sql.parquet.compression.codec": "zstd",
        "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
        "spark.local.dir": str(target / "tmp"), "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
    }  # fmt: skip
    builder = SparkSession.builder.master(f"local[{os.cpu_count()}]")
    engine = builder.config(map=settings).getOrCreate()
    engine.sparkContext.setLogLevel("ERROR")
    read = engine.read.option("recursiveFileLookup", "true").parquet(str(source / "archive" / "v1"))
    keys = read.select("session_uid", "revision", sql.input_file_name().alias("file"))
    newest = Window.partitionBy("session_uid").orderBy(sql.desc("revision"), "file")
    best = keys.withColumn("at", sql.row_number().over(newest)).where("at = 1").drop("at").cache()
    rows = read.withColumn("file", sql.input_file_name()).join(sql.broadcast(best), ["session_uid", "revision", "file"])
    rows = rows.withColumn("dt", sql.date_format("created_at", "yyyy-MM-dd"))
    said = "filter(messages, m -> m.role = '{}')"
    judged = "size(filter(interactions, i -> i.feedback = '{0}')) AS feedback_{0}"
    counts = [
        f"{said.format('user')}[0].content AS first", "size(messages) AS n_messages",
        f"size({said.format('user')}) AS n_user_messages", f"size({said.format('assistant')}) AS n_assistant_messages",
        "size(interactions) AS n_interactions", *(judged.format(v) for v in VERDICTS),
    ]  # fmt: skip
    sessions = rows.selectExpr(*SESSION, *counts, "dt").withColumn("title", sql.substring("first", 1, 80)).drop("first")
    turns = rows.selectExpr(*IDS, "dt", "explode(messages) AS e")
    turns = turns.selectExpr(*IDS, "e.index AS message_index", *_fields(MESSAGE), "length(e.content) AS n_chars", "dt")
    acts = rows.selectExpr(*IDS, "language AS lang", "dt", "explode(interactions) AS e")
    actor = ["concat('human:', user_id) AS actor", "'human' AS actor_kind"]
    acts = acts.selectExpr(*IDS, "e.index AS interaction_index", *_fields(ACT), *actor, "lang", "dt")
    for name, table in (("sessions", sessions), ("messages", turns), ("interactions", acts)):
        table.repartition("dt").write.partitionBy("dt").parquet(str(target / name))
    verdicts = [sql.count_if(sql.col("feedback") == v).alias(v) for v in VERDICTS]
    users = [sql.countDistinct("session_uid").alias("n_sessions"), sql.countDistinct("user_id").alias("n_users")]
    stored = engine.read.parquet(str(target / "interactions")).where("feedback IS NOT NULL")
    summary = stored.groupBy("dt", "lang", "actor_kind", "action_type").agg(
        sql.count("*").alias("n"), *verdicts, *users
    )
    summary.coalesce(1).write.parquet(str(target / "feedback_summary"))
    _stop(engine)


def _fields(names: tuple[str, ...]) -> list[str]:
    return [f"e.{name} AS {name}" for name in names]


def _stop(engine: Any) -> None:
    """End Java too, so that its processor time is on our account."""
    java = engine.sparkContext._gateway.proc
    engine.stop()
    java.stdin.close()
    java.wait()
