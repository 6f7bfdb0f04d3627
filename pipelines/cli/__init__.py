"""The command ``sessionlake``: commands of the pipeline, and those of :mod:`archiver.cli` mounted beside them."""

import contextlib
import logging
import os
import sys

from archiver.cli import commands
from archiver.program import run
from pipelines.cli import lake, program, sessions, training
from pipelines.cli.base import app

__all__ = ["app", "lake", "main", "program", "sessions", "training"]

app.registered_commands += commands.registered_commands
app.registered_groups += commands.registered_groups

_ORDER = (
    "demo", "import", "sweep", "status", "verify", "erase", "compact", "query", "sql", "export", "report", "maintain",
    "doctor", "bench",
)  # fmt: skip
app.registered_commands.sort(key=lambda command: _ORDER.index(str(command.name or command.callback.__name__)))  # type: ignore[union-attr]


def main() -> None:
    """Entry point of the console script; ends the process without tearing the interpreter down.

    Arrow's threads may drop Python buffers a moment after their work is done. While an interpreter
    before 3.14 shuts down, that aborts the process (seen in half of the runs of a short demo).
    """
    code = run(app, sys.argv[1:])
    logging.shutdown()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
