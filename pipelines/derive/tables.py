"""Rows of the nodes and feedback tables, from a batch of archived sessions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from archiver.events import canonical_json
from pipelines import schema
from pipelines.derive.acts import Session, acts_of
from pipelines.derive.graphs import depths
from pipelines.derive.replay import NodeState, Replay, nodes_in, norm_text, replay

_SCORES: Final = {"correct": 1.0, "incorrect": 0.0, "partial": 0.5}
_COLUMNS: Final = ("session_uid", "session_id", "user_id", "language", "graph_state", "extra")


@dataclass(frozen=True, slots=True)
class TableRows:
    """What one batch adds to the tables.

    Attributes:
        nodes: In schema.NODES.schema, in the batch's order, sorted by node_id within a session.
        feedback: In schema.FEEDBACK.schema, in the batch's order, sorted by interaction_index within a session.
        n_nodes: int32, for each row of the batch.
        graph_format: string, for each row of the batch.
    """

    nodes: pa.Table
    feedback: pa.Table
    n_nodes: pa.Array
    graph_format: pa.Array


def table_rows(batch: pa.RecordBatch) -> TableRows:
    """Replay the sessions of a batch in archiver.segments.SCHEMA.

    Sessions without graph and interactions cost nothing; no message is looked at.
    """
    lengths = batch.column("interactions").value_lengths()
    busy = pc.or_(pc.is_valid(batch.column("graph_state")), pc.greater(lengths, 0))
    rows = pc.indices_nonzero(busy)
    n_nodes, formats = [0] * batch.num_rows, ["none"] * batch.num_rows
    nodes, feedback = _Columns(schema.NODES.schema), _Columns(schema.FEEDBACK.schema)
    for row, session in zip(rows.to_pylist(), _sessions(batch.take(rows)), strict=True):
        result = replay(session)
        n_nodes[row], formats[row] = len(result.last.states), result.last.graph.format
        _add_nodes(nodes, session, result)
        _add_feedback(feedback, session, result)
    return TableRows(nodes.table(), feedback.table(), pa.array(n_nodes, pa.int32()), pa.array(formats, pa.string()))


def _sessions(batch: pa.RecordBatch) -> list[Session]:
    keys = [batch.column(name).to_pylist() for name in _COLUMNS]
    counts = batch.column("messages").value_lengths().to_pylist()
    acts = acts_of(batch.column("interactions"))
    return [
        Session(uid, session_id, user, language, graph, count, acts=events, extra=extra)
        for uid, session_id, user, language, graph, extra, count, events in zip(*keys, counts, acts, strict=True)
    ]


class _Columns:
    """Rows of one table, collected by column."""

    def __init__(self, table_schema: pa.Schema) -> None:
        self._schema = table_schema
        self._values: list[list[Any]] = [[] for _ in table_schema]

    def add(self, *row: Any) -> None:
        for column, value in zip(self._values, row, strict=True):
            column.append(value)

    def table(self) -> pa.Table:
        pairs = zip(self._values, self._schema, strict=True)
        return pa.Table.from_arrays([pa.array(v, f.type) for v, f in pairs], schema=self._schema)


def _add_nodes(columns: _Columns, session: Session, result: Replay) -> None:
    keys = (session.session_uid, session.session_id, session.user_id)
    depth = depths({node_id: state.node for node_id, state in result.last.states.items()})
    for node_id, state in nodes_in(result.last):
        node, verdicts = state.node, Counter(v.label for v in state.verdicts.values())
        columns.add(
            *keys, node_id, node.parents, depth[node_id], node.content, node.author, state.status(),
            state.inject is not None, state.n_prune, state.n_resurrect,
            verdicts["correct"], verdicts["incorrect"], verdicts["partial"], state.label(),
        )  # fmt: skip


def _add_feedback(columns: _Columns, session: Session, result: Replay) -> None:
    keys = (session.session_uid, session.session_id, session.user_id)
    latest = result.latest()
    for event in sorted(result.events, key=lambda event: event.act.position):
        act, state = event.act, _judged(result, event.epoch, event.act.node_id)
        annotator = act.metadata.get("annotator")
        columns.add(
            *keys, act.position, act.created_at_us, session.language, act.action_type, act.node_id, act.feedback,
            _SCORES[str(act.feedback)], event.actor, None if annotator is None else str(annotator), event.actor_kind,
            event.level, act.position in latest, state.status() if state else None, state is not None,
            _text(act.metadata.get("context")),
        )  # fmt: skip


def _judged(result: Replay, epoch: int, node_id: str | None) -> NodeState | None:
    """The node a verdict was given to, as it is at the end if it still has the same content."""
    if node_id is None:
        return None
    own, last = result.epochs[epoch].states.get(node_id), result.last.states.get(node_id)
    if own is not None and last is not None and norm_text(own.node.content) == norm_text(last.node.content):
        return last
    return own


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else canonical_json(value)
