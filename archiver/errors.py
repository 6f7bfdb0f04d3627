"""Every error sessionlake raises, drawn as a tree of what the caller does next.

::

    SessionLakeError
    ├─ InputError              fix the call: bad id, bad file, unknown table
    │   ├─ UnknownSessionError     (also a KeyError)
    │   └─ InvalidFeedbackError    (also a ValueError)
    ├─ SettingsError           fix the configuration
    ├─ StoreBusyError          try again
    ├─ SessionConflictError    reload the session
    ├─ StorageError            look at the storage; source rows are untouched
    │   ├─ ObjectNotFoundError     the named object is not there
    │   └─ OutcomeUnknownError     nobody knows yet whether the write landed: ask again
    ├─ ConflictError           two writers claim one name with different bytes: stop, a person decides
    ├─ TooManyRejectsError     look at the rejected records; what was imported before stays
    └─ CorruptDataError        digest or format mismatch: names the object; nothing is deleted
"""

from __future__ import annotations

from typing import ClassVar


class SessionLakeError(Exception):
    """Base of all errors: what happened, to which key, and what to do about it.

    Attributes:
        kind: Stable machine-readable code of the class.
        operation: What was being done, as a verb: ``append``, ``push``, ``compact``.
        key: The id, object key, setting or file that the operation was about.
        hint: What the caller can do next.
    """

    kind: ClassVar[str] = "sessionlake"

    def __init__(self, message: str, *, operation: str = "", key: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.operation = operation
        self.key = key
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.operation} {self.key}".strip()
        text = f"{where}: {self.message}" if where else self.message
        return f"{text} ({self.hint})" if self.hint else text

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.message, self.operation, self.key, self.hint))


def _rebuild(cls: type[SessionLakeError], message: str, operation: str, key: str, hint: str) -> SessionLakeError:
    return cls(message, operation=operation, key=key, hint=hint)


class InputError(SessionLakeError):
    """The call or its data is wrong; the same call will fail again."""

    kind = "input"


class UnknownSessionError(InputError, KeyError):
    """The session id was never seen here, or its session was closed."""

    kind = "unknown_session"


class InvalidFeedbackError(InputError, ValueError):
    """A verdict other than correct, incorrect or partial."""

    kind = "invalid_feedback"


class SettingsError(SessionLakeError):
    """A setting has a wrong name or value."""

    kind = "settings"


class StoreBusyError(SessionLakeError):
    """The hot store stayed locked by others until this call's deadline; nothing was written."""

    kind = "store_busy"


class SessionConflictError(SessionLakeError):
    """Another holder changed the session in a way this change cannot be merged with."""

    kind = "session_conflict"


class StorageError(SessionLakeError):
    """The disk or the object storage refused or cannot be reached; source rows are untouched."""

    kind = "storage"


class ObjectNotFoundError(StorageError):
    """The named object does not exist."""

    kind = "object_not_found"


class OutcomeUnknownError(StorageError):
    """A write got no answer: it may have landed. Ask for the object before trying again."""

    kind = "outcome_unknown"


class UnsuitableStorageError(StorageError):
    """The storage does not keep a promise that the operation needs: another storage, not another try."""

    kind = "unsuitable_storage"


class ConflictError(SessionLakeError):
    """Two writers claim one name with different content; nothing was overwritten."""

    kind = "conflict"


class TooManyRejectsError(SessionLakeError):
    """More records were rejected than the caller permits; the batch stopped there."""

    kind = "too_many_rejects"


class CorruptDataError(SessionLakeError):
    """Stored bytes do not match their digest or format; nothing was deleted."""

    kind = "corrupt_data"
