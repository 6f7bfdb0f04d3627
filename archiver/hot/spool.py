"""The spool: sealed segments on local disk, on their way to the archive.

A file under its final name is complete: it is written under another name, synced, then linked, and the
directory synced. Which of them belong to a segment, and their digests, only the database knows; any
other file is left over from a crash. A lock file spares two archivers the same work; nothing that is
promised rests on it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypeVar

from archiver.errors import StorageError, StoreBusyError

_POLL_SECONDS: Final = 0.05
_TMP: Final = ".tmp-"
_SUFFIX: Final = ".parquet"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SpoolFile:
    """A complete file of the spool and the digest of its bytes."""

    path: Path
    size_bytes: int
    sha256: str

    def md5(self) -> str:
        """The other digest, for a storage whose word on the first proves nothing; reads the file."""
        with _translated("read spool file", self.path), self.path.open("rb") as file:
            return hashlib.file_digest(file, _md5).hexdigest()


class Spool:
    """The spool directory of one hot store; made when first used, mode 0700."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @contextmanager
    def lock(self, *, wait_seconds: float = 0) -> Iterator[None]:
        """Be the only archiver at work on this spool; StoreBusyError if another one still is after the wait."""
        self._make_directory()
        descriptor = os.open(self.directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + wait_seconds
            while not _try_lock(descriptor):
                if time.monotonic() >= deadline:
                    raise StoreBusyError(
                        "another archiver is at work on this spool", operation="lock spool", key=str(self.directory),
                        hint="it does this work; look at `sessionlake status`",
                    )  # fmt: skip
                time.sleep(_POLL_SECONDS)
            yield
        finally:
            os.close(descriptor)

    def path(self, archiver_id: str, sequence: int) -> Path:
        """Where the file of a segment stands once it is complete."""
        return self.directory / f"{archiver_id}-{sequence:012d}{_SUFFIX}"

    def write(self, path: Path, fill: Callable[[IO[bytes]], T]) -> tuple[SpoolFile, T]:
        """Let ``fill`` write a file and make it durable under ``path``; a failure leaves nothing behind.

        A file that stands there already is of unknown content: it goes first.
        """
        self._make_directory()
        tmp = self.directory / f"{_TMP}{os.getpid()}-{uuid.uuid4().hex}"
        try:
            with _translated("write spool file", path):
                with os.fdopen(os.open(tmp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
                    result = fill(file)
                    file.flush()
                    os.fsync(file.fileno())
                path.unlink(missing_ok=True)
                os.link(tmp, path)
                tmp.unlink()
                self._sync_directory()
                return self._described(path), result
        finally:
            tmp.unlink(missing_ok=True)

    def verified(self, path: Path, sha256: str) -> SpoolFile | None:
        """The file if its bytes have this digest, else None."""
        with _translated("read spool file", path):
            if not path.exists():
                return None
            found = self._described(path)
            return found if found.sha256 == sha256 else None

    def remove(self, path: Path) -> None:
        """Delete a file whose segment is proven to be in the archive; no error if it is gone."""
        with _translated("remove spool file", path):
            path.unlink(missing_ok=True)

    def clean(self, wanted: Collection[Path]) -> int:
        """Delete what crashes left behind: every file but the wanted. Call it under the lock; returns how many."""
        removed = 0
        for path in self._files():
            if path not in wanted:
                self.remove(path)
                removed += 1
        return removed

    def size_bytes(self) -> int:
        """Bytes in the spool now; an archiver at work may remove files meanwhile."""
        total = 0
        for path in self._files():
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
        return total

    def free_bytes(self) -> int:
        """Bytes that the disk has left."""
        self._make_directory()
        return shutil.disk_usage(self.directory).free

    def _files(self) -> list[Path]:
        if not self.directory.exists():
            return []
        return [p for p in self.directory.iterdir() if p.name.endswith(_SUFFIX) or p.name.startswith(_TMP)]

    def _described(self, path: Path) -> SpoolFile:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            return SpoolFile(path, file.tell(), digest)

    def _make_directory(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _sync_directory(self) -> None:
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _md5() -> hashlib._Hash:
    return hashlib.md5(usedforsecurity=False)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _translated(operation: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise StorageError(
            f"{error.strerror or error}", operation=operation, key=str(path),
            hint="free some space and run again; the sessions stay in the hot store" if full else "look at the disk",
        ) from error  # fmt: skip
