"""Commands that are imported when they are called, so that help and completion wait for none of them."""

from __future__ import annotations

from importlib import import_module
from typing import Any, cast

import typer
from typer.core import TyperCommand


class LazyCommand(TyperCommand):
    """A command known by its name and one line of help; all else is read from ``module:function`` when it is used."""

    def __init__(self, name: str, place: str, line: str) -> None:
        super().__init__(name, help=line)
        self._place = place

    def load(self) -> TyperCommand:
        """The command itself, with its options and the whole of its help."""
        module, _, function = self._place.partition(":")
        app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
        app.command(self.name)(getattr(import_module(module), function))
        return cast("TyperCommand", typer.main.get_command(app))

    def make_context(self, *arguments: Any, **more: Any) -> Any:
        """The context that the command itself makes: from there on this one plays no part."""
        return self.load().make_context(*arguments, **more)
