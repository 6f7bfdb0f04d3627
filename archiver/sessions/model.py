"""ChatMessage, UserInteraction and Session: plain mutable values, with the names of the original module.

Change them as you like and then call ``SessionManager.save_session``. Objects that came from a
manager note cheaply that something was touched, so that a save compares only then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, Self, SupportsIndex, TypeVar

from archiver.errors import InputError
from archiver.events import VERDICTS, check_verdict, format_time

TITLE_CHARS: Final = 35

_T = TypeVar("_T")


def utc_now() -> str:
    """The present time as ISO 8601 text with its zone."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


class Watch:
    """What may have been changed in place in one session since its last save.

    Attributes:
        touched: An attribute of a stored event was set, or a list was changed other than by appending.
        opened: Interactions whose metadata somebody may hold.
    """

    __slots__ = ("opened", "touched")

    def __init__(self) -> None:
        self.touched = False
        self.opened: list[UserInteraction] = []


class _Stored:
    """What an object that stands for a stored row keeps beside its fields, outside of ``__dict__``.

    Fields that are costly to make out of the row are left out at first and made on first access:
    what nobody has seen, nobody has changed. Copies and pickles are plain values.
    """

    __slots__ = ("_text", "_us", "_watch")

    _text: str | None
    _us: int
    _watch: Watch

    def __getstate__(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self)}  # type: ignore[arg-type]  # subclasses are dataclasses

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


class _Event(_Stored):
    """Reports to the watch of its session that an attribute was set."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)
        watch = getattr(self, "_watch", None)
        if watch is not None:
            watch.touched = True

    def __getattr__(self, name: str) -> Any:
        if name != "timestamp":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.__dict__["timestamp"] = made = format_time(self._us)
        return made

    @property
    def stored_us(self) -> int:
        """The time of the stored row."""
        return self._us


@dataclass
class ChatMessage(_Event):
    """One turn of a conversation; ``timestamp`` is ISO 8601 text."""

    role: str
    content: str | None
    timestamp: str = field(default_factory=utc_now)
    language: str | None = "en"

    def to_dict(self) -> dict[str, Any]:
        """The message as a plain dict."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; InputError names fields that are unknown or missing."""
        return _built(cls, data)


@dataclass
class UserInteraction(_Event):
    """One act of a user: feedback, prune, inject, resurrect or another action on a node."""

    timestamp: str
    action_type: str
    node_id: str | None = None
    content: str | None = None
    feedback: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        if name != "metadata":
            return super().__getattr__(name)
        self.__dict__["metadata"] = made = json.loads(self._text or "{}")
        self._watch.opened.append(self)
        return made

    @property
    def stored_text(self) -> str | None:
        """The metadata of the stored row as JSON text; None if the object stands for no row."""
        return getattr(self, "_text", None)

    def to_dict(self) -> dict[str, Any]:
        """The interaction as a plain dict."""
        return {
            "timestamp": self.timestamp,
            "action_type": self.action_type,
            "node_id": self.node_id,
            "content": self.content,
            "feedback": self.feedback,
            "metadata": self.metadata,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; InputError names fields that are unknown or missing."""
        return _built(cls, data)


def _built(cls: type[_T], data: Mapping[str, Any]) -> _T:
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]  # both callers are dataclasses
    if unknown := sorted(set(data) - known):
        raise InputError(
            f"unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}", operation="from_dict"
        )
    try:
        return cls(**data)
    except TypeError as error:
        raise InputError(str(error), operation="from_dict") from error


class EventList(list[Any]):
    """A list of stored events that notes every change but appending; copies of it are plain lists."""

    __slots__ = ("_watch",)

    def __init__(self, items: Iterable[Any], watch: Watch) -> None:
        super().__init__(items)
        self._watch = watch

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return (list, (list(self),))


def _noting(name: str) -> Callable[..., Any]:
    plain = getattr(list, name)

    def method(self: EventList, *arguments: Any, **options: Any) -> Any:
        self._watch.touched = True
        return plain(self, *arguments, **options)

    method.__name__ = name
    return method


for _name in ("__setitem__", "__delitem__", "__imul__", "insert", "pop", "remove", "clear", "reverse", "sort"):
    setattr(EventList, _name, _noting(_name))


@dataclass
class Session(_Stored):
    """A conversation with its interactions and its reasoning graph."""

    session_id: str
    created_at: str = field(default_factory=utc_now)
    updated_at: str = field(default_factory=utc_now)
    language: str = "en"
    chat_history: list[ChatMessage] = field(default_factory=list)
    interactions: list[UserInteraction] = field(default_factory=list)
    graph_state: dict[str, Any] | None = field(default_factory=lambda: None)
    metadata: dict[str, Any] = field(default_factory=dict)
    feedback_count: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VERDICTS, 0))
    user_id: str | None = None

    def __getattr__(self, name: str) -> Any:
        if name != "graph_state":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.__dict__["graph_state"] = made = None if self._text is None else json.loads(self._text)
        return made

    def add_message(self, role: str, content: str, language: str = "en") -> None:
        """Append a turn; stored at the next save."""
        self.chat_history.append(ChatMessage(role=role, content=content, language=language))
        self.updated_at = utc_now()

    def add_interaction(
        self,
        action_type: str,
        node_id: str | None = None,
        content: str | None = None,
        feedback: str | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Append an interaction; stored at the next save. InvalidFeedbackError for an unknown verdict."""
        verdict = check_verdict(feedback) if feedback else None
        self.interactions.append(
            UserInteraction(
                timestamp=utc_now(), action_type=action_type, node_id=node_id,
                content=content, feedback=verdict, metadata=metadata or {},
            )
        )  # fmt: skip
        self.updated_at = utc_now()
        if verdict:
            self.feedback_count[verdict] += 1

    def get_title(self, max_length: int = TITLE_CHARS) -> str:
        """The start of the first user message."""
        for message in self.chat_history:
            if message.role == "user":
                return short_title(message.content or "", max_length)
        return "New Chat"

    def to_dict(self) -> dict[str, Any]:
        """The session in the original's file form."""
        user = {} if self.user_id is None else {"user_id": self.user_id}
        return {
            "session_id": self.session_id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "language": self.language,
            "chat_history": [m.to_dict() for m in self.chat_history],
            "interactions": [i.to_dict() for i in self.interactions],
            "graph_state": self.graph_state,
            "metadata": self.metadata,
            "feedback_summary": self.feedback_count,
            **user,
        }

    def export_rlhf_data(self) -> dict[str, Any]:
        """The session in the original's archive form."""
        return {
            "session_id": self.session_id,
            "created_at": self.created_at,
            "language": self.language,
            "interactions": [i.to_dict() for i in self.interactions],
            "feedback_summary": self.feedback_count,
            "chat_history": [m.to_dict() for m in self.chat_history],
            "graph_state": self.graph_state,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`."""
        if "session_id" not in data:
            raise InputError("session_id is missing", operation="from_dict")
        return cls(
            session_id=data["session_id"],
            created_at=data.get("created_at") or utc_now(),
            updated_at=data.get("updated_at") or utc_now(),
            language=data.get("language", "en"),
            chat_history=[ChatMessage.from_dict(m) for m in data.get("chat_history", [])],
            interactions=[UserInteraction.from_dict(i) for i in data.get("interactions", [])],
            graph_state=data.get("graph_state"),
            metadata=data.get("metadata", {}),
            feedback_count=data.get("feedback_summary", dict.fromkeys(VERDICTS, 0)),
            user_id=data.get("user_id"),
        )


def short_title(text: str, max_length: int = TITLE_CHARS) -> str:
    """A title of at most this many characters, and an ellipsis where text was left out."""
    return text[:max_length] + "..." if len(text) > max_length else text
