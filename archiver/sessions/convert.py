"""Between stored rows and the objects of the model, in both directions, checked where they enter."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import tzinfo
from typing import Any, Final

from archiver.errors import InputError
from archiver.events import (
    GRAPH_SNAPSHOT,
    VERDICTS,
    FeedbackCounts,
    SessionRecord,
    canonical_json,
    check_text,
    check_verdict,
    format_time,
    parse_time,
)
from archiver.hot.rows import INTERACTION, MESSAGE, NewEvent, StoredEvent
from archiver.sessions.model import ChatMessage, Session, UserInteraction, Watch

_MAX_TAG_CHARS: Final = 512
_set = object.__setattr__
_new = object.__new__


def message_event(
    role: object, content: object, language: object, created_us: int | None, client_id: str | None = None
) -> NewEvent:
    """A checked message; content may be absent, as in a turn that only calls a tool."""
    text = None if content is None else check_text(content, field="content")
    spoken = None if language is None else check_text(language, field="language")
    return NewEvent(MESSAGE, created_us, _tag(role, "role"), text, None, None, spoken, None, client_id)


def interaction_event(
    action_type: object, node_id: object, content: object, feedback: object, metadata: str, created_us: int | None
) -> NewEvent:
    """A checked interaction; ``metadata`` is JSON text."""
    node = None if node_id is None else check_text(_node_text(node_id), field="node_id")
    text = None if content is None else check_text(content, field="content")
    verdict = None if feedback is None or feedback == "" else check_verdict(feedback)
    return NewEvent(INTERACTION, created_us, _tag(action_type, "action_type"), text, node, verdict, None, metadata)


def _node_text(node_id: object) -> object:
    """Integer ids, as graph libraries make them, are the same as their text."""
    return str(node_id) if type(node_id) is int else node_id


def _tag(value: object, field: str) -> str:
    text = check_text(value, field=field)
    if not 1 <= len(text) <= _MAX_TAG_CHARS:
        raise InputError(f"{field} has {len(text)} characters, permitted are 1 to {_MAX_TAG_CHARS}: {text!r:.40}")
    return text


def json_text(value: Any, *, field: str) -> str:
    """A value as the JSON text that is stored; InputError names the field if JSON or UTF-8 cannot hold it."""
    try:
        return check_text(canonical_json(value), field=field)
    except InputError as error:
        raise InputError(f"{field}: {error.message}", hint=error.hint) from error


def metadata_text(metadata: object, *, field: str = "metadata") -> str:
    """Metadata as JSON text; it must be a mapping."""
    if not isinstance(metadata, Mapping):
        raise InputError(f"{field} must be a mapping, got {type(metadata).__name__} {metadata!r:.40}")
    return json_text(metadata, field=field) if metadata else "{}"


def changed_keys(stored: str, metadata: object) -> dict[str, str | None]:
    """Top-level keys whose values differ from the stored object: JSON text, None for a key that is gone."""
    text = metadata_text(metadata)
    if text == stored:
        return {}
    before, after = json.loads(stored), json.loads(text)
    gone: dict[str, str | None] = dict.fromkeys(before.keys() - after.keys())
    texts = {key: canonical_json(value) for key, value in after.items()}
    return gone | {k: t for k, t in texts.items() if k not in before or canonical_json(before[k]) != t}


def message(row: StoredEvent, watch: Watch) -> ChatMessage:
    """A stored message as an object that reports changes to ``watch``; its timestamp is written out when asked for."""
    made = _new(ChatMessage)
    _set(made, "__dict__", {"role": row[3], "content": row[4], "language": row[7]})
    _set(made, "_us", row[2])
    _set(made, "_watch", watch)
    return made


def interaction(row: StoredEvent, watch: Watch) -> UserInteraction:
    """A stored interaction as an object that reports changes to ``watch``; its metadata is parsed when asked for."""
    made = _new(UserInteraction)
    values = {"action_type": row.tag, "node_id": row.node_id, "content": row.content, "feedback": row.feedback}
    _set(made, "__dict__", values)
    _set(made, "_us", row.created_us)
    _set(made, "_text", row.metadata or "{}")
    _set(made, "_watch", watch)
    return made


def bind(item: ChatMessage | UserInteraction, row: StoredEvent, watch: Watch) -> None:
    """From now on the object stands for this row and reports changes."""
    _set(item, "_us", row.created_us)
    if isinstance(item, UserInteraction):
        _set(item, "_text", row.metadata or "{}")
        if "metadata" in item.__dict__ and getattr(item, "_watch", None) is not watch:
            watch.opened.append(item)
    _set(item, "_watch", watch)


def set_graph_text(session: Session, text: str | None) -> None:
    """The graph state to be parsed when somebody asks for it."""
    session.__dict__.pop("graph_state", None)
    _set(session, "_text", text)


def turn_values(turn: ChatMessage, assume_tz: tzinfo) -> tuple[Any, ...]:
    """A message in the form of ``StoredEvent[2:9]``, unchecked: what is compared to find out whether it changed."""
    return (_when(turn, assume_tz)[0], turn.role, turn.content, None, None, turn.language, None)


def act_values(act: UserInteraction, assume_tz: tzinfo) -> tuple[Any, ...]:
    """An interaction in the form of ``StoredEvent[2:9]``, unchecked; unread metadata is not parsed for it."""
    unchanged = "metadata" not in act.__dict__ or not metadata_differs(act)
    text = act.stored_text if unchanged else metadata_text(act.metadata)
    node, verdict = _node_text(act.node_id), act.feedback or None
    return (_when(act, assume_tz)[0], act.action_type, act.content, node, verdict, None, text)


def metadata_differs(act: UserInteraction) -> bool:
    """Whether the metadata somebody asked for is no longer what is stored."""
    text, stored = metadata_text(act.metadata), act.stored_text
    return stored is None or (text != stored and text != canonical_json(json.loads(stored)))


def event_of(item: Any, kind: int, assume_tz: tzinfo) -> tuple[NewEvent, bool]:
    """An object as a checked event, and whether its timestamp came without a zone."""
    wanted = ChatMessage if kind == MESSAGE else UserInteraction
    if not isinstance(item, wanted):
        raise InputError(f"expected a {wanted.__name__}, got {type(item).__name__} {item!r:.60}", operation="save")
    created_us, assumed = _when(item, assume_tz)
    if isinstance(item, ChatMessage):
        return message_event(item.role, item.content, item.language, created_us), assumed
    text = metadata_text(item.metadata)
    event = interaction_event(item.action_type, item.node_id, item.content, item.feedback, text, created_us)
    return event, assumed


def _when(item: ChatMessage | UserInteraction, assume_tz: tzinfo) -> tuple[int, bool]:
    if "timestamp" not in item.__dict__:
        return item.stored_us, False
    return parse_time(item.timestamp, field="timestamp", assume_tz=assume_tz)


def language_text(language: object) -> str:
    """A language as the application names it."""
    text = check_text(language, field="language")
    if not text:
        raise InputError("language is empty", hint="use a code such as en, de or zh-Hant")
    return text


def plain_message(row: StoredEvent) -> ChatMessage:
    """A stored message as an object of its own."""
    return ChatMessage(row.tag, row.content, format_time(row.created_us), row.language)


def session_of(record: SessionRecord) -> Session:
    """An archived record as an object of its own."""
    counts = FeedbackCounts(*(sum(i.feedback == v for i in record.interactions) for v in VERDICTS))
    updated_us = record.created_at_us if record.updated_at_us is None else record.updated_at_us
    turns = [ChatMessage(m.role, m.content, format_time(m.created_at_us), m.language) for m in record.messages]
    acts = [
        UserInteraction(
            format_time(i.created_at_us), i.action_type, i.node_id, i.content, i.feedback, json.loads(i.metadata)
        )
        for i in record.interactions
        if i.action_type != GRAPH_SNAPSHOT
    ]
    return Session(
        session_id=record.session_id,
        created_at=format_time(record.created_at_us),
        updated_at=format_time(updated_us),
        language=record.language,  # type: ignore[arg-type]  # null where an import did not record it
        chat_history=turns,
        interactions=acts,
        graph_state=None if record.graph_state is None else json.loads(record.graph_state),
        metadata=json.loads(record.metadata),
        feedback_count=counts._asdict(),
        user_id=record.user_id,
    )
