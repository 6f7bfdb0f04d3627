"""One live Session object and the stored session it stands for: what it changed, and what others added."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import tzinfo
from typing import Any

from archiver.errors import InputError
from archiver.events import VERDICTS, canonical_json, check_id, check_text, format_time
from archiver.hot.lifecycle import merged_by_time
from archiver.hot.live import Appended, Written
from archiver.hot.rows import INTERACTION, MESSAGE, Base, Changes, NewEvent, SessionRow, Stored, StoredEvent, Unseen
from archiver.sessions import convert
from archiver.sessions.lines import Line
from archiver.sessions.model import Session


class Tracked:
    """A Session object, and the state of the store it reflects. Use it under its lock.

    Attributes:
        released: The registry let it go: whoever waited for the lock must look for another.
        conflicted: Its last save met a conflict.
    """

    def __init__(self, stored: Stored, assume_tz: tzinfo) -> None:
        self.lock = threading.RLock()
        self.released = False
        self.conflicted = False
        self.session = session = Session.__new__(Session)
        session.session_id = self._session_id = stored.row.session_id
        session.created_at = self._created_at = format_time(stored.row.created_us)
        session.metadata = {}
        session.feedback_count = {}
        self._turns = Line(MESSAGE, assume_tz)
        self._acts = Line(INTERACTION, assume_tz)
        session.chat_history = self._turns.watched
        session.interactions = self._acts.watched
        self._metadata = "{}"
        self._language: str | None = None
        self._graph: str | None = None
        self._take_over(stored, Changes(), reloaded=False)

    @property
    def session_uid(self) -> str:
        """Identity of the conversation the object stands for."""
        return self._session_uid

    # ---------------------------------------------------------------- from the store to the object

    def refresh(self, row: SessionRow, unseen: Unseen) -> None:
        """Take over what others committed; what this holder changed and has not saved stays."""
        changes = self.collect()
        if changes.rewrites:
            self.uncollect()  # the edit and their commit cannot both stand: the next save says so
        else:
            self._take_over(Stored(row, unseen.events, unseen.graph), changes, reloaded=unseen.reloaded)

    def reattach(self, stored: Stored) -> bool:
        """The session was archived and restored: its rows are new, and this object's unsaved changes still count.

        False, and nothing done, if they include an edit: what it edits is in the archive, immutable.
        """
        mine = self.collect()
        if mine.rewrites:
            self.uncollect()
            return False
        self._take_over(stored, mine, reloaded=True)
        return True

    def _take_over(self, stored: Stored, mine: Changes, *, reloaded: bool) -> None:
        if reloaded:
            self._turns.forget(self.session.chat_history)
            self._acts.forget(self.session.interactions)
        self._absorb(stored.events)
        self._show(stored.row, stored.graph, mine)

    def _absorb(self, events: Sequence[StoredEvent]) -> None:
        self._turns.absorb(self.session.chat_history, events)
        self._acts.absorb(self.session.interactions, events)

    def _show(self, row: SessionRow, graph: str | None, mine: Changes) -> None:
        """Take over everything but events; the fields in ``mine`` stay as the holder left them."""
        session = self.session
        self.sid = row.sid
        self._session_uid = row.session_uid
        self.base = Base(row.next_seq, row.version, row.rewrites)
        session.updated_at = format_time(row.created_us if row.updated_us is None else row.updated_us)
        session.feedback_count.update(zip(VERDICTS, (row.fb_correct, row.fb_incorrect, row.fb_partial), strict=True))
        session.user_id = self._user_id = row.user_id
        if mine.language is None:
            session.language = row.language  # type: ignore[assignment]  # null where an import did not record it
        self._language = row.language
        self._show_metadata(row.metadata, mine)
        if mine.graph is None and (graph != self._graph or "graph_state" not in session.__dict__):
            convert.set_graph_text(session, graph)
        self._graph = graph

    def _show_metadata(self, text: str, mine: Changes) -> None:
        if text == self._metadata:
            return
        shown, stored, known = self.session.metadata, json.loads(text), json.loads(self._metadata)
        for key in known.keys() - stored.keys() - mine.metadata.keys():
            shown.pop(key, None)
        for key, value in stored.items():
            if key not in mine.metadata and (key not in known or known[key] != value):
                shown[key] = value
        self._metadata = text

    # ---------------------------------------------------------------- from the object to the store

    def collect(self) -> Changes:
        """Everything the object holds that the store does not; raises InputError for what cannot be stored."""
        self._check_identity()
        session, changes = self.session, Changes()
        turns = self._turns.collect(session.chat_history, changes)
        acts = self._acts.collect(session.interactions, changes)
        changes.events.extend(merged_by_time(turns, acts))
        changes.metadata = convert.changed_keys(self._metadata, session.metadata)
        if session.language != self._language:
            changes.language = check_text(session.language, field="language")
        if "graph_state" in session.__dict__:
            changes.graph = _changed_graph(self._graph, session.graph_state)
        if session.user_id != self._user_id:
            changes.user_id = check_id(session.user_id, field="user_id")
        return changes

    def uncollect(self) -> None:
        """What was collected was not saved: the next save must look again."""
        self._turns.uncollect()
        self._acts.uncollect()

    def has_changes(self) -> bool:
        """Whether a save would write anything of the object's own."""
        if self._looks_untouched():
            return False
        try:
            changes = self.collect()
        except InputError:
            return True
        if not changes.empty:
            self.uncollect()
        return not changes.empty

    def _looks_untouched(self) -> bool:
        """The cheap half of :meth:`has_changes`: true only if nothing can have changed."""
        session = self.session
        return (
            self._turns.looks_untouched(self.session.chat_history)
            and self._acts.looks_untouched(self.session.interactions)
            and "graph_state" not in session.__dict__
            and session.session_id == self._session_id
            and session.created_at == self._created_at
            and session.language == self._language
            and session.user_id == self._user_id
            and convert.metadata_text(session.metadata) == self._metadata
        )

    def _check_identity(self) -> None:
        if (self.session.session_id, self.session.created_at) != (self._session_id, self._created_at):
            raise InputError(
                "session_id and created_at are the identity of a session and cannot be changed",
                operation="save", key=self._session_id, hint="create another session",
            )  # fmt: skip

    # ---------------------------------------------------------------- after a commit

    def saved(self, own: Changes, extra: Changes, written: Written) -> None:
        """Note that ``own`` is stored, and show what was stored beside it: others' events and ``extra``."""
        self.conflicted = False
        both = own.followed_by(extra)
        self._turns.accept(self.session.chat_history, own)
        self._acts.accept(self.session.interactions, own)
        events, graph, reloaded = written.theirs or Unseen((), self._graph, reloaded=False)
        if both.graph is not None:
            graph = both.graph or None
        self._take_over(Stored(written.row, events, graph), _without(own, extra), reloaded=reloaded)
        rows = [
            StoredEvent(seq, event.kind, created_us, *event[2:])
            for event, seq, created_us in zip(both.events, written.seqs, written.created_us, strict=True)
            if seq is not None
        ]
        self._turns.know(self.session.chat_history, rows[: len(own.events)])
        self._acts.know(self.session.interactions, rows[: len(own.events)])
        self._absorb(rows[len(own.events) :])

    def appended(self, event: NewEvent, done: Appended) -> None:
        """Show an event that was stored directly after the state this object reflects."""
        assert done.seq is not None  # noqa: S101  events with a client_id take the other way
        self.base = Base(done.seq + 1, self.base.version + 1, self.base.rewrites)
        self.session.updated_at = format_time(done.updated_us)
        if event.feedback is not None:
            self.session.feedback_count[event.feedback] += 1
        rows = [StoredEvent(done.seq, event.kind, done.created_us, *event[2:])]
        if event.kind == MESSAGE:
            self._turns.absorb(self.session.chat_history, rows)
        else:
            self._acts.absorb(self.session.interactions, rows)


def _without(own: Changes, extra: Changes) -> Changes:
    """The fields the object shows already as stored: its own, but those that the call itself set."""
    if extra.only_events:
        return own
    return replace(
        own,
        metadata={key: text for key, text in own.metadata.items() if key not in extra.metadata},
        language=None if extra.language else own.language,
        graph=own.graph if extra.graph is None else None,
    )


def _changed_graph(stored: str | None, state: Any) -> str | None:
    """The state's JSON text if it differs from the stored one, ``""`` if it is gone, None if it is the same."""
    if state is None:
        return None if stored is None else ""
    text = convert.json_text(state, field="graph_state")
    same = stored is not None and (text == stored or text == canonical_json(json.loads(stored)))
    return None if same else text
