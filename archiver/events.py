"""The values a session is made of, and the pure rules about them: identity, time, canonical content.

Everything the archive promises about sameness rests on this module: two records are the same
exactly when :func:`content_sha256` says so, whatever file or database they came from.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Any, Final, NamedTuple

from pydantic_core import to_json

from archiver.errors import InputError, InvalidFeedbackError

VERDICTS: Final = ("correct", "incorrect", "partial")
GRAPH_SNAPSHOT: Final = "graph_snapshot"
"""action_type of the event that keeps a replaced graph state; its content is the old state as JSON."""

MAX_ID_CHARS: Final = 512
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Message(NamedTuple):
    """One turn of the conversation. Its index is its position in the session."""

    role: str
    content: str | None
    created_at_us: int
    language: str | None = None


class Interaction(NamedTuple):
    """One act on the reasoning graph. Its index is its position; ``metadata`` is JSON text."""

    created_at_us: int
    action_type: str
    node_id: str | None = None
    content: str | None = None
    feedback: str | None = None
    metadata: str = "{}"


class FeedbackCounts(NamedTuple):
    """Verdicts counted by whoever wrote the session, kept as reported."""

    correct: int
    incorrect: int
    partial: int


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """One session as the archive keeps it: lossless, immutable, independent of any store.

    Attributes:
        created_at_us: Microseconds since 1970-01-01 UTC; part of the identity.
        updated_at_us: None where the source did not record it.
        graph_state: JSON text, byte-exact, or None.
        metadata: JSON text of an object.
        extra: JSON text of fields this format does not know: top-level names, and
            ``{"messages": {"3": {…}}, "interactions": {…}}`` for fields of single events.
        reported: The feedback counts the source claimed; never trusted, always kept.
        revision: 1 for the first time archived, +1 for every later time.
        archived_at_us: When its segment was claimed; not part of the content.
    """

    session_id: str
    created_at_us: int
    updated_at_us: int | None
    user_id: str | None
    language: str | None
    tz_assumed: bool
    messages: tuple[Message, ...]
    interactions: tuple[Interaction, ...]
    graph_state: str | None = None
    metadata: str = "{}"
    extra: str | None = None
    reported: FeedbackCounts | None = None
    revision: int = 1
    archived_at_us: int = 0

    @property
    def session_uid(self) -> str:
        """The identity: see :func:`session_uid`."""
        return session_uid(self.session_id, self.created_at_us)


@lru_cache(maxsize=1024)  # a sweep asks twice for each session, a group of sessions apart
def session_uid(session_id: str, created_at_us: int) -> str:
    """First 32 hex digits of sha256(session_id, 0x1F, created_at as ``YYYY-MM-DDTHH:MM:SS.ffffffZ``)."""
    stamp = format_time(created_at_us).replace("+00:00", "Z")
    return hashlib.sha256(f"{session_id}\x1f{stamp}".encode()).hexdigest()[:32]


class SessionRow(NamedTuple):
    """One session as the plain values of a segment's row: what a SessionRecord holds, and its digests.

    Attributes:
        messages: For each its values in the order of Message.
        interactions: For each its values in the order of Interaction.
    """

    session_uid: str
    session_id: str
    revision: int
    user_id: str | None
    created_at_us: int
    updated_at_us: int | None
    archived_at_us: int
    tz_assumed: bool
    language: str | None
    messages: Sequence[Sequence[Any]]
    interactions: Sequence[Sequence[Any]]
    graph_state: str | None
    metadata: str
    extra: str | None
    reported: Sequence[int] | None
    content_sha256: str

    @classmethod
    def of(cls, record: SessionRecord) -> SessionRow:
        """A record's values."""
        return cls(
            record.session_uid, record.session_id, record.revision, record.user_id, record.created_at_us,
            record.updated_at_us, record.archived_at_us, record.tz_assumed, record.language, record.messages,
            record.interactions, record.graph_state, record.metadata, record.extra, record.reported,
            content_sha256(record),
        )  # fmt: skip

    def record(self) -> SessionRecord:
        """The session as a record."""
        return SessionRecord(
            session_id=self.session_id,
            created_at_us=self.created_at_us,
            updated_at_us=self.updated_at_us,
            user_id=self.user_id,
            language=self.language,
            tz_assumed=self.tz_assumed,
            messages=tuple(Message(*values) for values in self.messages),
            interactions=tuple(Interaction(*values) for values in self.interactions),
            graph_state=self.graph_state,
            metadata=self.metadata,
            extra=self.extra,
            reported=None if self.reported is None else FeedbackCounts(*self.reported),
            revision=self.revision,
            archived_at_us=self.archived_at_us,
        )


def content_sha256(record: SessionRecord) -> str:
    """Digest of everything in the record but revision and archived_at (docs/FORMAT.md, "Content digest").

    The digest is over compact UTF-8 JSON of plain values, so it does not depend on Parquet, on
    SQLite or on their versions. Costs about 20 µs for a session of 20 messages.
    """
    own = (
        record.session_id, record.created_at_us, record.updated_at_us, record.user_id, record.language,
        record.tz_assumed, record.graph_state, record.metadata, record.extra, record.reported,
    )  # fmt: skip
    messages, interactions = list(map(tuple, record.messages)), list(map(tuple, record.interactions))
    return content_digest(own, to_json(messages), to_json(interactions))


def content_digest(own: Sequence[Any], messages: bytes, interactions: bytes) -> str:
    """:func:`content_sha256` from a session's own values and its events as canonical JSON."""
    # The same bytes as canonical_json at a fifth of its cost, for plain tuples.
    return hashlib.sha256(b"".join((to_json(own)[:-1], b",", messages, b",", interactions, b"]"))).hexdigest()


def membership_digest(members: Iterable[tuple[str, int, str]]) -> str:
    """Digest of a segment's logical content: (session_uid, revision, content_sha256) in order."""
    digest = hashlib.sha256()
    for uid, revision, content in members:
        digest.update(f"{uid}\x1f{revision}\x1f{content}\n".encode())
    return digest.hexdigest()


def canonical_json(value: Any) -> str:
    """Compact JSON text with keys in their own order; raises InputError for what JSON cannot hold."""
    try:
        return _ENCODER.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"value cannot be stored as JSON: {error}", hint="use only str, int, finite float, bool, None, list, dict"
        ) from error


def format_time(us: int) -> str:
    """Microseconds since the epoch as ``YYYY-MM-DDTHH:MM:SS.ffffff+00:00``."""
    return datetime_from_us(us).isoformat(timespec="microseconds")


def datetime_from_us(us: int) -> datetime:
    """Microseconds since the epoch as an aware UTC datetime (exact: no floating point)."""
    return datetime.fromtimestamp(us // 1_000_000, UTC).replace(microsecond=us % 1_000_000)


def us_from_datetime(when: datetime) -> int:
    """An aware datetime as microseconds since the epoch."""
    delta = when - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def parse_time(value: object, *, field: str, assume_tz: tzinfo = UTC) -> tuple[int, bool]:
    """ISO 8601 text as (microseconds since the epoch, whether a zone had to be assumed)."""
    if not isinstance(value, str):
        raise InputError(
            f"{field} must be ISO 8601 text, got {type(value).__name__} {value!r:.40}",
            hint="write it like 2026-10-03T10:00:00+00:00",
        )
    try:
        when = datetime.fromisoformat(value)
        assumed = when.tzinfo is None
        aware = when.replace(tzinfo=assume_tz) if assumed else when
        return us_from_datetime(aware.astimezone(UTC)), assumed
    except (ValueError, OverflowError) as error:
        raise InputError(
            f"{field} is not an ISO 8601 time: {value!r:.60}", hint="write it like 2026-10-03T10:00:00+00:00"
        ) from error


def check_id(value: object, *, field: str) -> str:
    """Return the id if it can be one: 1 to 512 characters, no control characters, no lone surrogates.

    An id is data, never part of a path or an object key, so ``../x`` and ``a/b`` are fine.
    """
    if not isinstance(value, str):
        raise InputError(f"{field} must be text, got {type(value).__name__} {value!r:.40}")
    if not 1 <= len(value) <= MAX_ID_CHARS:
        raise InputError(f"{field} has {len(value)} characters, permitted are 1 to {MAX_ID_CHARS}: {value!r:.40}")
    if _CONTROL.search(value):
        raise InputError(f"{field} contains a control character: {value!r:.60}")
    return check_text(value, field=field)


def check_text(value: object, *, field: str) -> str:
    """Return the text if every store can hold it, that is if UTF-8 can."""
    if not isinstance(value, str):
        raise InputError(f"{field} must be text, got {type(value).__name__} {value!r:.40}")
    found = None if value.isascii() else _SURROGATE.search(value)
    if found:
        raise InputError(
            f"{field} contains the lone surrogate U+{ord(found.group()):04X} at character {found.start()}",
            hint="the text was cut inside an emoji or decoded wrongly; decode it as UTF-16 or UTF-8 again",
        )
    return value


def check_verdict(value: object) -> str:
    """Return the verdict if it is one of the three; anything else raises InvalidFeedbackError."""
    if value not in VERDICTS:
        raise InvalidFeedbackError(f"feedback is {value!r:.60}, permitted are {', '.join(VERDICTS)}", key="feedback")
    return str(value)
