"""The app, its global flags, and what every command opens."""

from __future__ import annotations

from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Annotated, Any

import typer

from archiver.console import Console
from archiver.objects import ObjectStore, open_store
from archiver.program import ExitCode, Program, program_of
from archiver.settings import Settings

app = typer.Typer(
    name="sessionlake",
    help="From live chat and reasoning sessions to trustworthy training data.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
"""The global flags; :mod:`pipelines.cli.commands` adds the commands."""

VersionOption = Annotated[int | None, typer.Option("--version", min=0, help="lake version to read; absent: the latest")]


def _show_version(wanted: bool) -> None:
    if wanted:
        Console().line(f"sessionlake {distribution_version('sessionlake')}")
        raise typer.Exit(ExitCode.DONE)


@app.callback()
def _globals(
    context: typer.Context,
    config: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file of settings")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object instead of text")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="show tracebacks and debug log lines")] = False,
    _version: Annotated[
        bool, typer.Option("--version", help="print the version and leave", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    context.obj = Program(config=config, console=Console(as_json=as_json), debug=debug)


def open_lake(
    context: typer.Context, hot: Path | None, storage: str | None, **flags: Any
) -> tuple[Program, Settings, ObjectStore]:
    """The program, its settings with these flags, and the storage they name."""
    program, settings = program_of(context, hot, storage, **flags)
    return program, settings, open_store(settings.storage)
