"""SQLite's errors as ours: what happened, to which file, and what to do."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from archiver.errors import CorruptDataError, InputError, SessionLakeError, StorageError, StoreBusyError


@contextlib.contextmanager
def translated(operation: str, path: Path) -> Iterator[None]:
    """Raise SQLite's errors of this block as ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error, operation, path) from error


_Kind = tuple[type[SessionLakeError], str, str]
_KINDS: Final[dict[int, _Kind]] = {
    sqlite3.SQLITE_BUSY: (StoreBusyError, "another program holds the database", "try again"),
    sqlite3.SQLITE_LOCKED: (StoreBusyError, "another program holds the database", "try again"),
    sqlite3.SQLITE_CORRUPT: (
        CorruptDataError,
        "damaged",
        "stop the writers, copy the directory, run sessionlake doctor",
    ),
    sqlite3.SQLITE_NOTADB: (CorruptDataError, "no SQLite database", "stop the writers, look what the file is"),
    sqlite3.SQLITE_FULL: (
        StorageError,
        "the disk is full, nothing of this call was written",
        "free space, then try again",
    ),
    sqlite3.SQLITE_TOOBIG: (InputError, "a value is larger than SQLite can hold", ""),
}
_OTHER: Final[_Kind] = (StorageError, "SQLite failed", "check the disk and the permissions of the directory")


def translate(error: BaseException, operation: str, path: Path) -> BaseException:
    """SQLite's errors as ours; anything else as it is."""
    if not isinstance(error, sqlite3.Error):
        return error
    kind, message, hint = _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, _OTHER)
    found = kind(f"{message}: {error}", operation=operation, key=str(path), hint=hint)
    found.__cause__ = error
    return found
