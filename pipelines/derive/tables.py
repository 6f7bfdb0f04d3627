"""Rows of the nodes and feedback tables, from a batch of archived sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import pyarrow as pa

from pipelines import schema
from pipelines.columns import repeated
from pipelines.derive.acts import Session, acts_of
from pipelines.derive.graphs import Node, depths
from pipelines.derive.replay import NodeState, Replay, replay
from pipelines.derive.texts import encode, norm_text
from pipelines.schema import Dataset

_OF_SESSION: Final = ("session_uid", "session_id", "user_id", "language")
_SCORES: Final = {"correct": 1.0, "incorrect": 0.0, "partial": 0.5}


@dataclass(frozen=True, slots=True)
class TableRows:
    """What one batch adds to the tables.

    Attributes:
        nodes: The columns of schema.NODES, in the batch's order, sorted by node_id within a session.
        feedback: The columns of schema.FEEDBACK, in the batch's order, sorted by interaction_index within a session.
        n_nodes: int32, for each row of the batch.
        graph_format: string, for each row of the batch.

    What is a session's own, as its keys, comes as dictionaries: no text is copied, and Parquet stores them so.
    """

    nodes: pa.Table
    feedback: pa.Table
    n_nodes: pa.Array
    graph_format: pa.Array


def table_rows(batch: pa.RecordBatch) -> TableRows:
    """Replay the sessions of a batch in archiver.segments.SCHEMA.

    Sessions without graph and interactions cost next to nothing; no message is looked at.
    """
    n_nodes, formats = [0] * batch.num_rows, ["none"] * batch.num_rows
    nodes, feedback = _Nodes(), _Rows(schema.FEEDBACK)
    for row, session in enumerate(_sessions(batch)):
        if session.acts or session.graph_state is not None:
            result = replay(session)
            formats[row] = result.last.graph.format
            n_nodes[row] = len(result.last.nodes)
            nodes.add(row, result.last.nodes, result.last.touched)
            if result.events:
                feedback.values += chain.from_iterable(_feedback_rows(row, result))
    counts = pa.array(n_nodes, pa.int32())
    return TableRows(nodes.table(batch), feedback.table(batch), counts, pa.array(formats, pa.string()))


def _sessions(batch: pa.RecordBatch) -> Iterator[Session]:
    names = ("session_uid", "session_id", "user_id", "language", "graph_state", "extra")
    keys = [batch.column(name).to_pylist() for name in names]
    counts = batch.column("messages").value_lengths().to_pylist()
    acts = acts_of(batch.column("interactions"))
    for uid, session_id, user, language, graph, extra, count, events in zip(*keys, counts, acts, strict=True):
        yield Session(uid, session_id, user, language, graph, count, acts=events, extra=extra)


class _Rows:
    """Rows of one table without what is their session's own; the first value of each is the session's row in the batch.

    ``values`` is one flat list of plain values, so that nothing else of a session outlives its turn: what is kept for
    a loop over columns, even as tuples, the garbage collector visits again and again (a fifth of the whole time).
    """

    def __init__(self, dataset: Dataset) -> None:
        self.values: list[Any] = []
        self._schema = dataset.schema
        self._names = ["row", *(name for name in dataset.schema.names if name not in _OF_SESSION)]

    def column(self, name: str) -> list[Any]:
        """One value of every row."""
        return self.values[self._names.index(name) :: len(self._names)]

    def array(self, name: str) -> pa.Array:
        """A column of the table."""
        return pa.array(self.column(name), self._schema.field(name).type)

    def table(self, batch: pa.RecordBatch) -> pa.Table:
        """The table, with its sessions' keys and language from the batch."""
        rows = pa.array(self.column("row"), pa.int32())
        names = self._schema.names
        return pa.table(
            {name: repeated(batch.column(name), rows) if name in _OF_SESSION else self.array(name) for name in names}
        )


class _Nodes(_Rows):
    """Rows of the table nodes; the lists of parents are flat too, with their ends in the rows."""

    def __init__(self) -> None:
        super().__init__(schema.NODES)
        self._parents: list[str] = []

    def array(self, name: str) -> pa.Array:
        """A column of the table."""
        if name != "parent_ids":
            return super().array(name)
        ends = pa.array([0, *self.column(name)], pa.int32())
        return pa.ListArray.from_arrays(ends, pa.array(self._parents, pa.string()))

    def add(self, row: int, nodes: Mapping[str, Node], touched: Mapping[str, NodeState]) -> None:
        """Add the nodes of one session."""
        values, parents = self.values, self._parents
        depth = depths(nodes)
        for node_id in sorted(nodes):
            node, state = nodes[node_id], touched.get(node_id)
            parents += node.parents
            values += (row, node_id, len(parents), depth[node_id], node.content, node.author)
            if state is None:
                values += (node.status, False, 0, 0, 0, 0, 0, None)
            else:
                labels = [verdict.label for verdict in state.verdicts.values()]
                values += (
                    state.status(), state.inject is not None, state.n_prune, state.n_resurrect,
                    labels.count("correct"), labels.count("incorrect"), labels.count("partial"), state.label(),
                )  # fmt: skip


def _feedback_rows(row: int, result: Replay) -> Iterator[tuple[Any, ...]]:
    latest = result.latest()
    for event in sorted(result.events, key=lambda event: event.act.position):
        act, state = event.act, _judged(result, event.epoch, event.act.node_id)
        yield (
            row, act.position, act.created_at_us, act.action_type, act.node_id, act.feedback,
            _SCORES[str(act.feedback)], event.actor, _text(act.metadata.get("annotator"), str), event.actor_kind,
            event.level, act.position in latest, state.status() if state else None, state is not None,
            _text(act.metadata.get("context"), encode),
        )  # fmt: skip


def _judged(result: Replay, epoch: int, node_id: str | None) -> NodeState | None:
    """The node a verdict was given to, as it is at the end if it still has the same content."""
    if node_id is None:
        return None
    own, last = result.epochs[epoch].touch(node_id), result.last.touch(node_id)
    if own is None or last is None or own is last:
        return own
    return last if norm_text(own.node.content) == norm_text(last.node.content) else own


def _text(value: Any, write: Callable[[Any], str]) -> str | None:
    return value if value is None or isinstance(value, str) else write(value)
