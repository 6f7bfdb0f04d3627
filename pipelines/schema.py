"""Every column of every table and training set: name, type, nullability and meaning. The single truth.

docs/TABLES.md is generated from here. Types are limited to those that pyarrow, DuckDB, Polars,
pandas, `datasets` and Spark read identically: string, bool, int32/64, float32/64,
timestamp[us, UTC], list<string>, list<bool>, list<struct<role, content>>, and JSON as string.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import pyarrow as pa

SCHEMA_VERSION: Final = 1

STRING: Final = pa.string()
INT: Final = pa.int32()
LONG: Final = pa.int64()
FLOAT: Final = pa.float32()
DOUBLE: Final = pa.float64()
BOOL: Final = pa.bool_()
TIME: Final = pa.timestamp("us", "UTC")
STRINGS: Final = pa.list_(pa.field("element", pa.string()))
BOOLS: Final = pa.list_(pa.field("element", pa.bool_()))
MESSAGES: Final = pa.list_(pa.field("element", pa.struct([("role", pa.string()), ("content", pa.string())])))


@dataclass(frozen=True, slots=True)
class Dataset:
    """One table or training set: its rows, its columns, the order of its rows.

    Attributes:
        rows: What one row is.
        sort_keys: Columns the rows of a file are sorted by.
    """

    name: str
    rows: str
    schema: pa.Schema
    sort_keys: tuple[str, ...]


def _column(name: str, type_: pa.DataType, description: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable, metadata={"description": description})


def _nullable(name: str, type_: pa.DataType, description: str) -> pa.Field:
    return _column(name, type_, description, nullable=True)


_KEYS: Final = (
    _column("session_uid", STRING, "identity of the session: sha256(session_id, created_at), first 32 hex digits"),
    _column("session_id", STRING, "id the application gave; may be reused for a later conversation"),
    _nullable("user_id", STRING, "the user, if the application named one"),
)

SESSIONS: Final = Dataset(
    "sessions",
    "session, at its highest revision",
    pa.schema(
        [
            *_KEYS,
            _column("created_at", TIME, "start of the conversation; its UTC date is the partition dt"),
            _nullable("updated_at", TIME, "last activity; null where the source did not record it"),
            _column("tz_assumed", BOOL, "a timestamp came without a zone and one was assumed"),
            _nullable("language", STRING, "language of the session as the application set it"),
            _nullable("title", STRING, "first 80 characters of the first user message"),
            _column("n_messages", INT, "messages of the session"),
            _column("n_user_messages", INT, "messages with role user"),
            _column("n_assistant_messages", INT, "messages with role assistant"),
            _column("n_interactions", INT, "interactions of the session, graph snapshots included"),
            _column("n_nodes", INT, "nodes of the reasoning graph after replay"),
            _column(
                "graph_format", STRING,
                "shape of graph_state: none, node_link, node_dict, cytoscape, react_flow, parent_list, nested, unknown",
            ),
            _column("feedback_correct", INT, "verdicts 'correct' among the interactions, recounted"),
            _column("feedback_incorrect", INT, "verdicts 'incorrect' among the interactions, recounted"),
            _column("feedback_partial", INT, "verdicts 'partial' among the interactions, recounted"),
            _nullable("feedback_reported", STRING, "JSON object of the counts the application reported; null if none"),
            _column("feedback_mismatch", BOOL, "the reported counts differ from the recounted ones"),
            _column("split", STRING, "train, validation or test; fixed by the user, else the session"),
            _column("content_sha256", STRING, "digest of the archived record (docs/FORMAT.md)"),
            _nullable("graph_state", STRING, "the reasoning graph as the application stored it, JSON"),
            _column("metadata", STRING, "metadata of the session, JSON object"),
            _nullable("extra", STRING, "fields the format does not know, JSON; client ids of messages among them"),
            _nullable("consent", STRING, "metadata.consent: none, analytics or training; null if not stated"),
            _column("revision", INT, "how many times the session was archived"),
            _column("archive_key", STRING, "key of the segment that holds this revision"),
            _nullable("archive_sha256", STRING, "sha256 of that segment object"),
            _column("archived_at", TIME, "when the session was claimed for its segment"),
            _column("redaction_count", INT, "items replaced by placeholders in this session's rows"),
            _column("prefix_sha256", STRING, "digest of all events in order; proves that later revisions extend"),
            _column("schema_version", INT, "version of these tables"),
        ]
    ),
    ("session_uid",),
)  # fmt: skip

MESSAGES_TABLE: Final = Dataset(
    "messages",
    "message",
    pa.schema(
        [
            *_KEYS,
            _column("message_index", INT, "position in the conversation, from 0"),
            _column("created_at", TIME, "when the message was added"),
            _column("role", STRING, "user, assistant, system, tool, …"),
            _nullable("language", STRING, "language of the message"),
            _nullable("content", STRING, "text"),
            _column("n_chars", INT, "characters (code points) of the text"),
        ]
    ),
    ("session_uid", "message_index"),
)

INTERACTIONS: Final = Dataset(
    "interactions",
    "interaction",
    pa.schema(
        [
            *_KEYS,
            _column("interaction_index", INT, "position among the session's interactions, from 0"),
            _column("created_at", TIME, "when it happened"),
            _column("action_type", STRING, "feedback, prune, inject, resurrect, rank, graph_snapshot, …"),
            _nullable("node_id", STRING, "node or message acted on"),
            _nullable("content", STRING, "text: of an injected node, or the replaced graph of a graph_snapshot"),
            _nullable("feedback", STRING, "correct, incorrect or partial"),
            _column(
                "actor", STRING, "who acted: metadata.annotator, else metadata.actor, else human:{user_id}, else human"
            ),
            _column("actor_kind", STRING, "human, auto, model, agent or unknown"),
            _column("metadata", STRING, "metadata of the interaction, JSON object"),
        ]
    ),
    ("session_uid", "interaction_index"),
)

NODES: Final = Dataset(
    "nodes",
    "node of the reasoning graph, after replay of all interactions",
    pa.schema(
        [
            *_KEYS,
            _column("node_id", STRING, "id in the graph"),
            _column("parent_ids", STRINGS, "parents in the graph's own order; empty for a root"),
            _nullable("depth", INT, "steps from a root along first parents; null on a cycle"),
            _nullable("content", STRING, "text of the node"),
            _nullable("author", STRING, "who wrote it, where known"),
            _column("status", STRING, "active or pruned at the end, else the graph's own word"),
            _column("injected", BOOL, "its text came from an inject"),
            _column("n_prune", INT, "prunes of this node"),
            _column("n_resurrect", INT, "resurrects of this node"),
            _column("n_correct", INT, "latest verdicts 'correct'"),
            _column("n_incorrect", INT, "latest verdicts 'incorrect'"),
            _column("n_partial", INT, "latest verdicts 'partial'"),
            _nullable("label", STRING, "correct, incorrect, partial, conflict; null without a human or auto verdict"),
        ]
    ),
    ("session_uid", "node_id"),
)

FEEDBACK: Final = Dataset(
    "feedback",
    "verdict",
    pa.schema(
        [
            *_KEYS,
            _column("interaction_index", INT, "the interaction that carries the verdict"),
            _column("created_at", TIME, "when it was given"),
            _nullable("language", STRING, "language of the session"),
            _column("action_type", STRING, "action that carried the verdict, mostly feedback"),
            _nullable("node_id", STRING, "node or message judged"),
            _column("label", STRING, "correct, incorrect or partial"),
            _column("score", FLOAT, "1, 0 or 0.5"),
            _column("actor", STRING, "who judged"),
            _nullable("annotator", STRING, "metadata.annotator"),
            _column("actor_kind", STRING, "human, auto, model, agent or unknown"),
            _column("level", STRING, "step, answer, outcome, or another value (kept, never trains)"),
            _column("is_latest", BOOL, "no later verdict by the same actor on the same node and level"),
            _nullable("node_status", STRING, "status of the node at the end; null if unknown"),
            _column("node_known", BOOL, "the node exists in the graph"),
            _nullable("context", STRING, "metadata.context"),
        ]
    ),
    ("session_uid", "interaction_index"),
)

_RATES = tuple(
    column
    for verdict in ("correct", "incorrect", "partial")
    for column in (
        _column(f"rate_{verdict}", DOUBLE, f"{verdict} / n"),
        _column(f"rate_{verdict}_low", DOUBLE, f"lower Wilson 95 % bound of rate_{verdict}"),
        _column(f"rate_{verdict}_high", DOUBLE, f"upper Wilson 95 % bound of rate_{verdict}"),
    )
)

FEEDBACK_SUMMARY: Final = Dataset(
    "feedback_summary",
    "grain × day × language × actor kind × level × action; filter grain, rows of different grains overlap",
    pa.schema(
        [
            _column("grain", STRING, "full, all_languages, all_actions or all; a rolled-up column holds *"),
            _column("day", STRING, "UTC date of the sessions' created_at, YYYY-MM-DD"),
            _column("language", STRING, "language of the session, und if absent, * if rolled up"),
            _column("actor_kind", STRING, "human, auto, model, agent or unknown"),
            _column("level", STRING, "step, answer, outcome, …"),
            _column("action_type", STRING, "action that carried the verdict, * if rolled up"),
            _column("n", LONG, "latest verdicts"),
            _column("correct", LONG, "of these correct"),
            _column("incorrect", LONG, "of these incorrect"),
            _column("partial", LONG, "of these partial"),
            *_RATES,
            _column("mean_score", DOUBLE, "(correct + partial / 2) / n"),
            _column("n_sessions", LONG, "sessions with such a verdict; exact per row, not summable"),
            _column("n_users", LONG, "users with such a verdict; exact per row, not summable"),
        ]
    ),
    ("day", "grain", "language", "actor_kind", "level", "action_type"),
)

TABLES: Final = {
    d.name: d for d in (SESSIONS, MESSAGES_TABLE, INTERACTIONS, NODES, FEEDBACK, FEEDBACK_SUMMARY)
}  # fmt: skip
COMMIT_ORDER: Final = ("messages", "interactions", "nodes", "feedback", "feedback_summary", "sessions")
"""Tables in the order they are committed; a lake version is a version of the last, sessions."""

_LINEAGE: Final = (
    _column("row_id", STRING, "stable id: digest of set, session_uid and node ids"),
    _column("session_uid", STRING, "session the row was derived from"),
    _column("session_id", STRING, "id the application gave that session"),
    _nullable("language", STRING, "language of the session"),
)

SFT: Final = Dataset(
    "sft",
    "conversation up to its last assistant turn",
    pa.schema([*_LINEAGE, _column("messages", MESSAGES, "the chat, ending in an assistant turn")]),
    ("row_id",),
)
PREFERENCES: Final = Dataset(
    "preferences",
    "pair of answers to one prompt, one preferred",
    pa.schema(
        [
            *_LINEAGE,
            _column("prompt", MESSAGES, "the chat, ending in a user turn"),
            _column("chosen", MESSAGES, "preferred answer, one assistant message"),
            _column("rejected", MESSAGES, "rejected answer, one assistant message"),
            _column("margin", FLOAT, "strength of the preference, in (0, 1]"),
            _column("pair_kind", STRING, "inject_over_pruned, survivor_over_pruned, verdict_order or rank"),
            _column("chosen_node", STRING, "node of the graph the chosen path ends in"),
            _column("rejected_node", STRING, "node of the graph the rejected path ends in"),
            _nullable("agreement", FLOAT, "share of annotators for the prune; null outside survivor pairs"),
        ]
    ),
    ("row_id",),
)
UNPAIRED: Final = Dataset(
    "unpaired",
    "judged answer",
    pa.schema(
        [
            *_LINEAGE,
            _column("prompt", MESSAGES, "the chat, ending in a user turn"),
            _column("completion", MESSAGES, "the answer, one assistant message"),
            _column("label", BOOL, "true: judged correct"),
            _column("node_id", STRING, "node of the graph the answer ends in"),
        ]
    ),
    ("row_id",),
)
STEPWISE: Final = Dataset(
    "stepwise",
    "chain of judged reasoning steps",
    pa.schema(
        [
            *_LINEAGE,
            _column("prompt", STRING, "the chat as text, ending in a user turn"),
            _column("completions", STRINGS, "the steps in order"),
            _column("labels", BOOLS, "verdict of each step; false only last"),
            _column("node_refs", STRINGS, "node of the graph of each step"),
        ]
    ),
    ("row_id",),
)
PROMPTS: Final = Dataset(
    "prompts",
    "unique prompt",
    pa.schema([*_LINEAGE, _column("prompt", MESSAGES, "the chat, ending in a user turn")]),
    ("row_id",),
)

EXPORTS: Final = {d.name: d for d in (SFT, PREFERENCES, UNPAIRED, STEPWISE, PROMPTS)}


def table_with_partition(table: Dataset) -> pa.Schema:
    """The schema as the Delta log declares it: the file's columns and the partition column ``dt``."""
    return table.schema.append(
        pa.field("dt", pa.date32(), nullable=False, metadata={"description": "UTC date of the session's created_at"})
    )
