"""Connections and transactions of one ``hot.db`` in one process: the only way in.

Writers of a process queue up; whoever gets the lock commits for everybody who waits (group commit)
behind the gate that orders processes, and then each caller waits for its own durability outside of
both. One connection writes, a few read.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

from archiver.errors import SessionLakeError, StorageError, StoreBusyError
from archiver.hot import migrations, schema
from archiver.hot.durability import WalSync
from archiver.hot.gate import Gate, refuse_network_filesystem
from archiver.hot.sqlite_errors import translate, translated
from archiver.settings import Durability
from archiver.telemetry import fields

log = logging.getLogger(__name__)

READERS: Final = 3
_BATCH: Final = 64
_WAL_LIMIT_BYTES: Final = 32 * 1024 * 1024
_WAL_CHECK_COMMITS: Final = 512
_BULK_COMMITS_BETWEEN_MOVES: Final = 8

T = TypeVar("T")


class _Job(Generic[T]):
    """One caller's work in a group commit."""

    __slots__ = ("done", "error", "result", "ticket", "work")

    def __init__(self, work: Callable[[sqlite3.Connection], T]) -> None:
        self.work = work
        self.done = False
        self.ticket = 0
        self.result: T
        self.error: BaseException | None = None


class Database:
    """An open ``hot.db``.

    Nothing else in the process may open, hash or copy the file by path: POSIX locks die when any
    descriptor of it closes, and another process then deletes the WAL with committed rows in it.
    """

    def __init__(self, directory: Path, *, busy_timeout_seconds: float) -> None:
        self.path = directory / "hot.db"
        self._timeout_seconds = busy_timeout_seconds
        self._lock = threading.Lock()
        self._jobs: deque[_Job[Any]] = deque()
        self._moving = threading.Lock()
        self._reader_slots = threading.BoundedSemaphore(READERS)
        self._idle_readers: list[sqlite3.Connection] = []
        self._commits = self._bulk_commits = 0
        _create_directory(directory)
        refuse_network_filesystem(directory)
        self._sync = WalSync(directory / "hot.db-wal")
        self._gate = Gate(directory / "hot.lock")
        try:
            with self._behind_gate(), translated("open store", self.path):
                self._writer = self._connect()
                migrations.migrate(self._writer, key=str(self.path))
                self._sync.wait(self._sync.committed())
        except BaseException:
            self._gate.close()
            raise

    def run(self, work: Callable[[sqlite3.Connection], T], durability: Durability) -> T:
        """Run ``work`` in a write transaction, alone or with other callers', and return its result when durable.

        ``work`` may run in another thread, must not block, and is undone as a whole if it raises.
        """
        self._sync.check()
        if not self._jobs and self._lock.acquire(blocking=False):
            try:
                result, ticket = self._alone(work)
            finally:
                self._lock.release()
        else:
            result, ticket = self._with_others(work)
        self._make_durable(ticket, durability)
        return result

    @contextlib.contextmanager
    def transaction(self, durability: Durability) -> Iterator[sqlite3.Connection]:
        """A write transaction of its own: BEGIN IMMEDIATE behind the gate, COMMIT at the end, then durable."""
        self._sync.check()
        self._acquire_lock()
        try:
            with self._behind_gate():
                with translated("write", self.path), _transaction(self._writer):
                    yield self._writer
                ticket = self._sync.committed()
        finally:
            self._lock.release()
        self._make_durable(ticket, durability)

    @contextlib.contextmanager
    def bulk_transaction(self) -> Iterator[sqlite3.Connection]:
        """One of many write transactions in a row, each of a few milliseconds; it survives the process, not the power.

        Processes that wait go first, and nobody else pays for the pages it wrote: after every few of them
        this caller moves the WAL into the database while others write. One process at a time may do such
        work: its callers hold the spool's lock.
        """
        self._sync.check()
        snapshot: sqlite3.Connection | None = None
        self._acquire_lock()
        try:
            with self._behind_gate(patient=True), translated("write", self.path):
                with self._without_checkpoint(), _transaction(self._writer):
                    yield self._writer
                self._sync.committed()
                self._bulk_commits += 1
                if self._bulk_commits % _BULK_COMMITS_BETWEEN_MOVES == 0:
                    snapshot = self._snapshot()
        finally:
            self._lock.release()
        if snapshot is not None:
            self._move_wal(snapshot)

    @contextlib.contextmanager
    def reader(self) -> Iterator[sqlite3.Connection]:
        """A read transaction on a connection of the pool. Keep it short: it holds the WAL back."""
        with translated("read", self.path):
            connection = self._take_reader(self._timeout_seconds)
            try:
                yield connection
            finally:
                self._return_reader(connection)

    def _take_reader(self, timeout_seconds: float) -> sqlite3.Connection:
        """A connection of the pool in a read transaction; StoreBusyError if all are taken for so long."""
        if not self._reader_slots.acquire(timeout=timeout_seconds):
            raise StoreBusyError("all readers are taken", operation="read", key=str(self.path), hint="try again")
        try:
            connection = self._idle_readers.pop() if self._idle_readers else self._connect(read_only=True)
            connection.execute("BEGIN")
        except BaseException:
            self._reader_slots.release()
            raise
        return connection

    def _return_reader(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        self._idle_readers.append(connection)
        self._reader_slots.release()

    def settle(self, durability: Durability) -> None:
        """Give everything committed so far this durability: ``power`` returns when it survives power loss."""
        self._make_durable(self._sync.last_ticket, durability)

    def checkpoint(self, wait_seconds: float | None = None) -> None:
        """Move the WAL into the database and empty it, so that no deleted text stays in either file.

        StoreBusyError if readers kept it from being emptied for so long.
        """
        busy = self._checkpoint("TRUNCATE", self._timeout_seconds if wait_seconds is None else wait_seconds)
        if busy:
            raise StoreBusyError(
                "readers kept the WAL", operation="checkpoint", key=str(self.path), hint="end long reads, try again"
            )

    def _checkpoint(self, mode: Literal["PASSIVE", "TRUNCATE"], wait_seconds: float) -> bool:
        """Checkpoint behind the gate; whether somebody kept it from being complete for so long."""
        self._acquire_lock()
        try:
            with self._behind_gate(patient=True), translated("checkpoint", self.path):
                self._writer.execute(f"PRAGMA busy_timeout={int(wait_seconds * 1000)}")
                busy = self._writer.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()[0]
                self._writer.execute(f"PRAGMA busy_timeout={int(self._timeout_seconds * 1000)}")
        finally:
            self._lock.release()
        return bool(busy)

    def close(self) -> None:
        """Sync and close; waits for readers and writers under way."""
        for _ in range(READERS):
            self._reader_slots.acquire(timeout=self._timeout_seconds)
        self._acquire_lock()
        try:
            with self._behind_gate():
                self._sync.close()
                for connection in [*self._idle_readers, self._writer]:
                    connection.close()
            self._gate.close()
        finally:
            self._lock.release()

    def abandon(self) -> None:
        """After a fork, in the child: the parent's gate must not stay locked by a descriptor of ours.

        Its connections must be neither used nor closed here, closing could checkpoint under the parent.
        """
        self._gate.close()

    # ---------------------------------------------------------------- moving the WAL beside writers

    @contextlib.contextmanager
    def _without_checkpoint(self) -> Iterator[None]:
        """Commit without the checkpoint that a commit makes when the WAL is long."""
        self._writer.execute("PRAGMA wal_autocheckpoint=0").fetchall()
        try:
            yield
        finally:
            self._writer.execute(f"PRAGMA {schema.AUTOCHECKPOINT}").fetchall()

    def _snapshot(self) -> sqlite3.Connection | None:
        """A reader that sees the commit just made, and by that keeps the WAL from being reset; None: not now.

        To be called behind the gate after a commit without checkpoint, and by one at a time: a reader of a
        WAL that somebody has moved already would read the database, and keep nothing.
        """
        if not self._moving.acquire(blocking=False):
            return None
        connection: sqlite3.Connection | None = None
        try:
            connection = self._take_reader(timeout_seconds=0)
            connection.execute("SELECT 1 FROM store LIMIT 1").fetchall()
        except (StoreBusyError, sqlite3.Error) as error:
            if connection is not None:
                self._return_reader(connection)
            self._moving.release()
            log.warning("wal_not_moved", extra=fields(error=str(error)))
            return None
        return connection

    def _move_wal(self, snapshot: sqlite3.Connection) -> None:
        """Move the WAL up to a snapshot into the database outside of the gate, then the rest of it behind the gate.

        The bug of SQLite before 3.51.3 loses pages when a WAL is reset while a checkpoint runs. While the
        snapshot is read it cannot be reset. The caller's write is stored by now, so it must not fail for this.
        """
        try:
            try:
                with self.reader() as mover:
                    mover.execute("ROLLBACK")  # a connection that reads cannot checkpoint
                    mover.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            finally:
                self._return_reader(snapshot)
                self._moving.release()
            self._checkpoint("PASSIVE", self._timeout_seconds)
        except SessionLakeError as error:
            log.warning("wal_not_moved", extra=fields(error=str(error)))

    # ---------------------------------------------------------------- taking turns

    def _take_turn(self, job: _Job[Any]) -> None:
        """Get the lock, or leave the queue; a job that a leader has taken already is decided, so wait for it."""
        if self._lock.acquire(timeout=self._timeout_seconds):
            return
        try:
            self._jobs.remove(job)
        except ValueError:
            self._lock.acquire()
        else:
            raise self._busy()

    def _acquire_lock(self) -> None:
        if not self._lock.acquire(timeout=self._timeout_seconds):
            raise self._busy()

    def _busy(self) -> StoreBusyError:
        return StoreBusyError(
            f"other writers of this process took {self._timeout_seconds:g} s", operation="write",
            key=str(self.path), hint="try again",
        )  # fmt: skip

    @contextlib.contextmanager
    def _behind_gate(self, *, patient: bool = False) -> Iterator[None]:
        self._gate.acquire(self._timeout_seconds, patient=patient)
        try:
            yield
        finally:
            self._gate.release()

    # ---------------------------------------------------------------- committing

    def _alone(self, work: Callable[[sqlite3.Connection], T]) -> tuple[T, int]:
        """Commit for the one caller there is. Holds the lock; no context managers, they cost as much as a statement."""
        writer = self._writer
        self._gate.acquire(self._timeout_seconds)
        try:
            writer.execute("BEGIN IMMEDIATE")
            result = work(writer)
            writer.execute("COMMIT")
            ticket = self._sync.committed()
        except BaseException as error:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            translated = translate(error, "write", self.path)
            if translated is error:
                raise
            raise translated from error
        finally:
            self._gate.release()
        return result, ticket

    def _with_others(self, work: Callable[[sqlite3.Connection], T]) -> tuple[T, int]:
        """Queue up; whoever gets the lock next commits for everybody in the queue."""
        job = _Job(work)
        self._jobs.append(job)
        self._take_turn(job)
        try:
            while not job.done:
                self._commit_batch()
        finally:
            self._lock.release()
        if job.error is not None:
            raise job.error
        return job.result, job.ticket

    def _commit_batch(self) -> None:
        """Commit everybody in the queue, in one transaction, and tell each how it went."""
        batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), _BATCH))]
        try:
            self._gate.acquire(self._timeout_seconds)
            try:
                self._execute(batch)
                ticket = self._sync.committed()
            finally:
                self._gate.release()
        except BaseException as error:
            for job in batch:
                job.error = job.error or self._told(error)
            if not isinstance(error, Exception):
                raise  # an interrupt of this thread is not the others' affair
        else:
            for job in batch:
                job.ticket = ticket
        finally:
            for job in batch:
                job.done = True

    def _told(self, error: BaseException) -> BaseException:
        if isinstance(error, Exception):
            return translate(error, "write", self.path)
        return StoreBusyError(
            "the thread that was committing was interrupted", operation="write", key=str(self.path), hint="try again"
        )

    def _execute(self, batch: list[_Job[Any]]) -> None:
        writer = self._writer
        writer.execute("BEGIN IMMEDIATE")
        try:
            for job in batch:
                self._execute_one(job)
            writer.execute("COMMIT")
        except BaseException:
            if writer.in_transaction:
                writer.execute("ROLLBACK")
            raise

    def _execute_one(self, job: _Job[Any]) -> None:
        """One job of several: its failure undoes its own statements only, unless SQLite gave up the transaction."""
        self._writer.execute("SAVEPOINT job")
        try:
            job.result = job.work(self._writer)
        except Exception as error:
            if not self._writer.in_transaction:
                raise
            self._writer.execute("ROLLBACK TO job")
            job.error = translate(error, "write", self.path)
        self._writer.execute("RELEASE job")

    def _make_durable(self, ticket: int, durability: Durability) -> None:
        if durability == "power":
            self._sync.wait(ticket)
        elif durability == "interval":
            self._sync.soon()
        self._commits += 1
        if self._commits % _WAL_CHECK_COMMITS == 0 and self._sync.wal_bytes() > _WAL_LIMIT_BYTES:
            self._shrink_wal()

    def _shrink_wal(self) -> None:
        """Empty a WAL that automatic checkpoints could not, because some reader was always there.

        The caller's write is stored by now, so it must not fail for this; the next round tries again.
        """
        try:
            self.checkpoint(wait_seconds=0.05)
        except SessionLakeError as error:
            log.warning("wal_not_shrunk", extra=fields(error=str(error)))

    # ---------------------------------------------------------------- connections

    def _connect(self, *, read_only: bool = False) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self.path,
            timeout=self._timeout_seconds,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=128,
        )
        if not read_only:
            self.path.chmod(0o600)  # before the first page: the WAL and its index take the mode over
        schema.configure(connection)
        if read_only:
            connection.execute("PRAGMA query_only=ON")
        return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _create_directory(directory: Path) -> None:
    try:
        if directory.is_dir():
            return
        directory.mkdir(parents=True, exist_ok=True)
        directory.chmod(0o700)
    except OSError as error:
        raise StorageError(f"cannot be used: {error.strerror}", operation="open store", key=str(directory)) from error
