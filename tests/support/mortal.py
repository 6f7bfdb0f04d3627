"""An archiver that is killed at a chosen step, in a process of its own.

Steps are counted at the seams: before, in and after every transaction of the hot store, before and
after every request to the object store, before, in and after every change of the spool. Started as a
program it stays warm and forks one child for each command line of JSON, so that hundreds of kills
take seconds.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeVar

from archiver import sealing, service
from archiver.hot import HotStore
from archiver.hot.spool import Spool, SpoolFile
from archiver.objects import ObjectStore, StoreFacts, open_store
from archiver.settings import Settings

T = TypeVar("T")
FACTS = StoreFacts(creates_once=True, replaces_if_match=True, refuses_bad_checksum=True)
_REQUESTS = {"create", "replace", "get", "head", "list", "delete", "delete_versions"}


class Steps:
    """Counts the steps of this process and ends it at one of them."""

    def __init__(self, kill_at: int | None) -> None:
        self._kill_at = kill_at
        self.names: list[str] = []

    def step(self, name: str) -> None:
        self.names.append(name)
        if len(self.names) == self._kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


class MortalStore:
    """An object store with a step before and after every request."""

    def __init__(self, store: ObjectStore, steps: Steps) -> None:
        self._store = store
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if name not in _REQUESTS:
            return value

        def request(*arguments: Any, **values: Any) -> Any:
            self._steps.step(f"before {name}")
            result = value(*arguments, **values)
            self._steps.step(f"after {name}")
            return result

        return request


class MortalSpool(Spool):
    """A spool with steps around its changes."""

    steps: Steps

    def write(self, path: Path, fill: Callable[[IO[bytes]], T]) -> tuple[SpoolFile, T]:
        def filled(sink: IO[bytes]) -> T:
            result = fill(sink)
            self.steps.step("spool written, not linked")
            return result

        self.steps.step("before spool write")
        result = super().write(path, filled)
        self.steps.step("after spool write")
        return result

    def remove(self, path: Path) -> None:
        self.steps.step("before spool remove")
        super().remove(path)
        self.steps.step("after spool remove")


class MortalHotStore(HotStore):
    """A hot store with steps around its transactions."""

    steps: Steps

    @contextlib.contextmanager
    def transaction(self, **values: Any) -> Iterator[Any]:
        self.steps.step("before transaction")
        with super().transaction(**values) as connection:
            yield connection
            self.steps.step("before commit")
        self.steps.step("after commit")

    @contextlib.contextmanager
    def bulk_transaction(self) -> Iterator[Any]:
        self.steps.step("before transaction")
        with super().bulk_transaction() as connection:
            yield connection
            self.steps.step("before commit")
        self.steps.step("after commit")

    @property
    def spool(self) -> Spool:
        spool = MortalSpool(self.directory / "spool")
        spool.steps = self.steps
        return spool


@dataclass(frozen=True)
class Outcome:
    """How one child ended: by SIGKILL, or with the steps it took and the failures it reported."""

    killed: bool
    steps: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


class Mortals:
    """The warm process; a context manager."""

    def __init__(self, environment: dict[str, str] | None = None) -> None:
        here = Path(__file__).parent
        path = os.pathsep.join([str(here), str(here.parents[1])])
        self._process = subprocess.Popen(
            [sys.executable, __file__], env={**os.environ, **(environment or {}), "PYTHONPATH": path},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Mortals:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def sweep(
        self, hot: Path, settings: Settings, *, now_us: int, kill_at: int | None, action: str = "sweep"
    ) -> Outcome:
        """Run a sweep, or ``action="new_archiver"``, that dies at step ``kill_at``."""
        command = {
            "hot": str(hot), "settings": settings.model_dump(mode="json"), "now_us": now_us,
            "kill_at": kill_at, "action": action,
        }  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Outcome(answer["killed"], tuple(answer["steps"]), tuple(answer["failures"]))


def _child(command: dict[str, Any], answer: int) -> None:
    settings = Settings(**command["settings"])
    steps = Steps(command["kill_at"])
    MortalHotStore.steps = steps
    store: Any = MortalStore(open_store(settings.storage), steps)
    with MortalHotStore(command["hot"], durability="process") as hot:
        steps.names.clear()
        if command["action"] == "new_archiver":
            sealing.new_archiver(hot, now_us=command["now_us"])
            failures = []
        else:
            report = service.sweep(hot, store, settings, now_us=command["now_us"], facts=FACTS)
            failures = [failure.message for failure in report.failures]
    os.write(answer, json.dumps({"killed": False, "steps": steps.names, "failures": failures}).encode())


def _serve() -> None:
    for line in sys.stdin:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.close(read)
                _child(json.loads(line), write)
                code = 0
            finally:
                os._exit(code)
        os.close(write)
        with os.fdopen(read) as pipe:
            answer = pipe.read()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        died = {"killed": killed, "steps": [], "failures": [] if killed else [f"status {status}"]}
        print(answer or json.dumps(died), flush=True)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401  pyarrow imports it on first use: once here instead of in every child
    _serve()
