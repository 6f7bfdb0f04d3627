"""Personal data out of archived sessions before their rows are derived (``tables.redact``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pyarrow as pa

from archiver import segments
from archiver.events import GRAPH_SNAPSHOT, Interaction, SessionRecord
from pipelines.redact import RuleRedactor, SessionRedaction, identifier_key


def redacted(batch: pa.RecordBatch, salt: str) -> tuple[pa.RecordBatch, pa.Array]:
    """The sessions with placeholders for personal data in every text, and how many each of them has.

    session_uid and content_sha256 stay those of the archived record. About 1 ms a session.
    """
    key = identifier_key(salt)
    records, counts = [], []
    for record in segments.batch_to_records(batch):
        redaction = SessionRedaction(RuleRedactor(), key, _texts(record))
        records.append(_redact(record, redaction))
        counts.append(sum(redaction.counts.values()))
    clean = segments.records_to_batch(records)
    for name in ("session_uid", "content_sha256"):
        clean = clean.set_column(clean.schema.get_field_index(name), batch.schema.field(name), batch.column(name))
    return clean, pa.array(np.array(counts, np.int32))


def _texts(record: SessionRecord) -> Iterator[str]:
    """Texts in the order that numbers their placeholders: later revisions only add to it."""
    yield from (m.content for m in record.messages if m.content is not None)
    yield from (i.content for i in record.interactions if i.content is not None)


def _redact(record: SessionRecord, redaction: SessionRedaction) -> SessionRecord:
    return replace(
        record,
        session_id=redaction.identifier(record.session_id),
        user_id=None if record.user_id is None else redaction.identifier(record.user_id),
        messages=tuple(m._replace(content=_text(redaction, m.content)) for m in record.messages),
        interactions=tuple(_redact_interaction(i, redaction) for i in record.interactions),
        graph_state=None if record.graph_state is None else redaction.json_text(record.graph_state),
        metadata=redaction.json_text(record.metadata),
        extra=None if record.extra is None else redaction.json_text(record.extra),
    )


def _redact_interaction(act: Interaction, redaction: SessionRedaction) -> Interaction:
    """A node id gets the placeholder that it has in the graph, so that the two still meet."""
    is_graph = act.action_type == GRAPH_SNAPSHOT and act.content is not None
    return act._replace(
        node_id=_text(redaction, act.node_id),
        content=redaction.json_text(act.content or "") if is_graph else _text(redaction, act.content),
        metadata=redaction.json_text(act.metadata),
    )


def _text(redaction: SessionRedaction, text: str | None) -> str | None:
    return None if text is None else redaction.text(text)
