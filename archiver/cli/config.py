"""The commands ``config show`` and ``config check``."""

from __future__ import annotations

import typer

from archiver.program import HotOption, StorageOption, program_of


def config_show(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Show every setting with its value, whatever it came from. Credentials are no settings, so none can show."""
    program, settings = program_of(context, hot, storage)
    dump = settings.model_dump(mode="json")
    rows = [(f"{section}.{key}", value) for section, values in dump.items() for key, value in values.items()]
    program.console.table(("setting", "value"), rows)
    program.console.result(dump)


def config_check(context: typer.Context, hot: HotOption = None, storage: StorageOption = None) -> None:
    """Check the settings; a wrong one is named with its place and what is permitted."""
    program, _ = program_of(context, hot, storage)
    program.console.line("settings are in order")
    program.console.result({"settings": "in order"})
