"""The values a replay reads: turns and acts of one session, and who acted.

A :class:`Session` is built alike from a segment's row and from the tables' rows, so that what the
tables say of a session and what its training rows say rest on one replay.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice, pairwise
from typing import Any, Final, NamedTuple, TypeVar

import pyarrow as pa

from pipelines.derive.texts import decode

ACTOR_KINDS: Final = ("human", "auto", "model", "agent")
UNKNOWN_KIND: Final = "unknown"
LEVELS: Final = ("answer", "outcome", "step")
_INDEX: Final = re.compile(r"\d{1,9}")
_MESSAGE_NAME: Final = re.compile(r"(?:m|message-)?(\d{1,9})")
_NOTHING: Final[Mapping[str, Any]] = {}
_T = TypeVar("_T")


class Turn(NamedTuple):
    """One message; its index is its position in the session, ``created_at`` microseconds since 1970 UTC."""

    role: str
    content: str | None
    created_at: int


class Act(NamedTuple):
    """One interaction; ``position`` is its index in the session, ``metadata`` its decoded object."""

    position: int
    created_at_us: int
    action_type: str
    node_id: str | None
    content: str | None
    feedback: str | None
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Session:
    """What a replay needs of one session.

    Attributes:
        n_messages: Messages of the session, also where ``turns`` were not read.
        turns: The messages in order; empty where only graph and feedback are of interest.
        extra: JSON text of fields the archive format does not know; holds clients' message ids.
    """

    session_uid: str
    session_id: str
    user_id: str | None
    language: str | None
    graph_state: str | None
    n_messages: int
    turns: Sequence[Turn] = ()
    acts: Sequence[Act] = ()
    extra: str | None = field(default=None, repr=False)

    def message_index(self, name: str) -> int | None:
        """The message that ``name`` means: a client's id, else an index as ``3``, ``m3`` or ``message-3``."""
        if name in self._message_ids:
            return self._message_ids[name]
        match = _MESSAGE_NAME.fullmatch(name)
        return int(match[1]) if match and int(match[1]) < self.n_messages else None

    @cached_property
    def _message_ids(self) -> Mapping[str, int]:
        messages = decode_object(self.extra).get("messages") if self.extra else None
        if not isinstance(messages, dict):
            return {}
        known = (
            (key, fields) for key, fields in messages.items() if _INDEX.fullmatch(key) and isinstance(fields, dict)
        )
        named = ((int(key), fields.get("id")) for key, fields in known)
        return {str(name): index for index, name in named if name is not None and index < self.n_messages}


def decode_object(text: str | None) -> Mapping[str, Any]:
    """The object of a JSON text; an empty one for anything that is no object."""
    if not text or text == "{}":
        return _NOTHING
    try:
        value = decode(text)
    except (ValueError, RecursionError):
        return _NOTHING
    return value if isinstance(value, dict) else _NOTHING


def actor_of(metadata: Mapping[str, Any], user_id: str | None) -> tuple[str, str]:
    """(actor, actor kind) of an interaction.

    The actor is metadata.annotator, else metadata.actor, else ``human:{user_id}``, else ``human``.
    """
    named = metadata.get("actor")
    annotator = metadata.get("annotator")
    if named is None:
        kind = "human"
        actor = f"human:{user_id}" if user_id else "human"
    else:
        actor = str(named)
        prefix = actor.partition(":")[0]
        kind = prefix if prefix in ACTOR_KINDS else UNKNOWN_KIND
    return (actor if annotator is None else str(annotator)), kind


def actor_columns(metadata: pa.Array, user_ids: pa.Array) -> tuple[pa.Array, pa.Array]:
    """:func:`actor_of` for the columns of an interactions table; each distinct metadata text is decoded once."""
    texts = metadata.dictionary_encode()
    decoded = [decode_object(text) for text in texts.dictionary.to_pylist()]
    rows = zip(texts.indices.to_pylist(), user_ids.to_pylist(), strict=True)
    pairs = [actor_of(_NOTHING if i is None else decoded[i], user) for i, user in rows]
    return pa.array([a for a, _ in pairs], pa.string()), pa.array([k for _, k in pairs], pa.string())


def acts_of(lists: pa.ListArray) -> Iterator[list[Act]]:
    """A list<struct> column of interactions, as segments hold it, as acts for one row after the other."""
    events = lists.flatten()
    names = ("index", "created_at", "action_type", "node_id", "content", "feedback", "metadata")
    *columns, texts = [_plain(events.field(name)) for name in names]
    rows = zip(*columns, map(decode_object, texts), strict=True)
    return _regroup(lists, map(Act._make, rows))


def turns_of(lists: pa.ListArray) -> Iterator[list[Turn]]:
    """A list<struct> column of messages, as segments hold it, as turns for one row after the other."""
    events = lists.flatten()
    columns = [_plain(events.field(name)) for name in Turn._fields]
    return _regroup(lists, map(Turn._make, zip(*columns, strict=True)))


def _plain(column: pa.Array) -> list[Any]:
    """Values as Python's, times as microseconds."""
    return list((column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist())


def _regroup(lists: pa.ListArray, flat: Iterator[_T]) -> Iterator[list[_T]]:
    """Flattened values cut back into the lists they came from; no value is made before its list is asked for."""
    for start, stop in pairwise(lists.offsets.to_pylist()):
        yield list(islice(flat, stop - start))
