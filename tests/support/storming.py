"""Archivers and writers on one hot store, as processes that a test may kill at any moment.

Started as a program it stays warm and forks one child for each command line; it answers with its pid.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from pathlib import Path

from archiver import service
from archiver.hot import HotStore
from archiver.objects import open_store
from archiver.sessions import SessionManager
from archiver.settings import Settings

MESSAGES = 6


class Storm:
    """The warm process; a context manager that ends all it started."""

    def __init__(self, settings: Settings, directory: Path, environment: dict[str, str]) -> None:
        here = Path(__file__).parent
        path = os.pathsep.join([str(here), str(here.parents[1])])
        self._process = subprocess.Popen(
            [sys.executable, __file__, settings.model_dump_json(), str(directory)],
            env={**os.environ, **environment, "PYTHONPATH": path}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, start_new_session=True,
        )  # fmt: skip
        self._directory = directory

    def __enter__(self) -> Storm:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(20)
        self._await_children()

    def _await_children(self) -> None:
        """A killed process keeps its locks until its last system call ends."""
        deadline = time.monotonic() + 20
        with contextlib.suppress(ProcessLookupError):
            while time.monotonic() < deadline:
                os.killpg(self._process.pid, 0)
                time.sleep(0.01)

    def start(self, role: str) -> int:
        """Fork an archiver or a writer; returns its pid."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(role + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def stop_writers(self, pids: list[int]) -> None:
        """Let writers finish the call under way and wait for them."""
        (self._directory / "stop").touch()
        deadline = time.monotonic() + 30
        while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
            time.sleep(0.02)

    def acknowledged(self) -> list[tuple[str, str]]:
        """(session_id, text) of every call that returned."""
        lines = (line for path in self._directory.glob("acks-*") for line in path.read_text().splitlines())
        return [tuple(json.loads(line)) for line in lines]

    def errors(self) -> str:
        """What writers did not expect."""
        return "\n".join(path.read_text() for path in self._directory.glob("error-*"))


def archive_for_ever(settings: Settings) -> None:
    store = open_store(settings.storage)
    with HotStore.from_settings(settings.hot) as hot:
        while True:
            service.sweep(hot, store, settings, now_us=time.time_ns() // 1000)
            time.sleep(0.005)


def write_until_stopped(settings: Settings, directory: Path, name: str) -> None:
    number = 0
    with SessionManager.from_settings(settings) as manager, (directory / f"acks-{name}").open("a") as acks:
        while not (directory / "stop").exists():
            number += 1
            session_id = f"{name}-{number}"
            manager.create_session(session_id)
            for i in range(MESSAGES):
                text = f"{session_id}#{i}"
                manager.add_message(session_id, "user", text, durability="process")
                acks.write(json.dumps([session_id, text]) + "\n")
                acks.flush()


def _child(role: str, settings: Settings, directory: Path) -> None:
    try:
        if role == "archiver":
            archive_for_ever(settings)
        else:
            write_until_stopped(settings, directory, role)
    except BaseException:
        (directory / f"error-{os.getpid()}").write_text(f"{role}: {traceback.format_exc()}")
        raise


def _serve(arguments: list[str]) -> None:
    settings, directory = Settings(**json.loads(arguments[0])), Path(arguments[1])
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            try:
                _child(line.strip(), settings, directory)
            finally:
                os._exit(0)
        print(child, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(ImportError):
        import pandas  # noqa: F401  pyarrow imports it on first use: once here instead of in every child
    _serve(sys.argv[1:])
