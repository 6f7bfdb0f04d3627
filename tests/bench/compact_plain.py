"""Stands in for the graph replay where the benchmark compares the four plain tables: verdicts, no graphs."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipelines.derive import TableRows, actor_columns
from pipelines.schema import FEEDBACK, NODES

__all__ = ["actor_columns", "table_rows"]


def table_rows(batch: pa.RecordBatch) -> TableRows:
    """Every verdict as a feedback row; no nodes."""
    lists = batch.column("interactions")
    judged = pc.is_valid(lists.flatten().field("feedback"))
    acts, parent = lists.flatten().filter(judged), pc.list_parent_indices(lists).filter(judged)
    count = len(acts)
    columns = {field.name: pa.nulls(count, field.type) for field in FEEDBACK.schema}
    columns |= {name: batch.column(name).take(parent) for name in ("session_uid", "session_id", "user_id", "language")}
    columns |= {name: acts.field(name) for name in ("created_at", "action_type", "node_id")}
    columns |= {"interaction_index": acts.field("index"), "label": acts.field("feedback")}
    columns |= {name: pa.repeat("human", count) for name in ("actor", "actor_kind", "level")}
    columns |= {name: pa.repeat(True, count) for name in ("is_latest", "node_known")}
    columns["score"] = pa.repeat(pa.scalar(1.0, pa.float32()), count)
    feedback = pa.table([columns[name] for name in FEEDBACK.schema.names], schema=FEEDBACK.schema)
    n_nodes = pa.array(np.zeros(batch.num_rows, np.int32))
    return TableRows(NODES.schema.empty_table(), feedback, n_nodes, pa.repeat("none", batch.num_rows))
