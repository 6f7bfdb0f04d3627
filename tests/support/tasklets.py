"""Functions that a worker process can import: well-behaved, failing and deadly ones."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from archiver.errors import InputError
from archiver.objects import DirectoryStore


def double(number: int) -> int:
    return 2 * number


def process_id(_: object) -> int:
    return os.getpid()


def fail(_: object) -> None:
    raise InputError("refused", operation="fail", key="task", hint="do not")


def die(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_once(task: tuple[int, str]) -> int:
    """Task 3 kills its worker the first time."""
    number, marker = task
    if number == 3 and not Path(marker).exists():
        Path(marker).touch()
        die(None)
    return number


class MortalStore(DirectoryStore):
    """A directory store whose first staged file, of all processes, is the last deed of the process that stages it."""

    def __init__(self, root: Path, marker: Path) -> None:
        super().__init__(root)
        self._marker = marker

    def stage(self, key: str, data: bytes | Path) -> str:
        """Stage; then die, if nobody has."""
        token = super().stage(key, data)
        try:
            with self._marker.open("x") as file:
                file.write(str(os.getpid()))
        except FileExistsError:
            return token
        die(None)
        return token
