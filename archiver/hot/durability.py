"""What a commit survives: one shared fdatasync of the WAL, outside the write lock.

A commit at synchronous=NORMAL survives the death of the process. SQLite itself syncs the WAL before
each checkpoint and the database after it, so a committed frame is either in the WAL file or in a
synced database: one fdatasync of the WAL that begins after the commit makes it survive power loss.
"""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from typing import Final

from archiver.errors import StorageError

INTERVAL_SECONDS: Final = 0.01
_RESERVE_COMMITS: Final = 64
_RESERVE_FROM_BYTES: Final = 256 * 1024
_RESERVE_TO_BYTES: Final = 16 * 1024 * 1024
"""As much as a WAL takes between two checkpoints (schema.py)."""
_ZEROS: Final = bytes(1024 * 1024)
_SHARE_OF_DISK: Final = 100


class WalSync:
    """Counts commits and makes them durable, each fdatasync for everybody who committed before it.

    A failed fdatasync is final: the kernel may have dropped the pages, so nothing is acknowledged
    any more until the store is opened again.
    """

    def __init__(self, wal: Path) -> None:
        self._wal = wal
        self._fd: int | None = None
        self._committed = 0
        self._synced = 0
        self._lock = threading.Lock()
        self._failure: OSError | None = None
        self._dirty = threading.Event()
        self._stop = False
        self._thread: threading.Thread | None = None

    def committed(self) -> int:
        """Note a commit and return its ticket. Call it inside the write lock and behind the gate."""
        self._committed += 1
        if self._committed % _RESERVE_COMMITS == 0:
            self._reserve()
        return self._committed

    @property
    def last_ticket(self) -> int:
        """The ticket of the last commit."""
        return self._committed

    def check(self) -> None:
        """Raise StorageError if an earlier fdatasync failed."""
        if self._failure is not None:
            raise StorageError(
                f"fdatasync failed: {self._failure.strerror}", operation="write", key=str(self._wal),
                hint="the disk may have lost acknowledged writes; check it, then open the store again",
            ) from self._failure  # fmt: skip

    def wait(self, ticket: int) -> None:
        """Return when the commit with this ticket survives power loss."""
        if self._synced >= ticket:
            return
        with self._lock:
            self.check()
            if self._synced >= ticket:
                return
            upto = self._committed
            try:
                os.fdatasync(self._descriptor())
            except OSError as error:
                self._failure = error
                self.check()
            self._synced = upto

    def soon(self) -> None:
        """Have everything committed so far synced within INTERVAL_SECONDS and one fdatasync."""
        if self._dirty.is_set():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="sessionlake-sync", daemon=True)
            self._thread.start()
        self._dirty.set()

    def wal_bytes(self) -> int:
        """Size of the WAL file."""
        return 0 if self._fd is None else os.fstat(self._fd).st_size

    def close(self) -> None:
        """Sync what is left and stop."""
        self._stop = True
        self._dirty.set()
        if self._thread is not None:
            self._thread.join()
        if self._fd is not None:
            if self._failure is None:
                self.wait(self._committed)
            os.close(self._fd)
            self._fd = None

    def _reserve(self) -> None:
        """Double a WAL that grows, up to its usual size, with zeros; behind the gate nobody else extends it.

        An fdatasync of a file that grew commits the file system's journal, too, and takes twice as long as
        one of blocks that the file has already. SQLite reads zeros as the end of its frames. Small stores
        and disks that are nearly full are left as they are.
        """
        if self._fd is None:
            return
        size = os.fstat(self._fd).st_size
        if not _RESERVE_FROM_BYTES <= size < _RESERVE_TO_BYTES:
            return
        disk = os.fstatvfs(self._fd)
        if disk.f_bavail * disk.f_frsize < _SHARE_OF_DISK * _RESERVE_TO_BYTES:
            return
        wanted = min(2 * size, _RESERVE_TO_BYTES)
        with contextlib.suppress(OSError):  # only speed is lost
            while size < wanted:
                size += os.pwrite(self._fd, _ZEROS[: wanted - size], size)

    def _descriptor(self) -> int:
        # SQLite holds no locks on the WAL, so a descriptor of our own cannot drop any. It is taken
        # after the first commit and kept: the file stays as long as a connection is open.
        if self._fd is None:
            self._fd = os.open(self._wal, os.O_RDWR | os.O_CLOEXEC)
            directory = os.open(self._wal.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        return self._fd

    def _run(self) -> None:
        pause = threading.Event()
        while not self._stop:
            self._dirty.wait()
            self._dirty.clear()
            try:
                self.wait(self._committed)
            except StorageError:
                return  # the next write raises it to its caller
            pause.wait(INTERVAL_SECONDS)
