"""The command as users run it: a subprocess, its exit code, its standard output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
DATA = REPOSITORY.parent / "shared" / "data"


class Sessionlake:
    """Runs ``sessionlake`` in a directory of its own; upper-case keywords are environment variables."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.environment: dict[str, str] = {}

    def start(self, *arguments: str | Path, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "pipelines", *map(str, arguments)],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str | Path, code: int = 0, **environment: str) -> str:
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=240)
        assert process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        self.stderr = err
        return out

    def json(self, *arguments: str | Path, code: int = 0, **environment: str) -> dict[str, Any]:
        return json.loads(self("--json", *arguments, code=code, **environment))

    def rows(self, sql: str) -> list[dict[str, Any]]:
        return self.json("query", sql)["rows"]


@pytest.fixture
def sessionlake(tmp_path: Path) -> Sessionlake:
    return Sessionlake(tmp_path)


@pytest.fixture(scope="session")
def sessionlake_in() -> type[Sessionlake]:
    """Call it with a directory, for fixtures that outlive one test."""
    return Sessionlake


@pytest.fixture(scope="session")
def real_sessions() -> Path:
    return _data("sessions.jsonl.gz")


@pytest.fixture(scope="session")
def edge_cases() -> Path:
    return _data("edge_cases.jsonl.gz")


def _data(name: str) -> Path:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"the real sessions are not here: {path}")
    return path
