"""What the live functions pass around: stored rows, new events, the changes of one save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from archiver.hot.schema import INTERACTION, MESSAGE


class NewEvent(NamedTuple):
    """A message or interaction about to be stored; ``created_us`` None: the time of the commit."""

    kind: int
    created_us: int | None
    tag: str
    content: str | None = None
    node_id: str | None = None
    feedback: str | None = None
    language: str | None = None
    metadata: str | None = None
    client_id: str | None = None

    @property
    def text_bytes(self) -> int:
        """What the event adds to session.text_bytes: characters, which is close enough to bound a claim."""
        return len(self.content or "") + len(self.metadata or "")


class StoredEvent(NamedTuple):
    """A row of ``event`` without its session."""

    seq: int
    kind: int
    created_us: int
    tag: str
    content: str | None
    node_id: str | None
    feedback: str | None
    language: str | None
    metadata: str | None
    client_id: str | None


class SessionRow(NamedTuple):
    """The columns of ``session`` that the live side reads."""

    sid: int
    session_uid: str
    session_id: str
    user_id: str | None
    state: int
    claimed: int
    on_loan: int
    created_us: int
    updated_us: int | None
    last_activity_us: int
    language: str | None
    next_seq: int
    version: int
    rewrites: int
    fb_correct: int
    fb_incorrect: int
    fb_partial: int
    archived_revision: int
    archived_seq: int
    metadata: str


COLUMNS = ", ".join(SessionRow._fields)
EVENT_COLUMNS = ", ".join(StoredEvent._fields)


class Stored(NamedTuple):
    """A session as read in one snapshot; ``events`` may be only those after a known sequence number."""

    row: SessionRow
    events: Sequence[StoredEvent]
    graph: str | None


class Unseen(NamedTuple):
    """What a holder has not seen of a session.

    Attributes:
        reloaded: ``events`` are all events, because stored ones were edited or removed.
    """

    events: Sequence[StoredEvent]
    graph: str | None
    reloaded: bool


class Base(NamedTuple):
    """The state of the session that a holder last saw."""

    next_seq: int
    version: int
    rewrites: int


@dataclass(slots=True)
class Changes:
    """Everything one save writes: what a holder changed, and only that.

    Attributes:
        events: New messages and interactions in their order.
        edits: New values of stored events by sequence number; ``client_id`` is kept unless ``replaced``.
        removed: Sequence numbers of stored events that are gone.
        metadata: Changed top-level keys as JSON text; None removes a key.
        graph: New graph state as JSON text; ``""`` removes it, None leaves it.
        tz_assumed: A timestamp came without a zone.
    """

    events: list[NewEvent] = field(default_factory=list)
    edits: dict[int, NewEvent] = field(default_factory=dict)
    replaced: set[int] = field(default_factory=set)
    removed: list[int] = field(default_factory=list)
    metadata: Mapping[str, str | None] = field(default_factory=dict)
    language: str | None = None
    graph: str | None = None
    user_id: str | None = None
    tz_assumed: bool = False

    @property
    def rewrites(self) -> bool:
        """Whether stored events change."""
        return bool(self.edits or self.removed)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to write."""
        return not self.events and self.only_events

    @property
    def only_events(self) -> bool:
        """Whether nothing but new events would be written."""
        return not (self.rewrites or self.metadata or self.language or self.graph is not None or self.user_id)

    def followed_by(self, later: Changes) -> Changes:
        """Both as one save: ``later``'s events come last, and its values win."""
        if later.empty:
            return self
        return replace(
            self,
            events=[*self.events, *later.events],
            metadata={**self.metadata, **later.metadata},
            language=later.language or self.language,
            graph=self.graph if later.graph is None else later.graph,
            user_id=later.user_id or self.user_id,
            tz_assumed=self.tz_assumed or later.tz_assumed,
        )


__all__ = [
    "COLUMNS",
    "EVENT_COLUMNS",
    "INTERACTION",
    "MESSAGE",
    "Base",
    "Changes",
    "NewEvent",
    "SessionRow",
    "Stored",
    "StoredEvent",
    "Unseen",
]
