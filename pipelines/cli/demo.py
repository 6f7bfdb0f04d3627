"""The command ``demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from archiver.program import Program, now_us
from pipelines import demo, demo_run


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
