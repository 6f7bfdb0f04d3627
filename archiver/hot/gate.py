"""The door to the hot store: who may write now, and on which file systems there can be a door at all."""

from __future__ import annotations

import fcntl
import os
import queue
import re
import threading
import time
from pathlib import Path
from typing import Final

from archiver.errors import SettingsError, StorageError, StoreBusyError

_OCTAL: Final = re.compile(r"\\([0-7]{3})")  # how /proc/self/mounts writes a blank
_NETWORK_FILESYSTEMS: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs",
    "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs",
})  # fmt: skip


_PAUSES_SECONDS: Final = (20e-6, 50e-6, 100e-6, 200e-6)
"""Most holders are gone after one short commit; handing the wait to a thread costs more than looking again."""


class Gate:
    """A flock that every commit, checkpoint, open and close of all processes passes, one at a time.

    The kernel wakes waiters where SQLite's busy handler sleeps for up to 100 ms, and no two
    connections ever write or checkpoint at the same instant, which is what the WAL-reset bug of
    SQLite before 3.51.3 needs. Callers of one process must take turns themselves.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StorageError(
                f"cannot be opened: {error.strerror}", operation="open store", key=str(path),
                hint="the directory must be writable by this user",
            ) from error  # fmt: skip
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._waiter_fd: int | None = None
        self._abandoned: _Request | None = None

    def acquire(self, timeout_seconds: float) -> None:
        """Wait for the gate; StoreBusyError when it stays closed for so long."""
        if self._abandoned is not None:
            self._await(self._abandoned, timeout_seconds)
            self._abandoned = None
        for pause_seconds in _PAUSES_SECONDS:
            try:
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(pause_seconds)
            else:
                return
        self._acquire_blocking(timeout_seconds)

    def release(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the descriptors back; the gate cannot be used afterwards."""
        self._requests.put(None)
        os.close(self._fd)

    def forget(self) -> None:
        """After a fork, in the child: close what it inherited, so that the lock can end with the parent."""
        os.close(self._fd)
        if self._waiter_fd is not None:
            os.close(self._waiter_fd)

    def _acquire_blocking(self, timeout_seconds: float) -> None:
        # A blocking flock has no time-out, so a thread of its own sits in it and a caller can leave.
        if self._waiter_fd is None:
            # A descriptor of its own: when this one is closed and its number reused, the thread may still hold it.
            self._waiter_fd = os.dup(self._fd)
            threading.Thread(
                target=_serve, args=(self._waiter_fd, self._requests), name="sessionlake-gate", daemon=True
            ).start()
        request = _Request()
        self._requests.put(request)
        try:
            self._await(request, timeout_seconds)
        except BaseException:
            if request.abandon():
                self._abandoned = request
            else:
                self.release()
            raise

    def _await(self, request: _Request, timeout_seconds: float) -> None:
        if not request.answered.acquire(timeout=timeout_seconds):
            raise StoreBusyError(
                f"another process held the store for {timeout_seconds:g} s", operation="write", key=str(self._path),
                hint="try again; look for a stopped process that holds the lock file",
            )  # fmt: skip


class _Request:
    """One wait for the gate, shared by the caller and the waiter thread."""

    def __init__(self) -> None:
        self.answered = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._granted = False
        self._abandoned = False

    def grant(self) -> bool:
        """The gate is ours: False if the caller has left."""
        with self._lock:
            self._granted = not self._abandoned
            return self._granted

    def abandon(self) -> bool:
        """The caller leaves: False if the gate was granted before it could."""
        with self._lock:
            self._abandoned = not self._granted
            return self._abandoned


def _serve(fd: int, requests: queue.SimpleQueue[_Request | None]) -> None:
    while (request := requests.get()) is not None:
        fcntl.flock(fd, fcntl.LOCK_EX)
        if not request.grant():
            fcntl.flock(fd, fcntl.LOCK_UN)
        request.answered.release()
    os.close(fd)


def refuse_network_filesystem(directory: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Raise SettingsError if the directory lies on a network mount: WAL needs memory shared by all its users."""
    try:
        lines = mounts.read_text("utf-8").splitlines()
    except OSError:
        return
    resolved = directory.resolve()
    found = (Path("/"), "")
    for line in lines:
        mount_point, kind = line.split()[1:3]
        point = Path(_OCTAL.sub(lambda match: chr(int(match[1], 8)), mount_point))
        if resolved.is_relative_to(point) and len(point.parts) >= len(found[0].parts):
            found = (point, kind)
    if found[1] in _NETWORK_FILESYSTEMS:
        raise SettingsError(
            f"{directory} lies on {found[0]}, a network file system ({found[1]})", operation="open store",
            key="hot.path", hint="the live store needs a local disk; the archive is what other hosts read",
        )  # fmt: skip
