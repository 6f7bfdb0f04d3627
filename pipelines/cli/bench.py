"""The command ``bench``."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from archiver.errors import InputError
from archiver.program import ExitCode, Program


def bench(
    context: typer.Context,
    what: Annotated[Literal["hot", "archive", "compact", "export", "all"], typer.Argument()] = "all",
    quick: Annotated[bool, typer.Option("--quick", help="small inputs: seconds instead of minutes")] = False,
) -> None:
    """Measure this machine, peers side by side, and print the ratios (needs the source tree)."""
    program: Program = context.obj
    directory = Path(__file__).parents[2] / "tests" / "bench"
    if not directory.is_dir():
        raise InputError(
            "the benchmarks are part of the source tree, not of the installed package",
            operation="bench", key=str(directory), hint="clone the repository and run make bench",
        )  # fmt: skip
    names = ("hot", "archive", "compact", "export") if what == "all" else (what,)
    for name in names:
        program.console.line(f"== {name}", style="bold")
        command = [sys.executable, str(directory / f"{name}.py"), *(["--quick"] if quick else [])]
        if subprocess.run(command, check=False).returncode:  # noqa: S603  our own file, no user text
            raise typer.Exit(ExitCode.FAILED)
