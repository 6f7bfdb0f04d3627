"""Rows of sessions, messages and interactions from archived sessions: Arrow kernels, no loop over messages.

Every function takes sessions in segments.SCHEMA and arrays aligned with them.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from archiver.events import VERDICTS
from pipelines import derive, splits
from pipelines.derive import TableRows
from pipelines.schema import INTERACTIONS, MESSAGES_TABLE, SCHEMA_VERSION, SESSIONS

TITLE_CHARS: Final = 80
_MESSAGE_TEXTS: Final = ("role", "content", "language")
_INTERACTION_TEXTS: Final = ("action_type", "node_id", "content", "feedback", "metadata")

Ints = npt.NDArray[np.int64]


def consent(metadata: pa.Array) -> pa.Array:
    """``metadata.consent`` of every session, null where it is not text; only texts that mention it are parsed."""
    rows = np.flatnonzero(pc.match_substring(metadata, '"consent"').to_numpy(zero_copy_only=False))
    values: list[str | None] = [None] * len(metadata)
    for row in rows.tolist():
        found = json.loads(metadata[row].as_py())
        value = found.get("consent") if isinstance(found, dict) else None
        values[row] = value if isinstance(value, str) else None
    return pa.array(values, pa.string())


def messages(batch: pa.RecordBatch, stored: pa.Array) -> pa.Table:
    """Rows of ``messages``: of each session those with an index of at least ``stored``."""
    events, parent = _tail(batch.column("messages"), stored)
    content = events.field("content")
    columns = {
        **_keys(batch, parent),
        "message_index": events.field("index"),
        "created_at": events.field("created_at"),
        "role": events.field("role"),
        "language": events.field("language"),
        "content": content,
        "n_chars": pc.utf8_length(content).fill_null(0),
    }
    return _table(columns, MESSAGES_TABLE.schema)


def interactions(batch: pa.RecordBatch, stored: pa.Array) -> pa.Table:
    """Rows of ``interactions``: of each session those with an index of at least ``stored``."""
    events, parent = _tail(batch.column("interactions"), stored)
    actor, actor_kind = _actors(events.field("metadata"), batch.column("user_id"), parent)
    columns = {
        **_keys(batch, parent),
        "interaction_index": events.field("index"),
        "created_at": events.field("created_at"),
        "action_type": events.field("action_type"),
        "node_id": events.field("node_id"),
        "content": events.field("content"),
        "feedback": events.field("feedback"),
        "actor": actor,
        "actor_kind": actor_kind,
        "metadata": events.field("metadata"),
    }
    return _table(columns, INTERACTIONS.schema)


def _actors(metadata: pa.Array, user_ids: pa.Array, parent: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Actor and actor kind of every event; only metadata that can name one is parsed."""
    users = pc.binary_join_element_wise("human", pc.if_else(pc.equal(user_ids, ""), None, user_ids), ":")
    actor = _repeated(pc.fill_null(users, "human"), parent)
    kind = _repeated(pa.array(["human"]), pa.array(np.zeros(len(parent), np.int32)))
    named = pc.or_(pc.match_substring(metadata, '"actor"'), pc.match_substring(metadata, '"annotator"'))
    if not pc.any(named).as_py():
        return actor, kind
    found = derive.actor_columns(metadata.filter(named), user_ids.take(parent.filter(named)))
    plain = [column.cast(pa.string()) for column in (actor, kind)]
    return tuple(pc.replace_with_mask(old, named, new) for old, new in zip(plain, found, strict=True))  # type: ignore[return-value]


def sessions(batch: pa.RecordBatch, derived: TableRows, origin: pa.RecordBatch, salt: str) -> pa.Table:
    """Rows of ``sessions``; ``origin`` has archive_key, archive_sha256 and stored_split of each."""
    n_messages = _lengths(batch.column("messages"))
    n_interactions = _lengths(batch.column("interactions"))
    roles = batch.column("messages").flatten().field("role")
    parent = pc.list_parent_indices(batch.column("messages")).to_numpy()
    columns: dict[str, Any] = {name: batch.column(name) for name in SESSIONS.schema.names if name in batch.schema.names}
    columns |= {
        "title": _titles(batch, roles, parent),
        "n_messages": n_messages,
        "n_user_messages": _count(pc.equal(roles, "user"), parent, batch.num_rows),
        "n_assistant_messages": _count(pc.equal(roles, "assistant"), parent, batch.num_rows),
        "n_interactions": n_interactions,
        "n_nodes": derived.n_nodes,
        "graph_format": derived.graph_format,
        **_feedback(batch),
        "split": pc.coalesce(
            origin.column("stored_split"),
            splits.split_column(batch.column("user_id"), batch.column("session_uid"), salt),
        ),
        "consent": consent(batch.column("metadata")),
        "archive_key": origin.column("archive_key"),
        "archive_sha256": origin.column("archive_sha256"),
        "redaction_count": _constant(0, batch.num_rows),
        "prefix_sha256": pa.array(prefix_digests(batch, n_messages.to_numpy(), n_interactions.to_numpy()), pa.string()),
        "schema_version": _constant(SCHEMA_VERSION, batch.num_rows),
    }
    return _table(columns, SESSIONS.schema)


def prefix_digests(batch: pa.RecordBatch, n_messages: Ints, n_interactions: Ints) -> list[str]:
    """Digest of each session's first messages and interactions: equal if and only if these are.

    sha256 over their times, text lengths (-1: null) and texts, column by column, straight from Arrow's
    buffers: about 3 µs a session beside the hashing itself.
    """
    turns = _EventBytes(batch.column("messages"), _MESSAGE_TEXTS)
    acts = _EventBytes(batch.column("interactions"), _INTERACTION_TEXTS)
    digests = []
    for row, (m, i) in enumerate(zip(n_messages.tolist(), n_interactions.tolist(), strict=True)):
        digest = hashlib.sha256(b"%d,%d;" % (m, i))
        turns.update(digest, row, m)
        acts.update(digest, row, i)
        digests.append(digest.hexdigest())
    return digests


class _EventBytes:
    """The events of a list column as bytes that can be hashed by ranges of events."""

    def __init__(self, lists: pa.ListArray, texts: tuple[str, ...]) -> None:
        events = lists.flatten()
        starts = lists.offsets.to_numpy()
        self._starts = (starts - starts[0]).tolist()
        facts = [events.field("created_at").cast(pa.int64()).to_numpy()]
        self._texts = []
        for name in texts:
            text = events.field(name)
            facts.append(pc.binary_length(text).fill_null(-1).to_numpy())
            self._texts.append(_text_bytes(text))
        self._facts = memoryview(np.stack(facts, axis=1).astype(np.int64).tobytes())
        self._width = 8 * len(facts)

    def update(self, digest: Any, row: int, count: int) -> None:
        """Feed the first ``count`` events of a session."""
        start = self._starts[row]
        stop = start + count
        digest.update(self._facts[start * self._width : stop * self._width])
        for offsets, data in self._texts:
            digest.update(data[offsets[start] : offsets[stop]])


def _text_bytes(text: pa.StringArray) -> tuple[npt.NDArray[np.int32], memoryview]:
    _, offsets, data = text.buffers()
    if offsets is None:
        return np.zeros(1, np.int32), memoryview(b"")
    found = np.frombuffer(offsets, np.int32)[text.offset : text.offset + len(text) + 1]
    return found, memoryview(data) if data is not None else memoryview(b"")


def _tail(lists: pa.ListArray, stored: pa.Array) -> tuple[pa.StructArray, pa.Array]:
    """Events whose index is at least their session's stored count, and for each the row of its session."""
    events, parent = lists.flatten(), pc.list_parent_indices(lists)
    if pc.any(pc.greater(stored, 0)).as_py():
        keep = pc.greater_equal(events.field("index"), stored.take(parent))
        events, parent = events.filter(keep), parent.filter(keep)
    return events, parent


def _keys(batch: pa.RecordBatch, parent: pa.Array) -> dict[str, pa.Array]:
    """The session's keys for each of its events, as dictionaries: nothing is copied, and Parquet stores them so."""
    return {name: _repeated(batch.column(name), parent) for name in ("session_uid", "session_id", "user_id")}


def _repeated(values: pa.Array, rows: pa.Array) -> pa.DictionaryArray:
    if not values.null_count:
        return pa.DictionaryArray.from_arrays(rows.cast(pa.int32()), values)
    known = values.is_valid().to_numpy(zero_copy_only=False)
    position = pa.array(np.cumsum(known, dtype=np.int32) - 1, mask=~known)  # a dictionary must not hold a null
    return pa.DictionaryArray.from_arrays(position.take(rows), values.drop_null())


def _table(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """A table in the schema's order; a key column may be a dictionary of the schema's type."""
    return pa.table({name: columns[name] for name in schema.names})


def _lengths(lists: pa.ListArray) -> pa.Array:
    return pc.list_value_length(lists).cast(pa.int32())


def _constant(value: int, count: int) -> pa.Array:
    return pa.array(np.full(count, value, np.int32))


def _count(found: pa.BooleanArray, parent: Ints, n_sessions: int) -> pa.Array:
    mask = found.fill_null(False).to_numpy(zero_copy_only=False)
    return pa.array(np.bincount(parent[mask], minlength=n_sessions).astype(np.int32))


def _titles(batch: pa.RecordBatch, roles: pa.Array, parent: Ints) -> pa.Array:
    """The start of every session's first user message."""
    user_rows = np.flatnonzero(pc.equal(roles, "user").to_numpy(zero_copy_only=False))
    owners, first = np.unique(parent[user_rows], return_index=True)
    row_of = np.full(batch.num_rows, -1, np.int64)
    row_of[owners] = user_rows[first]
    contents = batch.column("messages").flatten().field("content").take(pa.array(row_of, mask=row_of < 0))
    return pc.utf8_slice_codeunits(contents, 0, TITLE_CHARS)


def _feedback(batch: pa.RecordBatch) -> dict[str, pa.Array]:
    """Verdicts recounted, as reported, and whether the two differ."""
    acts = batch.column("interactions")
    parent = pc.list_parent_indices(acts).to_numpy()
    verdicts = acts.flatten().field("feedback")
    counted = {v: _count(pc.equal(verdicts, v), parent, batch.num_rows) for v in VERDICTS}
    reported = {v: batch.column(f"reported_{v}") for v in VERDICTS}
    texts = [pc.binary_join_element_wise(f'"{v}":', reported[v].cast(pa.string()), "") for v in VERDICTS]
    joined = pc.binary_join_element_wise(*texts, ",")
    differs = [pc.not_equal(counted[v].cast(pa.int64()), reported[v]).fill_null(False) for v in VERDICTS]
    return {
        **{f"feedback_{v}": counted[v] for v in VERDICTS},
        "feedback_reported": pc.binary_join_element_wise("{", joined, "}", ""),
        "feedback_mismatch": pc.or_(pc.or_(differs[0], differs[1]), differs[2]),
    }
