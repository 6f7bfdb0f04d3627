"""Compactions in processes of their own: killed at a chosen effect, or racing each other.

An effect is a call that changes the store: writes through ObjectStore and commits of delta-rs.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from archiver.errors import SessionLakeError
from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction, lake, maintenance

EFFECTS = ("create", "replace", "stage", "publish", "discard", "delete_versions")
SETTINGS = Settings(runner={"workers": 1})


class Effects:
    """Counts effects and, at the chosen one, kills this process before or after it."""

    def __init__(self, kill_at: int | None, *, after: bool) -> None:
        self.count = 0
        self._kill_at, self._after, self._lock = kill_at, after, threading.Lock()

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            with self._lock:
                self.count += 1
                here = self.count == self._kill_at
            if here and not self._after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if here:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return counted


class WatchedStore(DirectoryStore):
    """A directory store whose effects are counted."""

    def __init__(self, root: Path, effects: Effects) -> None:
        super().__init__(root)
        for name in EFFECTS:
            setattr(self, name, effects.around(getattr(self, name)))


def run_killed(root: Path, now_us: int, kill_at: int | None, after: bool, counted: Path) -> None:
    """Compact (in this process, which may not outlive it) and write down how many effects there were."""
    effects = Effects(kill_at, after=after)

    class WatchedTable(lake.DeltaTable):
        create_write_transaction = effects.around(lake.DeltaTable.create_write_transaction)

    lake.DeltaTable = WatchedTable
    compaction.compact(WatchedStore(root, effects), SETTINGS, now_us=now_us)
    counted.write_text(str(effects.count))


def run_compaction(root: Path, now_us: int) -> None:
    """Compact until nothing is new, again if another process was in the way."""
    _persist(lambda: compaction.compact(DirectoryStore(root), SETTINGS, now_us=now_us))


def run_upkeep(root: Path, now_us: int) -> None:
    """One upkeep; it may find a compaction in its way."""
    _persist(lambda: maintenance.maintain(DirectoryStore(root), SETTINGS, now_us=now_us), tries=3, must=False)


def _persist(action: Callable[[], object], *, tries: int = 10, must: bool = True) -> None:
    for attempt in range(tries):
        try:
            action()
        except SessionLakeError:
            if must and attempt + 1 == tries:
                raise
        else:
            return


def start(target: Callable[..., None], *args: Any) -> BaseProcess:
    """Run a function of this module in a process that starts clean, in milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["killing"])
    os.environ["PYTHONPATH"] = os.pathsep.join(sys.path)  # the fork server of Python 3.11 preloads by nothing else
    process = context.Process(target=target, args=args)
    process.start()
    return process
