"""Rows of sessions, messages and interactions from archived sessions: Arrow kernels, no loop over messages.

Every function takes sessions in segments.SCHEMA and arrays aligned with them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from archiver.events import VERDICTS
from pipelines import derive, splits
from pipelines.columns import repeated
from pipelines.derive import TableRows
from pipelines.schema import INTERACTIONS, MESSAGES_TABLE, SCHEMA_VERSION, SESSIONS

TITLE_CHARS: Final = 80

Ints = npt.NDArray[np.int64]


def consent(metadata: pa.Array) -> pa.Array:
    """``metadata.consent`` of every session, null where it is not text; only texts that mention it are parsed."""
    rows = np.flatnonzero(pc.match_substring(metadata, '"consent"').to_numpy(zero_copy_only=False))
    values: list[str | None] = [None] * len(metadata)
    for row in rows.tolist():
        value = derive.decode_object(metadata[row].as_py()).get("consent")
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
    actor = repeated(pc.fill_null(users, "human"), parent)
    kind = repeated(pa.array(["human"]), pa.array(np.zeros(len(parent), np.int32)))
    if not _mentions(metadata, b'"actor"', b'"annotator"'):
        return actor, kind
    named = pc.or_(pc.match_substring(metadata, '"actor"'), pc.match_substring(metadata, '"annotator"'))
    found = derive.actor_columns(metadata.filter(named), user_ids.take(parent.filter(named)))
    text = pa.string()
    return (
        pc.replace_with_mask(actor.cast(text), named, found[0]),
        pc.replace_with_mask(kind.cast(text), named, found[1]),
    )


def _mentions(texts: pa.StringArray, *words: bytes) -> bool:
    """Whether any of the texts may hold one of the words: searched as one, ten times as fast."""
    offsets, data = _text_bytes(texts)
    joined = bytes(data[offsets[0] : offsets[-1]])
    return any(word in joined for word in words)


def facts(batch: pa.RecordBatch, origin: pa.RecordBatch, salt: str) -> dict[str, pa.Array]:
    """Columns of ``sessions`` that rest on the archived record as it is; ``origin``: see tasks.ORIGIN."""
    counts = [_lengths(batch.column(name)).to_numpy() for name in ("messages", "interactions")]
    split = splits.split_column(batch.column("user_id"), batch.column("session_uid"), salt)
    return {
        "split": pc.coalesce(origin.column("stored_split"), split),
        "archive_key": origin.column("archive_key"),
        "archive_sha256": origin.column("archive_sha256"),
        "prefix_sha256": pa.array(prefix_digests(batch, *counts), pa.string()),
        "redaction_count": _constant(0, batch.num_rows),
    }


def sessions(batch: pa.RecordBatch, derived: TableRows, known: Mapping[str, pa.Array]) -> pa.Table:
    """Rows of ``sessions``; ``known``: see :func:`facts`."""
    roles = batch.column("messages").flatten().field("role")
    parent = pc.list_parent_indices(batch.column("messages")).to_numpy()
    columns: dict[str, Any] = {name: batch.column(name) for name in SESSIONS.schema.names if name in batch.schema.names}
    columns |= {
        "title": _titles(batch, roles, parent),
        "n_messages": _lengths(batch.column("messages")),
        "n_user_messages": _count(pc.equal(roles, "user"), parent, batch.num_rows),
        "n_assistant_messages": _count(pc.equal(roles, "assistant"), parent, batch.num_rows),
        "n_interactions": _lengths(batch.column("interactions")),
        "n_nodes": derived.n_nodes,
        "graph_format": derived.graph_format,
        **_feedback(batch),
        "consent": consent(batch.column("metadata")),
        **known,
        "schema_version": _constant(SCHEMA_VERSION, batch.num_rows),
    }
    return _table(columns, SESSIONS.schema)


def prefix_digests(batch: pa.RecordBatch, n_messages: Ints, n_interactions: Ints) -> list[str]:
    """Digest of each session's first messages and interactions: equal if and only if these are.

    sha256 over their times, lengths (-1: null) and short texts' digests as numbers, then over each long
    text column, straight from Arrow's buffers.
    """
    turns = _spans(batch.column("messages"), n_messages, ("role", "language"), ("content",))
    acts = _spans(
        batch.column("interactions"), n_interactions, ("action_type", "feedback"), ("node_id", "content", "metadata")
    )
    heads = (b"%d,%d;" % counts for counts in zip(n_messages.tolist(), n_interactions.tolist(), strict=True))
    pieces = [
        [data[start:stop] for start, stop in zip(starts, stops, strict=True)] for data, starts, stops in (*turns, *acts)
    ]
    return [hashlib.sha256(b"".join(parts)).hexdigest() for parts in zip(heads, *pieces, strict=True)]


_Span = tuple[memoryview, list[int], list[int]]


def _spans(lists: pa.ListArray, counts: Ints, short: tuple[str, ...], long: tuple[str, ...]) -> list[_Span]:
    """The bytes of each session's first ``counts`` events: (buffer, starts, stops), facts first, then long texts."""
    events = lists.flatten()
    first = lists.offsets.to_numpy()[:-1].astype(np.int64) - lists.offsets[0].as_py()
    last = first + counts
    facts = [events.field("created_at").cast(pa.int64()).to_numpy()]
    facts += [_tags(events.field(name)) for name in short]
    facts += [pc.binary_length(events.field(name)).fill_null(-1).to_numpy() for name in long]
    width = 8 * len(facts)
    packed = memoryview(np.stack(facts, axis=1).astype("<i8").tobytes())
    spans: list[_Span] = [(packed, (first * width).tolist(), (last * width).tolist())]
    for name in long:
        offsets, data = _text_bytes(events.field(name))
        spans.append((data, offsets[first].tolist(), offsets[last].tolist()))
    return spans


def _tags(texts: pa.StringArray) -> Ints:
    """A 64-bit digest for each text, 0 for null: for columns of few distinct values."""
    codes = texts.dictionary_encode()
    digests = [hashlib.sha256(text.encode()).digest()[:8] for text in codes.dictionary.to_pylist()]
    tags = np.frombuffer(b"".join([*digests, bytes(8)]), "<i8")
    found: Ints = tags[codes.indices.fill_null(len(digests)).to_numpy()]
    return found


def _text_bytes(texts: pa.StringArray) -> tuple[npt.NDArray[np.int32], memoryview]:
    _, offsets, data = texts.buffers()
    if offsets is None:
        return np.zeros(1, np.int32), memoryview(b"")
    found = np.frombuffer(offsets, np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return found, memoryview(data) if data is not None else memoryview(b"")


def _tail(lists: pa.ListArray, stored: pa.Array) -> tuple[pa.StructArray, pa.Array]:
    """Events whose index is at least their session's stored count, and for each the row of its session."""
    events, parent = lists.flatten(), pc.list_parent_indices(lists)
    if pc.any(pc.greater(stored, 0)).as_py():
        keep = pc.greater_equal(events.field("index"), stored.take(parent))
        events, parent = events.filter(keep), parent.filter(keep)
    return events, parent


def _keys(batch: pa.RecordBatch, parent: pa.Array) -> dict[str, pa.Array]:
    """The session's keys for each of its events, as dictionaries: no text is copied, and Parquet stores them so."""
    return {name: repeated(batch.column(name), parent) for name in ("session_uid", "session_id", "user_id")}


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
