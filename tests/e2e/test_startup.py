"""A command imports what it uses: help, completion and the live side never wait for the engines of the tables."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.cli.commands import COMMANDS, GROUPS, program
from pipelines.cli.lazy import LazyCommand

ROOT = Path(__file__).parents[2]
ENGINES = {"boto3", "deltalake", "distributed", "duckdb", "numpy", "pandas", "prometheus_client", "pyarrow"}
RUN = """
import json, sys
from archiver.program import run
from pipelines.cli import program
code = run(program(), sys.argv[1:])
print(json.dumps([code, sorted({name.partition(".")[0] for name in sys.modules})]), file=sys.stderr)
"""


def imported(directory: Path, *arguments: str, **environment: str) -> set[str]:
    """The top-level modules that one invocation leaves imported."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SESSIONLAKE_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, *arguments], cwd=directory, env=clean | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    code, names = json.loads(done.stderr.splitlines()[-1])
    assert code == 0, done.stderr
    return set(names)


@pytest.mark.parametrize(
    "line",
    ["--help", "--version", "sessions --help", "config show", "config check", "sessions list", "--json sessions list"],
)
def test_light_commands_import_no_engine(tmp_path: Path, line: str) -> None:
    assert imported(tmp_path, *line.split()) & ENGINES == set()


def test_the_archiver_imports_no_engine_of_the_tables(tmp_path: Path) -> None:
    assert imported(tmp_path, "sweep") & ENGINES <= {"pyarrow", "numpy", "pandas", "prometheus_client"}


def test_completion_of_a_command_imports_no_engine(tmp_path: Path) -> None:
    asked = {"_SESSIONLAKE_COMPLETE": "complete_bash", "COMP_WORDS": "sessionlake s", "COMP_CWORD": "1"}
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SESSIONLAKE_")}
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "pipelines"], cwd=tmp_path,
        env=clean | {"PYTHONPATH": str(ROOT)} | asked, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["sessions", "sweep", "status", "sql"]
    assert {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()} & ENGINES == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_where_the_list_says(name: str) -> None:
    command = program().commands[name]
    assert isinstance(command, LazyCommand)
    assert (command.load().name, bool(command.load().help)) == (name, True)


def test_every_line_of_the_list_fits_a_terminal_of_80_columns() -> None:
    lines = [line for _, line in COMMANDS.values()]
    lines += [line for _, places in GROUPS.values() for _, line in places.values()]
    assert [line for line in lines if len(line) > 66] == []
