"""What every command shares: global flags, settings, console, and the exit code of an error."""

from __future__ import annotations

import shutil
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import Abort, Exit, TyperException

from archiver.console import Console
from archiver.errors import (
    ConflictError,
    CorruptDataError,
    InputError,
    SessionConflictError,
    SessionLakeError,
    SettingsError,
    StorageError,
    StoreBusyError,
    UnsuitableStorageError,
)
from archiver.settings import Settings, load_settings
from archiver.telemetry import configure_logging


class ExitCode(IntEnum):
    """What a script can tell from the exit code."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    CONFLICT = 3
    PARTLY = 4
    TEMPORARY = 75


_EXIT_CODES: tuple[tuple[type[SessionLakeError], ExitCode], ...] = (
    (InputError, ExitCode.USAGE),
    (SettingsError, ExitCode.USAGE),
    (ConflictError, ExitCode.CONFLICT),
    (SessionConflictError, ExitCode.CONFLICT),
    (CorruptDataError, ExitCode.FAILED),
    (StoreBusyError, ExitCode.TEMPORARY),
    (UnsuitableStorageError, ExitCode.FAILED),
    (StorageError, ExitCode.TEMPORARY),
)

HotOption = Annotated[
    Path | None, typer.Option("--hot", metavar="DIR", help="directory of the hot store [setting hot.path]")
]
StorageOption = Annotated[
    str | None, typer.Option("--storage", metavar="URL", help="file:DIR or s3://bucket/prefix [setting storage.url]")
]


@dataclass(slots=True)
class Program:
    """The global flags of one invocation; commands find it as ``context.obj``."""

    config: Path | None
    console: Console
    debug: bool

    def settings(self, flags: Mapping[str, Any] | None = None) -> Settings:
        """File, environment and the flags that were given (a flag of None was not)."""
        settings = load_settings(self.config, {k: v for k, v in (flags or {}).items() if v is not None})
        configure_logging(as_json=settings.log.json_lines, level="DEBUG" if self.debug else settings.log.level)
        return settings


def program_of(context: typer.Context, hot: Path | None, storage: str | None, **flags: Any) -> tuple[Program, Settings]:
    """What a command starts from: the program it runs in, and the settings with its flags."""
    program: Program = context.obj
    return program, program.settings({"hot.path": hot, "storage.url": storage, **flags})


def exit_code(error: SessionLakeError) -> ExitCode:
    """The exit code of an error: what the caller does next, as a number."""
    return next((code for cls, code in _EXIT_CODES if isinstance(error, cls)), ExitCode.FAILED)


def exit_code_of_kind(kind: str) -> ExitCode:
    """The exit code of an error that is only known by its ``kind``."""
    return next((code for cls, code in _EXIT_CODES if kind in _kinds(cls)), ExitCode.FAILED)


def _kinds(cls: type[SessionLakeError]) -> set[str]:
    return {cls.kind}.union(*(_kinds(sub) for sub in cls.__subclasses__()))


def run(command: TyperGroup, arguments: Sequence[str]) -> int:
    """Run the program; every error becomes one line on standard error (or one JSON object) and an exit code."""
    console = Console(as_json="--json" in arguments)
    debug = "--debug" in arguments
    try:
        return int(command.main(list(arguments), "sessionlake", standalone_mode=False) or 0)
    except SessionLakeError as error:
        _trace(debug)
        console.error(error)
        return exit_code(error)
    except TyperException as error:
        return _usage(console, error, arguments)
    except Exit as error:
        return error.exit_code
    except (Abort, KeyboardInterrupt):
        console.problem("interrupted")
        return 130
    except BrokenPipeError:
        return 0
    except Exception as error:  # noqa: BLE001  the last resort of a program: report, do not hide
        _trace(debug)
        unexpected = SessionLakeError(
            f"unexpected {type(error).__name__}: {error}", hint="run again with --debug for the traceback"
        )
        console.error(unexpected)
        return ExitCode.FAILED


def _usage(console: Console, error: TyperException, arguments: Sequence[str]) -> int:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "sessionlake"
    message = error.format_message().strip().rstrip(".")
    if not message or type(error).__name__ == "NoArgsIsHelpError":
        message = "no command given"
    given = _given_value(getattr(error, "param", None), arguments)
    if given is not None and given not in message:
        message = f"{message}, got {given!r}"
    console.error(SettingsError(message, operation=command, hint=f"see {command} --help"))
    return ExitCode.USAGE


def _given_value(parameter: Any, arguments: Sequence[str]) -> str | None:
    """The value an option was given: the parser's own message leaves it out."""
    for name in getattr(parameter, "opts", ()):
        for i, argument in enumerate(arguments):
            if argument == name and i + 1 < len(arguments):
                return arguments[i + 1]
            if argument.startswith(f"{name}="):
                return argument.removeprefix(f"{name}=")
    return None


def _trace(debug: bool) -> None:
    if debug:
        traceback.print_exc()


def now_us() -> int:
    """The wall clock, read once at the edge and passed down."""
    return time.time_ns() // 1000


def per_second(count: int, seconds: float) -> int:
    """A rate for people."""
    return round(count / seconds) if seconds > 0 else 0


def shown_url(url: str) -> str:
    """A URL for people: a file's path, relative where it lies below the working directory."""
    if not url.startswith("file://"):
        return url
    path = Path(url.removeprefix("file://"))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def own_name() -> str:
    """How to call this program again from here: by its name, or by its path where the shell would not find the name."""
    script = Path(sys.argv[0]).absolute()
    if script.name != "sessionlake" or shutil.which("sessionlake"):
        return "sessionlake"
    return shown_url(f"file://{script}")


def shown_time(iso: str | None) -> str | None:
    """An aware ISO time for people: to the second, in UTC."""
    return None if iso is None else f"{iso[:10]} {iso[11:19]} UTC"


def plural(count: int, noun: str) -> str:
    """``1 segment``, ``6,836 segments``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def human_bytes(count: int) -> str:
    """A size for people: 412 KiB."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
