"""Writes what the code already knows: docs/TABLES.md and docs/CLI.md.

``make docs`` runs it; a test compares its result with what stands in the tree.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipelines.cli import program
from pipelines.schema import EXPORTS, TABLES, Dataset

HERE = Path(__file__).parent

_HEAD = """# Tables and training sets

Generated from `pipelines/schema.py` by `make docs`; a test compares them.

Every table lies under `tables/{table}/` as Delta Lake, its files under `tables/{table}/data/dt=YYYY-MM-DD/`, where
`dt` is the UTC date of the session's `created_at`. Read through Delta and you see one exact version; a plain glob over
`tables/{table}/data/**/*.parquet` works in every reader, and is exact whenever nothing superseded lies there.
"""


def tables_page() -> str:
    """docs/TABLES.md."""
    tables = "\n".join(_section(t) for t in TABLES.values())
    exports = "\n".join(_section(t) for t in EXPORTS.values())
    return f"{_HEAD}\n# Tables\n\n{tables}\n# Training sets\n\n{exports}"


def _section(dataset: Dataset) -> str:
    rows = "\n".join(_row(field) for field in dataset.schema)
    return (
        f"## {dataset.name}\n\nOne row per {dataset.rows}. Sorted by {', '.join(dataset.sort_keys)}.\n\n"
        f"| column | type | null | meaning |\n|---|---|---|---|\n{rows}\n"
    )


def _row(field: pa.Field) -> str:
    meaning = field.metadata[b"description"].decode().replace("|", "\\|")
    return f"| {field.name} | {type_name(field.type)} | {'yes' if field.nullable else ''} | {meaning} |"


def type_name(type_: pa.DataType) -> str:
    """An Arrow type as people write it."""
    if pa.types.is_list(type_):
        return f"list<{type_name(type_.value_type)}>"
    if pa.types.is_struct(type_):
        return f"struct<{', '.join(f'{f.name}: {type_name(f.type)}' for f in type_)}>"
    return {"timestamp[us, tz=UTC]": "timestamp[us, UTC]", "double": "float64", "float": "float32"}.get(
        str(type_), str(type_)
    )


_CLI_HEAD = """# Command line

Generated from the commands by `make docs`; a test compares them.

Exit codes: 0 done or nothing to do, 1 failed, 2 usage or settings, 3 conflict (a person decides),
4 done in part (rejects, a gap), 75 temporary (run again).

Global options come before the command: `sessionlake [--config FILE] [--json] [--debug] COMMAND`.
"""


def cli_page() -> str:
    """docs/CLI.md."""
    return _CLI_HEAD + "".join(_command(path, command) for path, command in _walk("sessionlake", program()))


def _walk(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    for name, child in sorted(getattr(command, "commands", {}).items()):
        if hasattr(child, "commands"):
            yield from _walk(f"{path} {name}", child)
        else:
            yield f"{path} {name}", child.load()


def _command(path: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name != "help"]
    usage = " ".join([path, *(_metavar(p) for p in arguments), *(["[OPTIONS]"] if options else [])])
    rows = [f"| `{_metavar(p)}` | {p.help or ''} |" for p in arguments]
    rows += [f"| `{', '.join([*p.opts, *p.secondary_opts])}` | {_help(p)} |" for p in options]
    table = "\n| option | meaning |\n|---|---|\n" + "\n".join(rows) + "\n" if rows else ""
    return f"\n## {path}\n\n{command.help}\n\n```\n{usage}\n```\n{table}"


def _metavar(parameter: Any) -> str:
    name = parameter.metavar or parameter.name.upper()
    name = f"{name}..." if parameter.nargs == -1 else name
    return str(name if parameter.required else f"[{name}]")


def _help(parameter: Any) -> str:
    text = str(parameter.help or "")
    shown = parameter.default
    if shown not in (None, False, True, "", ()) and not callable(shown):
        text = f"{text} (default {shown})"
    return text.replace("|", "\\|")


if __name__ == "__main__":
    (HERE / "TABLES.md").write_text(tables_page())
    (HERE / "CLI.md").write_text(cli_page())
