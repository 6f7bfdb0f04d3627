"""The door to the hot store: who may write now, and on which file systems there can be a door at all."""

from __future__ import annotations

import fcntl
import os
import re
import time
from pathlib import Path
from typing import Final

from archiver.errors import SettingsError, StorageError, StoreBusyError
from archiver.hot.doorbell import Doorbell

_OCTAL: Final = re.compile(r"\\([0-7]{3})")  # how /proc/self/mounts writes a blank
_NETWORK_FILESYSTEMS: Final = frozenset({
    "9p", "afs", "beegfs", "ceph", "cifs", "fuse.glusterfs", "fuse.rclone", "fuse.s3fs", "fuse.sshfs", "glusterfs",
    "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs",
})  # fmt: skip


_LOOK_AGAIN_SECONDS: Final = 0.005
"""A process that dies at the gate rings for nobody."""
_MOST_PASSES: Final = 4
_GIVE_WAY_SECONDS: Final = 0.001


class Gate:
    """A flock that every commit, open and close of all processes passes, one at a time.

    Who waits is woken at once where SQLite's busy handler sleeps for up to 100 ms. Checkpoints pass it,
    too, but for those of bulk work, which keep the WAL from being reset (database.py): the WAL-reset
    bug of SQLite before 3.51.3 needs a commit that resets it beside a checkpoint. Callers of one process
    must take turns themselves.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._waited = False
        self._owed: int | None = None
        self._passes = 0
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._bell = Doorbell(self._fd)
        except OSError as error:
            raise StorageError(
                f"cannot be opened: {error.strerror}", operation="open store", key=str(path),
                hint="the directory must be writable by this user",
            ) from error  # fmt: skip

    def acquire(self, timeout_seconds: float, *, patient: bool = False) -> None:
        """Wait for the gate; StoreBusyError when it stays closed for so long.

        Who is ``patient`` lets everybody through who has waited, each time.
        """
        if self._owed is not None:
            self._give_way(self._owed, 0 if patient else _MOST_PASSES)
        if self._try():
            return
        deadline = time.monotonic() + timeout_seconds
        while True:
            self._bell.announce()
            if self._try():
                self._waited = True
                self._bell.take_turn()
                return
            if time.monotonic() >= deadline:
                raise self._busy(timeout_seconds)
            self._bell.wait(_LOOK_AGAIN_SECONDS)

    def release(self) -> None:
        """Let the next one in."""
        fcntl.flock(self._fd, fcntl.LOCK_UN)
        awaited = self._bell.awaited
        if awaited and self._owed is None:
            self._owed, self._passes = self._bell.turns, 0
        if awaited or self._waited:  # who has waited itself always rings: its own wake-up took down the others' sign
            self._waited = False
            self._bell.ring()

    def close(self) -> None:
        """Give all descriptors back; a lock that a forked child inherited ends with its parent's."""
        self._bell.close()
        os.close(self._fd)

    def _give_way(self, owed: int, most_passes: int) -> None:
        """A process that runs wins against one that must first be woken: after a few passes, queue up behind it."""
        self._passes += 1
        if self._bell.turns != owed:
            self._owed = None
        elif self._passes > most_passes:
            self._owed = None
            self._bell.announce()
            self._bell.wait(_GIVE_WAY_SECONDS)
            if self._bell.turns == owed:  # it never came: take down the sign, which may be our own
                self._bell.ring()

    def _try(self) -> bool:
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def _busy(self, timeout_seconds: float) -> StoreBusyError:
        return StoreBusyError(
            f"another process held the store for {timeout_seconds:g} s", operation="write", key=str(self._path),
            hint="try again; look for a stopped process that holds the lock file",
        )  # fmt: skip


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
