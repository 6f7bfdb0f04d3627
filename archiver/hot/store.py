"""HotStore: the live store of one host, as the rest of the program sees it."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar, get_args

from archiver.errors import InputError, StorageError
from archiver.events import SessionRecord
from archiver.hot import lifecycle
from archiver.hot.claims import Claims
from archiver.hot.database import Database
from archiver.hot.rows import SessionRow
from archiver.hot.spool import Spool
from archiver.settings import Durability, HotSettings

_LEVELS: Final = get_args(Durability)

T = TypeVar("T")


class HotStore:
    """The store in one directory; opens it at once, and again by itself in a forked child."""

    def __init__(
        self, directory: Path | str, *, durability: Durability = "interval", busy_timeout_seconds: float = 30
    ) -> None:
        self.directory = Path(directory)
        self.durability: Durability = durability
        self._timeout_seconds = busy_timeout_seconds
        self._closed = False
        self._of_parents: list[Database] = []
        self._opening = threading.Lock()
        self._database: Database | None = None
        self._open_database()
        os.register_at_fork(after_in_child=_forgetting(weakref.ref(self)))

    @classmethod
    def from_settings(cls, settings: HotSettings) -> Self:
        """Open the store that the section ``[hot]`` names."""
        return cls(settings.path, durability=settings.durability, busy_timeout_seconds=settings.busy_timeout_seconds)

    def level(self, durability: Durability | None) -> Durability:
        """The durability of a call: as asked, else the store's."""
        level = durability or self.durability
        if level not in _LEVELS:
            raise InputError(f"durability is {level!r}, permitted are {', '.join(_LEVELS)}", operation="write")
        return level

    def run(self, work: Callable[[sqlite3.Connection], T], *, durability: Durability | None = None) -> T:
        """Run ``work`` in a write transaction (grouped with other callers') and return its result when durable.

        ``work`` may run in another thread, must not block, and is undone as a whole if it raises.
        """
        return (self._database or self._open_database()).run(work, self.level(durability))

    def transaction(self, *, durability: Durability | None = None) -> AbstractContextManager[sqlite3.Connection]:
        """A write transaction of its own: BEGIN IMMEDIATE behind the gate, COMMIT at the end, then durable."""
        return (self._database or self._open_database()).transaction(self.level(durability))

    def bulk_transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        """One of many write transactions in a row: it lets others go first, and survives the process only."""
        return (self._database or self._open_database()).bulk_transaction()

    def reader(self) -> AbstractContextManager[sqlite3.Connection]:
        """A read transaction on one of three pooled connections. Keep it short: it holds the WAL back."""
        return (self._database or self._open_database()).reader()

    def insert_record(
        self,
        record: SessionRecord,
        *,
        last_activity_us: int,
        restored_us: int | None = None,
        archived_sha256: str | None = None,
        durability: Durability | None = None,
    ) -> SessionRow:
        """Insert a whole session as live (import, adoption, restore); a uid that is here already stays as it is.

        With ``restored_us`` its events count as archived in ``record.revision`` and it is on loan
        until somebody continues it. SessionConflictError if another conversation has the id live.
        """
        return self.run(
            lambda connection: lifecycle.insert_record(
                connection, record, last_activity_us=last_activity_us,
                restored_us=restored_us, archived_sha256=archived_sha256,
            ),
            durability=durability,
        )  # fmt: skip

    @property
    def claims(self) -> Claims:
        """The archive protocol's transactions."""
        return Claims(self)

    @property
    def spool(self) -> Spool:
        """Sealed segments on their way to the archive."""
        return Spool(self.directory / "spool")

    def holds(self, session_id: str, created_us: int) -> bool:
        """Whether this conversation has rows here, live or closed."""
        with self.reader() as connection:
            return lifecycle.sid_of(connection, session_id, created_us) is not None

    @property
    def archiver_id(self) -> str:
        """The random id under which this store's sessions are archived."""
        with self.reader() as connection:
            return str(connection.execute("SELECT value FROM store WHERE name = 'archiver_id'").fetchone()[0])

    def settle(self, durability: Durability | None = None) -> None:
        """Give everything committed so far this durability: lets a caller commit under a lock and wait outside."""
        (self._database or self._open_database()).settle(self.level(durability))

    def flush(self) -> None:
        """Return when everything committed so far survives power loss."""
        self.settle("power")

    def checkpoint(self) -> None:
        """Move the WAL into the database and empty it, so that no deleted text stays in either file."""
        (self._database or self._open_database()).checkpoint()

    def close(self) -> None:
        """Sync and close; idempotent."""
        with self._opening:
            self._closed = True
            database, self._database = self._database, None
        if database is not None:
            database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_database(self) -> Database:
        with self._opening:
            if self._closed:
                raise StorageError("is closed", operation="use store", key=str(self.directory), hint="open it again")
            if self._database is None:
                self._database = Database(self.directory, busy_timeout_seconds=self._timeout_seconds)
            return self._database

    def _after_fork(self) -> None:
        self._opening = threading.Lock()
        database, self._database = self._database, None
        if database is not None:
            database.abandon()
            self._of_parents.append(database)  # never closed here: that could checkpoint under the parent


def _forgetting(reference: weakref.ref[HotStore]) -> Callable[[], None]:
    def forget() -> None:
        store = reference()
        if store is not None:
            store._after_fork()

    return forget
