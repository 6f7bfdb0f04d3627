"""The task of an export: one slice of sessions to rows, redacted and with their digests, in scratch files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines import dedup, near
from pipelines.derive import Chat, Reject, Row, Session, training_rows
from pipelines.derive.acts import decode_object
from pipelines.exports.filters import ExportFilters, matching_sessions
from pipelines.exports.source import Slice, Source, StoredSession, sessions_in
from pipelines.redact import Redactor, SessionRedaction, strings_in
from pipelines.schema import EXPORTS
from pipelines.splits import TRAIN

_BATCH_ROWS: Final = 2000
_IDENTIFIERS: Final = frozenset({"chosen_node", "rejected_node", "node_id", "node_refs"})
_NOTES: Final = (
    pa.field("by_default_", pa.bool_(), nullable=False),
    pa.field("judges_", pa.string(), nullable=False),
)
"""Whether a row rests on the default consent, and which kinds of actors judged it."""
REJECTS: Final = pa.schema([(name, pa.string()) for name in ("session_uid", "reason", "detail", "row_id")])
"""Sessions and candidates that gave no row, and why."""


@dataclass(frozen=True, slots=True)
class Job:
    """What all tasks of an export share."""

    source: Source
    set_name: str
    filters: ExportFilters
    consent_default: str
    redactor: Redactor
    identifier_key: bytes
    scratch: Path


@dataclass(frozen=True, slots=True)
class Task:
    """One slice of an export; ``number`` is its place among the slices."""

    job: Job
    part: Slice
    number: int

    def path(self, kind: str) -> Path:
        """The scratch file of this task for rows, evaluation or rejects."""
        return self.job.scratch / f"{kind}-{self.number:06d}.parquet"


@dataclass(slots=True)
class Counts:
    """What happened to the sessions and candidates of a task, or of all tasks.

    Attributes:
        sessions: Sessions read, with_rows and without_rows; those held back by a filter, by its name.
        rejects: Sessions and candidates by the reason why they gave no row.
        filtered_rows: Rows held back by a filter, by its name.
        redactions: Placeholders written, by type.
    """

    sessions: Counter[str] = field(default_factory=Counter)
    rejects: Counter[str] = field(default_factory=Counter)
    filtered_rows: Counter[str] = field(default_factory=Counter)
    redactions: Counter[str] = field(default_factory=Counter)

    def add(self, other: Counts) -> None:
        """Add another task's counts."""
        self.sessions.update(other.sessions)
        self.rejects.update(other.rejects)
        self.filtered_rows.update(other.filtered_rows)
        self.redactions.update(other.redactions)


def row_schema(set_name: str) -> pa.Schema:
    """Rows in scratch files: the set's columns, notes for the manifest, and digests."""
    return pa.schema([*EXPORTS[set_name].schema, *_NOTES, *dedup.KEY_COLUMNS])


def run(task: Task) -> Counts:
    """Derive, redact and digest one slice. Its files are named by its number, so a repeated task adds nothing."""
    job, counts = task.job, Counts()
    tables = job.source.read(task.part, all_columns=job.filters.where is not None)
    passing = None if job.filters.where is None else matching_sessions(job.filters.where, tables.sessions)
    with ExitStack() as stack:
        sinks = _Sinks(
            rows=stack.enter_context(_Sink(task.path("rows"), row_schema(job.set_name))),
            evaluation=stack.enter_context(_Sink(task.path("evaluation"), dedup.EVALUATION)),
            rejects=stack.enter_context(_Sink(task.path("rejects"), REJECTS)),
            signer=near.Signer(),
        )
        for stored in sessions_in(tables):
            counts.sessions["read"] += 1
            is_outside = passing is not None and stored.session.session_uid not in passing
            _add_session(job, stored, sinks, counts, "filter_where" if is_outside else None)
    return counts


@dataclass(frozen=True, slots=True)
class _Sinks:
    rows: _Sink
    evaluation: _Sink
    rejects: _Sink
    signer: near.Signer


def _add_session(job: Job, stored: StoredSession, sinks: _Sinks, counts: Counts, held_back: str | None) -> None:
    session, redaction = stored.session, _redaction(job, stored.session)
    if stored.split != TRAIN:
        for prompt in _prompts(session):
            asked = _chat(redaction, prompt)
            signature = sinks.signer.signature(_question(asked))
            sinks.evaluation.add(dedup.prompt_digest(asked), stored.split, signature, near.bands(signature))
    held_back = held_back or job.filters.session_reject(session.language, stored.created_at_us)
    if held_back is not None:
        counts.sessions[held_back] += 1
        return
    redaction.counts.clear()
    n_rows = 0
    for row, reject in _derive(job, stored):
        if reject is not None:
            counts.rejects[reject.reason] += 1
            sinks.rejects.add(session.session_uid, reject.reason, redaction.identifier(reject.node), None)
        elif row is not None and (name := job.filters.row_reject(row.values)):
            counts.filtered_rows[name] += 1
        elif row is not None:
            n_rows += 1
            sinks.rows.add(*_values(row, stored, redaction, sinks.signer))
    counts.sessions["with_rows" if n_rows else "without_rows"] += 1
    counts.redactions.update(redaction.counts)


def _derive(job: Job, stored: StoredSession) -> Iterator[tuple[Row | None, Reject | None]]:
    """Rows and rejects of a session, if its user agreed to training."""
    if (stored.consent or job.consent_default) != "training":
        yield None, Reject(job.set_name, "consent")
        return
    derived = training_rows(stored.session, job.filters.rules, (job.set_name,))
    for reject in derived.rejects:
        yield None, reject
    for row in derived.rows:
        yield row, None


def _prompts(session: Session) -> Iterator[Chat]:
    """Every prompt that a row of any set would have, whatever the filters of this export."""
    for row in training_rows(session).rows:
        yield row.prompt


def _redaction(job: Job, session: Session) -> SessionRedaction:
    """The session's redaction; values are numbered in the order of the session, not of this set's rows."""
    return SessionRedaction(job.redactor, job.identifier_key, _texts(session))


def _texts(session: Session) -> Iterator[str]:
    yield from (turn.content or "" for turn in session.turns)
    yield from (act.content or "" for act in session.acts)
    yield from strings_in(decode_object(session.graph_state))


def _chat(redaction: SessionRedaction, chat: Chat) -> Chat:
    return tuple((redaction.text(role), redaction.text(content)) for role, content in chat)


def _values(row: Row, stored: StoredSession, redaction: SessionRedaction, signer: near.Signer) -> list[Any]:
    """One row as the values of :func:`row_schema`."""
    session = stored.session
    prompt = _chat(redaction, row.prompt)
    values = {name: _clean(redaction, name, value) for name, value in row.values.items()}
    if row.set_name != "sft":
        values["prompt"] = prompt_text(prompt) if row.set_name == "stepwise" else prompt
    values |= {
        "row_id": row.row_id,
        "session_uid": session.session_uid,
        "session_id": redaction.identifier(session.session_id),
        "language": None if session.language is None else redaction.text(session.language),
    }
    columns = [values[name] for name in EXPORTS[row.set_name].schema.names]
    notes = (stored.consent is None, "+".join(sorted(row.judges)))
    signature = signer.signature(_question(prompt))
    keys = (*digests(row.set_name, prompt, values), signature, near.bands(signature))
    return [*columns, *notes, stored.split, *keys]


def _question(prompt: Chat) -> str:
    """What the user asked last."""
    return next((content for role, content in reversed(prompt) if role == "user"), "")


def _clean(redaction: SessionRedaction, name: str, value: Any) -> Any:
    if isinstance(value, str):
        return redaction.identifier(value) if name in _IDENTIFIERS else redaction.text(value)
    if isinstance(value, tuple):
        return _chat(redaction, value)
    if isinstance(value, list) and name in _IDENTIFIERS:
        return [redaction.identifier(item) for item in value]
    if isinstance(value, list):
        return [redaction.text(item) if isinstance(item, str) else item for item in value]
    return value


def prompt_text(prompt: Chat) -> str:
    """A prompt as text, for sets of plain text: a single user turn as it is, longer chats with their roles."""
    if len(prompt) == 1:
        return prompt[0][1]
    return "\n\n".join(f"{role}: {content}" for role, content in prompt)


def digests(
    set_name: str, prompt: Chat, values: Mapping[str, Any]
) -> tuple[bytes, bytes | None, bytes | None, list[bytes]]:
    """(content, claim, side, prompts) of a row, see :data:`pipelines.dedup.KEY_COLUMNS`."""
    if set_name == "sft":
        return dedup.chat_digest(values["messages"]), None, None, dedup.prompt_digests(values["messages"])
    asked, prompts = dedup.chat_digest(prompt), [dedup.prompt_digest(prompt)]
    if set_name == "prompts":
        return asked, None, None, prompts
    if set_name == "preferences":
        answers = [dedup.chat_digest(values["chosen"]), dedup.chat_digest(values["rejected"])]
        claim, side = [asked, *sorted(answers)], answers[0]
    elif set_name == "unpaired":
        claim, side = [asked, dedup.chat_digest(values["completion"])], bytes([values["label"]])
    else:
        claim, side = [asked, dedup.digest(*values["completions"])], bytes(values["labels"])
    return dedup.join(*claim, side), dedup.join(*claim), dedup.join(side), prompts


class _Sink:
    """A Parquet file written row by row; no file for no rows. Leaving with an error leaves a file nobody reads."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path, self._schema = path, schema
        self._rows: list[tuple[Any, ...]] = []
        self._writer: pq.ParquetWriter | None = None

    def __enter__(self) -> _Sink:
        self._path.unlink(missing_ok=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()

    def add(self, *row: Any) -> None:
        """Add one row, its values in the order of the schema."""
        self._rows.append(row)
        if len(self._rows) == _BATCH_ROWS:
            self._flush()

    def _flush(self) -> None:
        if not self._rows:
            return
        columns = zip(zip(*self._rows, strict=True), self._schema, strict=True)
        arrays = [pa.array(values, column.type) for values, column in columns]
        self._writer = self._writer or pq.ParquetWriter(self._path, self._schema, compression="lz4")
        self._writer.write_table(pa.Table.from_arrays(arrays, schema=self._schema))
        self._rows = []
