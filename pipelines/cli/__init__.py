"""The command ``sessionlake``: commands of both packages, a module each, listed in :mod:`pipelines.cli.commands`."""

import contextlib
import logging
import os
import sys

from archiver.program import run
from pipelines.cli.commands import program

__all__ = ["main", "program"]


def main() -> None:
    """Entry point of the console script; ends the process without tearing the interpreter down.

    Arrow's threads may drop Python buffers a moment after their work is done. While an interpreter
    before 3.14 shuts down, that aborts the process (seen in half of the runs of a short demo).
    """
    code = run(program(), sys.argv[1:])
    logging.shutdown()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
