"""Commands on the program itself: demo and benchmarks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from archiver.errors import InputError
from archiver.program import ExitCode, Program, now_us
from pipelines import demo, demo_run
from pipelines.cli.base import app


@app.command("demo")
def demo_(
    context: typer.Context,
    directory: Annotated[
        Path, typer.Option("--dir", metavar="DIR", help="where; an earlier demo there is cleared")
    ] = Path("demo"),
    s3: Annotated[
        str | None, typer.Option("--s3", metavar="URL", help="s3://bucket/prefix instead of a directory")
    ] = None,
    sessions: Annotated[int, typer.Option("--sessions", min=1, help="how many conversations")] = 300,
) -> None:
    """Play the whole way once, on made-up conversations: live, archive, tables, training set."""
    program: Program = context.obj
    demo.prepare_directory(directory)
    settings = program.settings(
        {
            "hot.path": directory / "sessions",
            "storage.url": s3 or f"file:{directory}/lake",
            "hot.max_sessions": sessions * 2,
            "hot.session_max_age_hours": demo.MAX_AGE_SECONDS / 3600,
        }
    )
    demo_run.show(program.console, settings, sessions=sessions, clock=now_us)


@app.command()
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
