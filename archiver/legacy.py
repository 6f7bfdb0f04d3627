"""Sessions in the JSON forms of the single-file session manager, as records: pure, lossless, strict about identity.

Two forms are read. The *live* form is what ``Session.to_dict()`` wrote; the *archive* form is what its
``archive/session_{id}_{date}.json`` files hold: no ``updated_at``, no ``metadata``.
Fields unknown to both are kept in ``SessionRecord.extra``. A record that cannot be kept whole is
refused with a rule name; nothing is guessed and nothing is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, tzinfo
from typing import Any, Final

from archiver.errors import InputError
from archiver.events import (
    FeedbackCounts,
    Interaction,
    Message,
    SessionRecord,
    canonical_json,
    check_id,
    check_text,
    parse_time,
    session_uid,
)

_TOP: Final = frozenset(
    {
        "session_id", "created_at", "updated_at", "language", "chat_history", "interactions",
        "graph_state", "metadata", "feedback_summary", "user_id",
    }
)  # fmt: skip
_MESSAGE: Final = frozenset({"role", "content", "timestamp", "language"})
_INTERACTION: Final = frozenset({"timestamp", "action_type", "node_id", "content", "feedback", "metadata"})


class RejectedRecordError(InputError):
    """A record that cannot be archived: ``rule`` names the rule it broke, the message says where and why."""

    kind = "rejected_record"

    def __init__(self, rule: str, message: str) -> None:
        super().__init__(message, operation="import")
        self.rule = rule

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.rule, self.message))


def parse_json(text: str | bytes) -> Any:
    """JSON text as a value; RejectedRecordError ``not_json`` says where it breaks."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise RejectedRecordError("not_json", f"not JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def is_archive_form(data: Mapping[str, Any]) -> bool:
    """True for records of the original's archive directory, which lack metadata and updated_at."""
    return "updated_at" not in data and "metadata" not in data


def parse_record(data: Any, *, assume_tz: tzinfo = UTC) -> SessionRecord:
    """One decoded JSON object of either form as a record; RejectedRecordError if it cannot be kept whole."""
    if not isinstance(data, dict):
        raise RejectedRecordError("not_object", f"expected a JSON object, got {type(data).__name__}")
    return _Parser(data, assume_tz).record()


def identity(data: Any, *, assume_tz: tzinfo = UTC) -> str | None:
    """The session_uid a record will have, without reading the rest of it; None if it will be rejected."""
    try:
        us, _ = parse_time(data["created_at"], field="created_at", assume_tz=assume_tz)
        return session_uid(check_id(data["session_id"], field="session_id"), us)
    except (InputError, KeyError, TypeError):
        return None


class _Parser:
    """Reads one object, remembering whether a zone had to be assumed and which fields are unknown."""

    def __init__(self, data: dict[str, Any], assume_tz: tzinfo) -> None:
        self._data = data
        self._assume_tz = assume_tz
        self._tz_assumed = False
        self._extra: dict[str, Any] = {k: v for k, v in data.items() if k not in _TOP}

    def record(self) -> SessionRecord:
        data = self._data
        if "messages" in self._extra:
            raise RejectedRecordError(
                "reserved_field", "an unknown field is called messages; the conversation belongs into chat_history"
            )
        session_id = self._id(data.get("session_id"), "session_id")
        created_at_us = self._time(data.get("created_at"), "created_at", "bad_created_at")
        updated_at_us = None
        if data.get("updated_at") is not None:
            updated_at_us = self._time(data["updated_at"], "updated_at", "bad_updated_at")
        metadata = data.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise RejectedRecordError("bad_metadata", f"metadata must be an object, got {type(metadata).__name__}")
        messages = tuple(self._message(i, m, created_at_us) for i, m in self._items("chat_history"))
        interactions = tuple(self._interaction(i, x, created_at_us) for i, x in self._items("interactions"))
        graph = data.get("graph_state")
        reported = self._reported(data.get("feedback_summary"))
        return SessionRecord(
            session_id=session_id,
            created_at_us=created_at_us,
            updated_at_us=updated_at_us,
            user_id=self._user(data.get("user_id", metadata.get("user_id"))),
            language=self._text(data.get("language"), "language", "bad_language", optional=True),
            tz_assumed=self._tz_assumed,
            messages=messages,
            interactions=interactions,
            graph_state=None if graph is None else self._json(graph, "graph_state", "bad_graph_state"),
            metadata=self._json(metadata, "metadata", "bad_metadata"),
            extra=self._json(self._extra, "unknown fields", "bad_extra") if self._extra else None,
            reported=reported,
        )

    def _items(self, name: str) -> list[tuple[int, dict[str, Any]]]:
        items = self._data.get(name) or []
        rule = "bad_message" if name == "chat_history" else "bad_interaction"
        if not isinstance(items, list):
            raise RejectedRecordError(rule, f"{name} must be a list, got {type(items).__name__}")
        for i, item in enumerate(items):
            if not isinstance(item, dict):
                raise RejectedRecordError(rule, f"{name}[{i}] must be an object, got {type(item).__name__}")
        return list(enumerate(items))

    def _message(self, index: int, data: dict[str, Any], default_us: int) -> Message:
        where = f"chat_history[{index}]"
        self._keep_unknown("messages", index, data, _MESSAGE)
        return Message(
            role=str(self._text(data.get("role"), f"{where}.role", "bad_message")),
            content=self._text(data.get("content"), f"{where}.content", "bad_message", optional=True),
            created_at_us=self._event_time(data, where, default_us),
            language=self._text(data.get("language"), f"{where}.language", "bad_message", optional=True),
        )

    def _interaction(self, index: int, data: dict[str, Any], default_us: int) -> Interaction:
        where, rule = f"interactions[{index}]", "bad_interaction"
        self._keep_unknown("interactions", index, data, _INTERACTION)
        metadata = data.get("metadata") or {}
        if not isinstance(metadata, dict):
            raise RejectedRecordError(rule, f"{where}.metadata must be an object, got {type(metadata).__name__}")
        node_id = data.get("node_id")
        if isinstance(node_id, int) and not isinstance(node_id, bool):
            node_id = str(node_id)
        return Interaction(
            created_at_us=self._event_time(data, where, default_us),
            action_type=str(self._text(data.get("action_type"), f"{where}.action_type", rule)),
            node_id=self._text(node_id, f"{where}.node_id", rule, optional=True),
            content=self._text(data.get("content"), f"{where}.content", rule, optional=True),
            feedback=self._text(data.get("feedback"), f"{where}.feedback", rule, optional=True),
            metadata=self._json(metadata, f"{where}.metadata", rule),
        )

    def _keep_unknown(self, group: str, index: int, data: dict[str, Any], known: frozenset[str]) -> None:
        unknown = {k: v for k, v in data.items() if k not in known}
        if unknown:
            self._extra.setdefault(group, {})[str(index)] = unknown

    def _reported(self, counts: Any) -> FeedbackCounts | None:
        """The three counts; anything else the source reported stays in extra, word for word."""
        known = isinstance(counts, dict) and set(counts) == set(FeedbackCounts._fields)
        if known and all(type(v) is int and abs(v) < 2**63 for v in counts.values()):
            return FeedbackCounts(**counts)
        if counts is not None:
            self._extra["feedback_summary"] = counts
        return None

    def _event_time(self, data: dict[str, Any], where: str, default_us: int) -> int:
        if data.get("timestamp") is None:
            return default_us
        return self._time(data["timestamp"], f"{where}.timestamp", "bad_timestamp")

    def _time(self, value: object, field: str, rule: str) -> int:
        if value is None:
            raise RejectedRecordError(rule, f"{field} is missing")
        try:
            us, assumed = parse_time(value, field=field, assume_tz=self._assume_tz)
        except InputError as error:
            raise RejectedRecordError(rule, str(error)) from error
        self._tz_assumed |= assumed
        return us

    def _user(self, value: object) -> str | None:
        if value is None or value == "":
            return None
        return self._id(str(value) if type(value) is int else value, "user_id")

    def _id(self, value: object, field: str) -> str:
        try:
            return check_id(value, field=field)
        except InputError as error:
            raise RejectedRecordError(f"bad_{field}", error.message) from error

    def _text(self, value: object, field: str, rule: str, *, optional: bool = False) -> str | None:
        if value is None and optional:
            return None
        try:
            return check_text(value, field=field)
        except InputError as error:
            raise RejectedRecordError("lone_surrogate" if isinstance(value, str) else rule, str(error)) from error

    def _json(self, value: object, field: str, rule: str) -> str:
        try:
            text = canonical_json(value)
        except InputError as error:
            raise RejectedRecordError(rule, f"{field}: {error.message}") from error
        return str(self._text(text, field, rule))
