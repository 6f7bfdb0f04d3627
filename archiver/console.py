"""The one place that prints: tables and lines for people, one JSON object with ``--json``, progress on a terminal."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime
from enum import Enum
from pathlib import Path
from typing import Any

from rich.console import Console as RichConsole
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from archiver.errors import SessionLakeError

_FOLD_CHARS = 40
"""A column narrower than its values is still read with ease from this width on."""


class Console:
    """Output of one command.

    Attributes:
        as_json: Print nothing but one JSON object, at the end.
    """

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self._out = RichConsole(highlight=False, soft_wrap=not sys.stdout.isatty())
        self._err = RichConsole(stderr=True, highlight=False, soft_wrap=True)

    def line(self, text: str = "", *, style: str | None = None) -> None:
        """One line for people; nothing with ``--json``. User texts are printed as they are, never as markup."""
        if not self.as_json:
            self._out.print(text, style=style, markup=False)

    def raw(self, text: str) -> None:
        """Text for another program, as it is, also with ``--json``."""
        sys.stdout.write(text)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str | None = None) -> None:
        """A table for people; numbers are right-aligned. Nothing with ``--json``."""
        if self.as_json:
            return
        table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
        for i, name in enumerate(columns):
            numeric = all(isinstance(row[i], int | float) for row in rows)
            table.add_column(name, justify="right" if numeric and rows else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(_plain(value)) for value in row))  # Text: nothing in it is markup
        self._out.print(table)

    def rows(self, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table, or where a terminal is too narrow for it, each row as a table of its own: column and value."""
        if sys.stdout.isatty() and _least_width(columns, rows) > self._out.width:
            for number, row in enumerate(rows, start=1):
                self.table((f"row {number}", ""), list(zip(columns, row, strict=True)))
                self.line()
        else:
            self.table(columns, rows)

    def result(self, value: Any) -> None:
        """The command's result as one JSON object; nothing without ``--json``."""
        if self.as_json:
            self.raw(json.dumps(value, ensure_ascii=False, default=_jsonable) + "\n")

    def error(self, error: SessionLakeError) -> None:
        """One line on standard error, or the error as a JSON object with ``--json``."""
        if self.as_json:
            body = {"error": error.kind, "message": error.message, "operation": error.operation}
            self.result({**body, "key": error.key, "hint": error.hint})
        else:
            self.problem(f"error: {error}")

    def problem(self, text: str) -> None:
        """One line on standard error."""
        self._err.print(" ".join(text.split()), style="red" if sys.stderr.isatty() else None, markup=False)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[..., None]]:
        """Yield a callback ``(done, total=None)``; shows a bar on a terminal and nothing elsewhere."""
        if self.as_json or not sys.stderr.isatty():
            yield lambda _done, _total=None: None
            return
        columns = (
            SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(),
            TimeRemainingColumn(),
        )  # fmt: skip
        with Progress(*columns, console=self._err, transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total=None: bar.update(task, completed=done, total=total)


class _Rate(ProgressColumn):
    """How many a second, once that is known."""

    def render(self, task: Task) -> Text:
        """The rate of the last moments."""
        return Text(f"{task.speed:,.0f}/s" if task.speed else "")


def _least_width(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> int:
    widest = [max(len(name), *(len(_plain(row[i])) for row in rows), 0) for i, name in enumerate(columns)]
    return sum(min(width, _FOLD_CHARS) + 2 for width in widest)


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.3f}".rstrip("0").rstrip(".")
    text = str(value).replace("\n", "⏎")
    return "".join(c if c.isprintable() else "�" for c in text)


def _jsonable(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset | tuple):
        return list(value)
    if isinstance(value, bytes):
        return value.hex()
    raise TypeError(f"cannot be shown as JSON: {type(value).__name__}")
