"""What the tables must hold, worked out slowly from the segments alone: plain Python, one session at a time.

It shares no code with the compaction but the replay of a single session, which has its own oracle.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from archiver import archive, segments
from archiver.archive import SegmentRef
from archiver.events import SessionRecord, content_sha256
from archiver.objects import ObjectStore
from pipelines import derive, lake
from pipelines.lake import LakeVersion
from pipelines.schema import TABLES

Row = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def tables(store: ObjectStore, *, refs: Iterable[SegmentRef] | None = None) -> dict[str, list[Row]]:
    """Rows of every table, sorted, from all segments of the archive or from ``refs``."""
    found = counting(store, refs)
    rows: dict[str, list[Row]] = {name: [] for name in TABLES}
    verdicts: list[Row] = []
    for ref, record in found:
        if json.loads(record.metadata).get("consent") == "none":
            continue
        one = derive.table_rows(segments.records_to_batch([record]))
        feedback = one.feedback.to_pylist()
        _check_feedback(record, feedback)
        rows["sessions"].append(_session(store, ref, record, one))
        rows["messages"] += messages(record)
        rows["interactions"] += _interactions(record)
        rows["nodes"] += [{**row, "dt": _date(record)} for row in one.nodes.to_pylist()]
        rows["feedback"] += [{**row, "dt": _date(record)} for row in feedback]
        verdicts += [{**row, "dt": _date(record)} for row in feedback if row["is_latest"]]
    rows["feedback_summary"] = summary(verdicts)
    return {name: ordered(name, found) for name, found in rows.items()}


def stored(store: ObjectStore, version: LakeVersion | None = None) -> dict[str, list[Row]]:
    """Rows of every table as the lake holds them, sorted the same way."""
    return {name: ordered(name, lake.scan(store, name, version).to_pylist()) for name in TABLES}


def ordered(table: str, rows: list[Row]) -> list[Row]:
    """Rows by the table's sort keys, floats rounded where two sums may differ in the last bit."""
    keys = ("dt", *TABLES[table].sort_keys)
    plain = [{k: round(v, 9) if isinstance(v, float) else v for k, v in row.items()} for row in rows]
    return sorted(plain, key=lambda row: [str(row[k]).zfill(12) for k in keys])


def counting(store: ObjectStore, refs: Iterable[SegmentRef] | None = None) -> list[tuple[SegmentRef, SessionRecord]]:
    """The one record of every session that counts: the highest revision, of equal ones the first."""
    best: dict[str, tuple[SegmentRef, SessionRecord]] = {}
    for ref in sorted(_all(store) if refs is None else refs):
        for batch in segments.read_batches(archive.open_remote(store, ref), key=ref.key):
            for record in segments.batch_to_records(batch):
                known = best.get(record.session_uid)
                if known is None or record.revision > known[1].revision:
                    best[record.session_uid] = (ref, record)
    return list(best.values())


def _all(store: ObjectStore) -> list[SegmentRef]:
    return [ref for archiver in archive.list_archivers(store) for ref, _ in archive.list_segments(store, archiver)]


def _time(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)


def _date(record: SessionRecord) -> Any:
    return (_EPOCH + timedelta(microseconds=record.created_at_us)).date()


def _keys(record: SessionRecord) -> Row:
    return {"session_uid": record.session_uid, "session_id": record.session_id, "user_id": record.user_id}


def _session(store: ObjectStore, ref: SegmentRef, record: SessionRecord, one: derive.TableRows) -> Row:
    verdicts = [i.feedback for i in record.interactions]
    counted = [verdicts.count(v) for v in ("correct", "incorrect", "partial")]
    reported = None
    if record.reported is not None:
        pairs = zip(("correct", "incorrect", "partial"), record.reported, strict=True)
        reported = "{" + ",".join(f'"{name}":{value}' for name, value in pairs) + "}"
    first_user = next((m.content for m in record.messages if m.role == "user"), None)
    roles = [m.role for m in record.messages]
    bucket = int(hashlib.sha256(f"v1\x1f{record.user_id or record.session_uid}".encode()).hexdigest()[:16], 16) % 10_000
    return {
        **_keys(record),
        "created_at": _time(record.created_at_us),
        "updated_at": _time(record.updated_at_us),
        "tz_assumed": record.tz_assumed,
        "language": record.language,
        "title": None if first_user is None else first_user[:80],
        "n_messages": len(roles),
        "n_user_messages": roles.count("user"),
        "n_assistant_messages": roles.count("assistant"),
        "n_interactions": len(verdicts),
        "n_nodes": one.nodes.num_rows,
        "graph_format": one.graph_format[0].as_py(),
        "feedback_correct": counted[0],
        "feedback_incorrect": counted[1],
        "feedback_partial": counted[2],
        "feedback_reported": reported,
        "feedback_mismatch": record.reported is not None and list(record.reported) != counted,
        "split": "train" if bucket < 9000 else "validation" if bucket < 9500 else "test",
        "content_sha256": content_sha256(record),
        "graph_state": record.graph_state,
        "metadata": record.metadata,
        "extra": record.extra,
        "consent": json.loads(record.metadata).get("consent"),
        "revision": record.revision,
        "archive_key": ref.key,
        "archive_sha256": hashlib.sha256(store.get(ref.key)).hexdigest(),
        "archived_at": _time(record.archived_at_us),
        "redaction_count": 0,
        "prefix_sha256": _prefix(record),
        "schema_version": 1,
        "dt": _date(record),
    }


def _prefix(record: SessionRecord) -> str:
    digest = hashlib.sha256(f"{len(record.messages)},{len(record.interactions)};".encode())
    turns = [(m.created_at_us, (m.role, m.language), (m.content,)) for m in record.messages]
    acts = [
        (i.created_at_us, (i.action_type, i.feedback), (i.node_id, i.content, i.metadata)) for i in record.interactions
    ]
    for events in (turns, acts):
        for when, short, long in events:
            tags = [bytes(8) if text is None else hashlib.sha256(text.encode()).digest()[:8] for text in short]
            lengths = [-1 if text is None else len(text.encode()) for text in long]
            digest.update(struct.pack("<q", when) + b"".join(tags) + struct.pack(f"<{len(lengths)}q", *lengths))
        for column in zip(*(long for _, _, long in events), strict=True):
            digest.update("".join(text or "" for text in column).encode())
    return digest.hexdigest()


def messages(record: SessionRecord) -> list[Row]:
    return [
        {
            **_keys(record),
            "message_index": index,
            "created_at": _time(m.created_at_us),
            "role": m.role,
            "language": m.language,
            "content": m.content,
            "n_chars": len(m.content or ""),
            "dt": _date(record),
        }
        for index, m in enumerate(record.messages)
    ]


def _actor(metadata: Row, user_id: str | None) -> tuple[str, str]:
    if "actor" in metadata:
        actor = metadata["actor"]
        kind = actor.split(":")[0] if actor.split(":")[0] in ("human", "auto", "model", "agent") else "unknown"
    else:
        actor, kind = (f"human:{user_id}" if user_id else "human"), "human"
    return metadata.get("annotator", actor), kind


def _interactions(record: SessionRecord) -> list[Row]:
    rows = []
    for index, act in enumerate(record.interactions):
        actor, kind = _actor(json.loads(act.metadata), record.user_id)
        rows.append(
            {
                **_keys(record),
                "interaction_index": index,
                "created_at": _time(act.created_at_us),
                "action_type": act.action_type,
                "node_id": act.node_id,
                "content": act.content,
                "feedback": act.feedback,
                "actor": actor,
                "actor_kind": kind,
                "metadata": act.metadata,
                "dt": _date(record),
            }
        )
    return rows


def _check_feedback(record: SessionRecord, rows: list[Row]) -> None:
    """Verdicts, their scores and actors do not depend on any graph: one row for each, in order."""
    acts = [(i, act) for i, act in enumerate(record.interactions) if act.feedback]
    assert [r["interaction_index"] for r in rows] == [i for i, _ in acts]
    for row, (_, act) in zip(rows, acts, strict=True):
        assert row["label"] == act.feedback
        assert row["score"] == {"correct": 1.0, "incorrect": 0.0, "partial": 0.5}[act.feedback]
        assert (row["actor"], row["actor_kind"]) == _actor(json.loads(act.metadata), record.user_id)


_GRAINS: dict[str, tuple[str, ...]] = {
    "full": (), "all_languages": ("language",), "all_actions": ("action_type",), "all": ("language", "action_type"),
}  # fmt: skip


def summary(verdicts: list[Row]) -> list[Row]:
    """feedback_summary of the latest verdicts."""
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for grain, rolled_up in _GRAINS.items():
        for row in verdicts:
            named = {**row, "language": row["language"] or "und", **dict.fromkeys(rolled_up, "*")}
            key = (grain, row["dt"], *(named[k] for k in ("language", "actor_kind", "level", "action_type")))
            groups[key].append(row)
    return [_summary_row(key, rows) for key, rows in groups.items()]


def _summary_row(key: tuple[Any, ...], rows: list[Row]) -> Row:
    grain, dt, language, actor_kind, level, action_type = key
    n = len(rows)
    hits = {v: sum(row["label"] == v for row in rows) for v in ("correct", "incorrect", "partial")}
    found: Row = {
        "grain": grain, "day": str(dt), "language": language, "actor_kind": actor_kind, "level": level,
        "action_type": action_type, "n": n, **hits, "dt": dt,
        "mean_score": (hits["correct"] + hits["partial"] / 2) / n,
        "n_sessions": len({row["session_uid"] for row in rows}),
        "n_users": len({row["user_id"] for row in rows if row["user_id"] is not None}),
    }  # fmt: skip
    for verdict, hit in hits.items():
        z, p = 1.959963984540054, hit / n
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        found[f"rate_{verdict}"] = p
        found[f"rate_{verdict}_low"] = max(0.0, (middle - half) / (1 + z * z / n))
        found[f"rate_{verdict}_high"] = min(1.0, (middle + half) / (1 + z * z / n))
    return found


def schema_of(table: str) -> pa.Schema:
    """The declared columns with ``dt``."""
    return TABLES[table].schema.append(pa.field("dt", pa.date32()))
