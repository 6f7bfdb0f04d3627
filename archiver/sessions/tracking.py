"""One live Session object and the stored rows it stands for: what it changed, and what others added."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Any, NamedTuple

from archiver.errors import InputError
from archiver.events import VERDICTS, canonical_json, check_id, check_text, format_time, parse_time
from archiver.hot.lifecycle import merged_by_time
from archiver.hot.live import Written
from archiver.hot.rows import INTERACTION, MESSAGE, Base, Changes, NewEvent, SessionRow, Stored, StoredEvent
from archiver.sessions import convert
from archiver.sessions.model import EventList, Session, Watch


class _Known(NamedTuple):
    """A stored event as its object showed it when last compared."""

    seq: int
    values: tuple[Any, ...]


@dataclass(slots=True)
class Pending:
    """What a save is about to write, and the values it was collected from."""

    changes: Changes = field(default_factory=Changes)
    turns: list[tuple[Any, ...]] = field(default_factory=list)
    acts: list[tuple[Any, ...]] = field(default_factory=list)
    edited: dict[int, tuple[Any, ...]] = field(default_factory=dict)


class Tracked:
    """A Session object, and the state of the store it reflects. Use it under its lock."""

    def __init__(self, stored: Stored, assume_tz: tzinfo) -> None:
        self.lock = threading.RLock()
        self._assume_tz = assume_tz
        self._watch = Watch()
        self._turns: list[_Known] = []
        self._acts: list[_Known] = []
        self._history = EventList((), self._watch)
        self._interactions = EventList((), self._watch)
        self.session = session = Session.__new__(Session)
        session.session_id = self._session_id = stored.row.session_id
        session.created_at = self._created_at = format_time(stored.row.created_us)
        session.chat_history = self._history
        session.interactions = self._interactions
        session.metadata = {}
        session.feedback_count = {}
        self._metadata = "{}"
        self._language: str | None = None
        self._graph: str | None = None
        self._show(stored.row, stored.graph, Changes())
        self._absorb(stored.events)

    @property
    def session_uid(self) -> str:
        """Identity of the conversation the object stands for."""
        return self._session_uid

    def refresh(self, stored: Stored, *, reloaded: bool) -> None:
        """Take over what others committed; what this holder changed and has not saved stays."""
        pending = self.collect()
        if pending.changes.rewrites:
            self._watch.touched = True
            return  # the edit and their commit cannot both stand: the next save says so
        self._take_over(stored, pending.changes, reloaded=reloaded)

    def reattach(self, stored: Stored) -> None:
        """The session was archived and restored: its rows are new, this object's unsaved changes still count."""
        self._forget_events()
        self._show(stored.row, stored.graph, self.collect().changes)
        self._absorb(stored.events)

    # ---------------------------------------------------------------- from the store to the object

    def _take_over(self, stored: Stored, mine: Changes, *, reloaded: bool) -> None:
        if reloaded:
            self._forget_events()
        self._absorb(stored.events)
        self._show(stored.row, stored.graph, mine)

    def _show(self, row: SessionRow, graph: str | None, mine: Changes) -> None:
        """Take over everything but events; the fields in ``mine`` stay as the holder left them."""
        session = self.session
        self.sid = row.sid
        self._session_uid = row.session_uid
        self.base = Base(row.next_seq, row.version, row.rewrites)
        self.last_activity_us = row.last_activity_us
        session.updated_at = format_time(row.created_us if row.updated_us is None else row.updated_us)
        session.feedback_count.update(zip(VERDICTS, (row.fb_correct, row.fb_incorrect, row.fb_partial), strict=True))
        session.user_id = self._user_id = row.user_id
        if mine.language is None:
            session.language = row.language  # type: ignore[assignment]  # null where an import did not record it
        self._language = row.language
        self._show_metadata(row.metadata, mine)
        if mine.graph is None and (graph != self._graph or "graph_state" not in session.__dict__):
            session.__dict__.pop("graph_state", None)
            object.__setattr__(session, "_text", graph)
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

    def _absorb(self, events: Sequence[StoredEvent]) -> None:
        """Put stored events behind those already known and before those not yet saved."""
        turns = [event for event in events if event.kind == MESSAGE]
        acts = [event for event in events if event.kind == INTERACTION]
        messages = [convert.message(event, self._watch) for event in turns]
        interactions = [convert.interaction(event, self._watch) for event in acts]
        _insert(self.session.chat_history, len(self._turns), messages)
        _insert(self.session.interactions, len(self._acts), interactions)
        self._turns += [_Known(e.seq, convert.turn_values(m)) for e, m in zip(turns, messages, strict=True)]
        self._acts += [_Known(e.seq, convert.act_values(i)) for e, i in zip(acts, interactions, strict=True)]

    def _forget_events(self) -> None:
        list.__delitem__(self.session.chat_history, slice(0, len(self._turns)))
        list.__delitem__(self.session.interactions, slice(0, len(self._acts)))
        self._turns.clear()
        self._acts.clear()
        self._watch.opened.clear()

    # ---------------------------------------------------------------- from the object to the store

    def collect(self) -> Pending:
        """Everything the object holds that the store does not; raises InputError for what cannot be stored."""
        session = self.session
        if (session.session_id, session.created_at) != (self._session_id, self._created_at):
            raise InputError(
                "session_id and created_at are the identity of a session and cannot be changed",
                operation="save", key=self._session_id, hint="create another session",
            )  # fmt: skip
        touched, self._watch.touched = self._watch.touched, False
        try:
            pending = Pending()
            turns = self._collect_turns(pending, touched)
            acts = self._collect_acts(pending, touched)
            pending.changes.events.extend(merged_by_time(turns, acts))
            self._collect_fields(pending.changes)
        except BaseException:
            self._watch.touched |= touched
            raise
        return pending

    def has_changes(self) -> bool:
        """Whether a save would write anything of the object's own."""
        try:
            pending = self.collect()
        except InputError:
            return True
        self.uncollect(pending)
        return not pending.changes.empty

    def uncollect(self, pending: Pending) -> None:
        """The save failed: the next one must look again."""
        self._watch.touched |= pending.changes.rewrites

    def _collect_turns(self, pending: Pending, touched: bool) -> list[NewEvent]:
        history = self.session.chat_history
        if touched or history is not self._history:
            self._compare(history, self._turns, convert.turn_values, pending)
        new = history[len(self._turns) :]
        pending.turns = [convert.turn_values(message) for message in new]
        return [self._event(MESSAGE, values, pending.changes) for values in pending.turns]

    def _collect_acts(self, pending: Pending, touched: bool) -> list[NewEvent]:
        interactions = self.session.interactions
        opened = any(convert.act_values(act)[-1] != act._text for act in self._watch.opened)
        if touched or opened or interactions is not self._interactions:
            self._compare(interactions, self._acts, convert.act_values, pending)
        new = interactions[len(self._acts) :]
        pending.acts = [convert.act_values(interaction) for interaction in new]
        return [self._event(INTERACTION, values, pending.changes) for values in pending.acts]

    def _compare(self, items: Sequence[Any], known: list[_Known], values_of: Any, pending: Pending) -> None:
        changes = pending.changes
        kind = MESSAGE if known is self._turns else INTERACTION
        for stored, item in zip(known, items, strict=False):
            values = values_of(item)
            if values != stored.values:
                changes.edits[stored.seq] = self._event(kind, values, changes)
                pending.edited[stored.seq] = values
                if getattr(item, "_watch", None) is not self._watch:
                    changes.replaced.add(stored.seq)
        changes.removed += [stored.seq for stored in known[len(items) :]]

    def _event(self, kind: int, values: tuple[Any, ...], changes: Changes) -> NewEvent:
        timestamp, tag, content, *rest = values
        created_us, assumed = parse_time(timestamp, field="timestamp", assume_tz=self._assume_tz)
        changes.tz_assumed |= assumed
        if kind == MESSAGE:
            return convert.message_event(tag, content, rest[0], created_us)
        node_id, feedback, metadata = rest
        return convert.interaction_event(tag, node_id, content, feedback, metadata, created_us)

    def _collect_fields(self, changes: Changes) -> None:
        session = self.session
        changes.metadata = convert.changed_keys(self._metadata, session.metadata)
        if session.language != self._language:
            changes.language = check_text(session.language, field="language")
        if "graph_state" in session.__dict__:
            changes.graph = _changed_graph(self._graph, session.graph_state)
        if session.user_id != self._user_id:
            changes.user_id = check_id(session.user_id, field="user_id")

    # ---------------------------------------------------------------- after a commit

    def saved(self, pending: Pending, extra: Changes, written: Written) -> None:
        """Note that ``pending`` is stored, and show what was stored beside it: others' events and ``extra``."""
        both = pending.changes.followed_by(extra)
        self._accept_edits(pending)
        graph = written.theirs.graph if both.graph is None else both.graph or None
        mine = _without(pending.changes, extra)
        self._take_over(Stored(written.row, written.theirs.events, graph), mine, reloaded=written.reloaded)
        rows = [
            StoredEvent(-1 if seq is None else seq, event.kind, created_us, *event[2:])
            for event, seq, created_us in zip(both.events, written.seqs, written.created_us, strict=True)
        ]
        n_own = len(pending.turns) + len(pending.acts)
        turns = [row.seq for row in rows[:n_own] if row.kind == MESSAGE]
        acts = [row.seq for row in rows[:n_own] if row.kind == INTERACTION]
        self._know(self._turns, self.session.chat_history, turns, pending.turns)
        self._know(self._acts, self.session.interactions, acts, pending.acts)
        self._absorb([row for row in rows[n_own:] if row.seq >= 0])

    def _accept_edits(self, pending: Pending) -> None:
        removed = set(pending.changes.removed)
        for known in (self._turns, self._acts):
            known[:] = [_Known(k.seq, pending.edited.get(k.seq, k.values)) for k in known if k.seq not in removed]
        if pending.edited:
            for known_act, act in zip(self._acts, self.session.interactions, strict=False):
                convert.note_metadata(act, known_act.values)

    def _know(self, known: list[_Known], items: list[Any], seqs: list[int], values: list[tuple[Any, ...]]) -> None:
        for item, seq, value in zip(items[len(known) :], seqs, values, strict=False):
            known.append(_Known(seq, value))
            convert.bind(item, value, self._watch)


def _without(mine: Changes, extra: Changes) -> Changes:
    """The fields the object has already as stored: its own, but those that the call itself set."""
    return replace(
        mine,
        metadata={key: text for key, text in mine.metadata.items() if key not in extra.metadata},
        language=None if extra.language else mine.language,
        graph=mine.graph if extra.graph is None else None,
    )


def _changed_graph(stored: str | None, state: Any) -> str | None:
    """The state's JSON text if it differs from the stored one, ``""`` if it is gone, None if it is the same."""
    if state is None:
        return None if stored is None else ""
    text = convert.json_text(state, field="graph_state")
    same = stored is not None and (text == stored or text == canonical_json(json.loads(stored)))
    return None if same else text


def _insert(items: list[Any], at: int, new: list[Any]) -> None:
    """Insert without telling the watch: these items are stored already."""
    list.__setitem__(items, slice(at, at), new)
