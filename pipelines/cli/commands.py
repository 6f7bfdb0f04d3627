"""Every command of the program: where it is, and its line in the list. Help and completion import nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

import typer
from typer.core import TyperGroup

from pipelines.cli.base import app
from pipelines.cli.lazy import LazyCommand

Places = Mapping[str, tuple[str, str]]
"""Name: ``module:function`` and one line of help."""

COMMANDS: Final[Places] = {
    "demo": ("pipelines.cli.demo:demo_", "Play the whole way once: live, archive, tables, training set."),
    "import": ("archiver.cli.importing:import_", "Import sessions from files; importing again adds nothing."),
    "sweep": ("archiver.cli.sweep:sweep", "Move expired sessions to the archive."),
    "status": ("pipelines.cli.status:status", "Show what is live, what waits, what the tables hold."),
    "verify": ("archiver.cli.verify:verify", "Check every segment of the archive."),
    "erase": ("pipelines.cli.erase:erase_", "Erase a user or a session everywhere."),
    "compact": ("pipelines.cli.compact:compact", "Bring new segments of the archive into the tables."),
    "query": ("pipelines.cli.query:query_", "Run SQL over the tables, at one version of all six."),
    "sql": ("pipelines.cli.query:sql_", "Print DuckDB views over the exact files of one lake version."),
    "export": ("pipelines.cli.export:export_", "Write a training set, ready for TRL and datasets."),
    "report": ("pipelines.cli.report:report_", "Write one self-contained HTML page about the whole lake."),
    "maintain": ("pipelines.cli.maintain:maintain_", "Merge small files, remove what no version needs any more."),
    "doctor": ("archiver.cli.doctor:doctor_", "Look whether archiving is safe here, and what to do."),
    "bench": ("pipelines.cli.bench:bench", "Measure this machine, peers side by side."),
}
GROUPS: Final[Mapping[str, tuple[str, Places]]] = {
    "sessions": (
        "Look at sessions, live and archived.",
        {
            "list": ("archiver.cli.sessions:sessions_list", "List live sessions, the most recently active first."),
            "show": ("pipelines.cli.show:sessions_show", "Show one session, or write a page that draws its graph."),
            "restore": ("pipelines.cli.restore:sessions_restore", "Make an archived session live again."),
        },
    ),
    "config": (
        "Show or check the settings.",
        {
            "show": ("archiver.cli.config:config_show", "Show every setting with its value."),
            "check": ("archiver.cli.config:config_check", "Check the settings."),
        },
    ),
}


def program() -> TyperGroup:
    """The whole program; a command's module is imported when the command is used."""
    root = cast("TyperGroup", typer.main.get_command(app))
    for name, (line, places) in GROUPS.items():
        group = TyperGroup(name=name, help=line, no_args_is_help=True, rich_markup_mode=None)
        root.add_command(_with_commands(group, places))
    return _with_commands(root, COMMANDS)


def _with_commands(group: TyperGroup, places: Places) -> TyperGroup:
    for name, (place, line) in places.items():
        group.add_command(LazyCommand(name, place, line))
    return group
