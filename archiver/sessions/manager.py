"""SessionManager: the public API, over the hot store."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from archiver.errors import InputError, UnknownSessionError
from archiver.events import SessionRecord, check_id, check_verdict, format_time, parse_time
from archiver.hot import HotStore, frozen, reading
from archiver.hot.rows import Changes, NewEvent
from archiver.sessions import convert
from archiver.sessions.adoption import adopt_files
from archiver.sessions.archive_side import ArchiveSide
from archiver.sessions.keeper import Keeper, unknown_session
from archiver.sessions.model import ChatMessage, Session, short_title
from archiver.sessions.tracking import Tracked
from archiver.settings import Durability, Settings, load_settings
from archiver.telemetry import fields

if TYPE_CHECKING:
    from archiver.service import SweepReport

log = logging.getLogger(__name__)

_VERDICT_ACTIONS: Final = frozenset({"feedback", "prune", "inject", "resurrect"})
_WALK: Final = 200


def wall_clock_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1000


class SessionManager:
    """Live sessions of one host: durable appends, shared by threads and processes, archived when they expire.

    Args:
        sessions_dir: Directory of the store; absent: the setting ``hot.path``.
        max_sessions: Live sessions kept; above it sweeps archive the least recently active.
        session_max_age_hours: Without activity for so long a session has expired; 0: at once.
        durability: What a call survives when it returns (``process``, ``interval``, ``power``);
            feedback, prune, inject and resurrect are ``power`` unless the call says otherwise.
        settings: All settings, instead of the arguments above; absent: the environment's.
        clock: Microseconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        sessions_dir: str | Path | None = None,
        max_sessions: int | None = None,
        session_max_age_hours: float | None = None,
        *,
        durability: Durability | None = None,
        settings: Settings | None = None,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        given = {
            "path": sessions_dir,
            "max_sessions": max_sessions,
            "session_max_age_hours": session_max_age_hours,
            "durability": durability,
        }
        self.settings = _effective(settings, given)
        hot = self.settings.hot
        self.sessions_dir = hot.path
        self.max_sessions = hot.max_sessions
        self._max_age_us = int(hot.session_max_age_hours * 3_600_000_000)
        self._assume_tz = self.settings.time.zone
        self._clock = clock
        self.hot = HotStore.from_settings(hot)
        self._archive = ArchiveSide(self.hot, self.settings)
        self._keeper = Keeper(self.hot, self._archive, max_age_us=self._max_age_us, assume_tz=self._assume_tz)
        adopt_files(self.hot, self._assume_tz, clock())

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """The manager that these settings describe."""
        return cls(settings=settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Sync and close the store. Unsaved changes of objects are not saved."""
        self.hot.close()

    def flush(self) -> None:
        """Return when everything saved so far survives power loss."""
        self.hot.flush()

    # ---------------------------------------------------------------- getting sessions

    def get_session(self, session_id: str, *, restore: bool = False) -> Session | None:
        """The live object of a session, refreshed; None if it is unknown, closed or expired.

        An evicted session that has not expired comes back from the archive by itself; with
        ``restore`` any archived one does. StorageError if the archive cannot be asked then.
        """
        check_id(session_id, field="session_id")
        now_us = self._clock()
        found = self._keeper.find(session_id)
        if found is None:
            return self._keeper.bring_back(session_id, now_us, even_expired=restore)
        if self._keeper.expired(found.last_activity_us, now_us):
            if not restore:
                return None
            self._change(session_id, Changes(), None)
        return found.session

    def create_session(
        self, session_id: str, *, user_id: str | None = None, durability: Durability | None = None
    ) -> Session:
        """Start a new conversation; a live one with this id is closed and will be archived."""
        session = self._start(session_id, user_id, keep_live=False)
        self.hot.settle(durability)
        return session

    def get_or_create(
        self, session_id: str, *, user_id: str | None = None, durability: Durability | None = None
    ) -> Session:
        """The live session, or a new conversation under this id if there is none or it has expired. Atomic."""
        session = self.get_session(session_id) or self._start(session_id, user_id, keep_live=True)
        if user_id is not None and session.user_id != user_id:
            self._change(session_id, Changes(user_id=check_id(user_id, field="user_id")), durability)
        self.hot.settle(durability)
        return session

    def messages(self, session_id: str, *, after: int | None = None, last: int | None = None) -> list[ChatMessage]:
        """Messages with an index above ``after``, of these the ``last`` ones, straight from the store.

        Costs what it returns, however long the history is. UnknownSessionError if the session is not live.
        """
        check_id(session_id, field="session_id")
        with self.hot.reader() as connection:
            row = reading.live(connection, session_id)
            page = reading.messages(connection, row.sid, after=after, last=last) if row else None
        if page is None:
            raise unknown_session(session_id)
        return [convert.plain_message(stored) for stored in page]

    def peek(self, session_id: str) -> Session | None:
        """The session as it is, live or else in the archive, without restoring it; not a live object."""
        check_id(session_id, field="session_id")
        with self.hot.reader() as connection:
            row = reading.live(connection, session_id)
            stored = reading.whole(connection, row) if row else None
        if stored is not None:
            return Tracked(stored, self._assume_tz).session
        record = self._archive.find(session_id)
        return None if record is None else convert.session_of(record)

    def peek_record(self, session_id: str) -> SessionRecord | None:
        """The session with all that the archive keeps: revision, client ids, unknown fields, graph snapshots.

        Live as it would be archived now, or else the newest archived revision; None if there is neither.
        """
        check_id(session_id, field="session_id")
        with self.hot.reader() as connection:
            record = frozen.live_record(connection, session_id)
        return record or self._archive.find(session_id)

    # ---------------------------------------------------------------- saving

    def save_session(self, session_id: str, *, durability: Durability | None = None) -> None:
        """Store all pending changes of the session's object in one transaction; it counts as activity.

        SessionConflictError if stored messages were edited and another holder committed since, or
        if they are archived. UnknownSessionError if there is no such session (any more).
        """
        self._change(session_id, Changes(), durability)

    def add_message(
        self,
        session_id: str,
        role: str,
        content: str | None,
        language: str | None = "en",
        *,
        client_id: str | None = None,
        timestamp: str | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Append one message in a single durable call; with ``client_id`` a retry adds nothing."""
        if client_id is not None:
            check_id(client_id, field="client_id")
        created_us, assumed = None, False
        if timestamp is not None:
            created_us, assumed = parse_time(timestamp, field="timestamp", assume_tz=self._assume_tz)
        event = convert.message_event(role, content, language, created_us, client_id)
        if assumed:
            self._change(session_id, Changes(events=[event], tz_assumed=True), durability)
        else:
            self._append(session_id, event, durability)

    def record_interaction(
        self,
        session_id: str,
        action_type: str,
        node_id: str | None = None,
        content: str | None = None,
        feedback: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        actor: str | None = None,
        level: str | None = None,
        annotator: str | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Append one interaction in a single durable call; actor, level and annotator go into its metadata."""
        named = {"actor": actor, "level": level, "annotator": annotator}
        both = {**(metadata or {}), **{k: v for k, v in named.items() if v is not None}}
        text = convert.metadata_text(both)
        event = convert.interaction_event(action_type, node_id, content, feedback, text, None)
        if durability is None and (feedback or action_type in _VERDICT_ACTIONS):
            durability = "power"
        self._append(session_id, event, durability)

    def add_feedback(
        self,
        session_id: str,
        node_id: str | None,
        feedback_type: str,
        context: str = "",
        *,
        actor: str | None = None,
        level: str | None = None,
        annotator: str | None = None,
        durability: Durability | None = None,
    ) -> None:
        """Record a verdict on a node or message: correct, incorrect or partial."""
        self.record_interaction(
            session_id, "feedback", node_id, None, check_verdict(feedback_type), {"context": context},
            actor=actor, level=level, annotator=annotator, durability=durability,
        )  # fmt: skip

    def update_graph_state(
        self, session_id: str, state: Mapping[str, Any] | None, *, durability: Durability | None = None
    ) -> None:
        """Replace the reasoning graph, creating the session if need be.

        The replaced state is kept as an event if an earlier event names a node that only it has.
        """
        text = "" if state is None else convert.json_text(state, field="graph_state")
        self.get_or_create(session_id)
        self._change(session_id, Changes(graph=text), durability)

    def update_language(self, session_id: str, language: str, *, durability: Durability | None = None) -> None:
        """Set the session's language."""
        self._change(session_id, Changes(language=convert.language_text(language)), durability)

    def update_metadata(
        self,
        session_id: str,
        changes: Mapping[str, Any] | None = None,
        *,
        durability: Durability | None = None,
        **keys: Any,
    ) -> None:
        """Set top-level keys of the session's metadata; a key set to None stays as null."""
        merged = {**(changes or {}), **keys}
        texts = {key: convert.json_text(value, field=f"metadata.{key}") for key, value in merged.items()}
        self._change(session_id, Changes(metadata=texts), durability)

    # ---------------------------------------------------------------- ending sessions

    def delete_session(self, session_id: str, archive: bool = True) -> None:
        """End a session: gone at once, and archived by the next sweep unless ``archive`` is false.

        Without ``archive`` the live rows are deleted; revisions archived earlier remain until ``erase``.
        """
        check_id(session_id, field="session_id")
        earlier = self._keeper.end(session_id, self._clock()) if archive else self._keeper.delete(session_id)
        self.hot.settle()
        if earlier and not archive:
            log.warning("archived_revisions_remain", extra=fields(session_id=session_id, revisions=earlier))

    def cleanup_stale_sessions(self) -> SweepReport:
        """Archive what has expired, was closed, or is above ``max_sessions``, to the configured storage.

        Returns the sweep's report; a failure of the storage is in it, and the sessions stay.
        """
        return self._archive.sweep(self._clock())

    # ---------------------------------------------------------------- over all sessions

    def list_sessions(self, limit: int = 20, *, user_id: str | None = None) -> list[dict[str, Any]]:
        """The most recently active sessions that have not expired: id, title, timestamp, language."""
        alive_since_us = self._clock() - self._max_age_us
        with self.hot.reader() as connection:
            found = reading.listed(connection, alive_since_us=alive_since_us, limit=max(0, limit), user_id=user_id)
        return [
            {
                "id": item.session_id,
                "title": "New Chat" if item.title is None else short_title(item.title),
                "timestamp": format_time(item.updated_us),
                "language": item.language,
            }
            for item in found
        ]

    def export_all_rlhf_data(self) -> list[dict[str, Any]]:
        """All unexpired live sessions in the original's export form; :meth:`iter_rlhf_data` is the bounded way."""
        return list(self.iter_rlhf_data())

    def iter_rlhf_data(self) -> Iterator[dict[str, Any]]:
        """Unexpired live sessions in the original's export form, one in memory at a time."""
        alive_since_us, after = self._clock() - self._max_age_us, 0
        while True:
            with self.hot.reader() as connection:
                sids = reading.live_sids(connection, alive_since_us=alive_since_us, after_sid=after, limit=_WALK)
            if not sids:
                return
            for sid in sids:
                with self.hot.reader() as connection:
                    row = reading.by_sid(connection, sid)
                    stored = reading.whole(connection, row) if row else None
                if stored is not None:
                    yield Tracked(stored, self._assume_tz).session.export_rlhf_data()
            after = sids[-1]

    def get_stats(self) -> dict[str, int]:
        """Unexpired live sessions, and the interactions and verdicts of all live ones, over the whole store."""
        with self.hot.reader() as connection:
            totals = reading.totals(connection, alive_since_us=self._clock() - self._max_age_us)
        return {
            "active_sessions": totals.sessions,
            "total_interactions": totals.interactions,
            "total_feedback": totals.verdicts,
        }

    # ---------------------------------------------------------------- one way each

    def _start(self, session_id: str, user_id: str | None, *, keep_live: bool) -> Session:
        check_id(session_id, field="session_id")
        user = None if user_id is None else check_id(user_id, field="user_id")
        now_us = self._clock()
        session = self._keeper.start(session_id, user, now_us, keep_live=keep_live)
        session = session or self._keeper.bring_back(session_id, now_us, even_expired=False)
        if session is None:  # it cannot come back: erased by another host
            session = self._keeper.start(session_id, user, now_us, keep_live=keep_live, even_evicted=True)
        if session is None:  # pragma: no cover  start gives None for evicted sessions only
            raise UnknownSessionError("could not be started", operation="create session", key=session_id)
        return session

    def _append(self, session_id: str, event: NewEvent, durability: Durability | None) -> None:
        check_id(session_id, field="session_id")
        self._keeper.append(session_id, event, self._clock(), durability)

    def _change(self, session_id: str, changes: Changes, durability: Durability | None) -> None:
        check_id(session_id, field="session_id")
        self._keeper.change(session_id, changes, self._clock(), durability)


def _effective(settings: Settings | None, given: Mapping[str, Any]) -> Settings:
    """These settings, or the environment's with the arguments put in; an explicit directory has its lake beside it."""
    flags: dict[str, Any] = {f"hot.{name}": value for name, value in given.items() if value is not None}
    if settings is not None:
        if flags:
            raise InputError(
                f"settings and {', '.join(flags)} are given both", operation="open manager",
                hint="put the values into the settings",
            )  # fmt: skip
        return settings
    found = load_settings(flags=flags)
    if "hot.path" in flags and "url" not in found.storage.model_fields_set:
        lake = found.hot.path.absolute().parent / "lake"
        found = load_settings(flags={**flags, "storage.url": lake.as_uri()})
    return found
