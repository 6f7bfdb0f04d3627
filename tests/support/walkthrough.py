"""Plays a page of the documents in an empty directory: its commands, its programs, and what they print.

A page is Markdown. ``console`` blocks hold commands after ``$`` and their output; ``sh`` blocks hold
commands that install something or need what they installed, and run where a page may install
(:mod:`clean_machine`); a ``python`` or ``json`` block with ``title="NAME"`` is that file; one without
is a program. The output of a program or an ``sh`` block is the ``text`` block after it. A test plays
the pages and compares. ``python tests/support/walkthrough.py PAGE...`` plays pages with what is
installed here and writes the real output into them.
"""

from __future__ import annotations

import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
_FENCE = re.compile(r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<body>.*?)^```$', re.M | re.S)
_PORTS = re.compile(r"\b(?:8000|8333)\b")


@dataclass(frozen=True)
class Block:
    """One fenced block: where its body stands in the page, and what it is."""

    language: str
    title: str | None
    body: str
    start: int
    end: int


def blocks(page: str) -> list[Block]:
    """The fenced blocks of a page."""
    return [Block(m["language"], m["title"], m["body"], m.start("body"), m.end("body")) for m in _FENCE.finditer(page)]


def commands(body: str) -> list[str]:
    """Commands of a console block: lines after ``$``, up to the line that closes their quotes."""
    found: list[str] = []
    lines = iter(body.splitlines())
    for line in lines:
        if line.startswith("$ "):
            command = line.removeprefix("$ ")
            while not _complete(command):
                command += "\n" + next(lines)
            found.append(command)
    return found


def _complete(command: str) -> bool:
    try:
        shlex.split(command)
    except ValueError:
        return False
    return not command.endswith("\\")


_MASKS = (
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(\+00:00|\+00|Z| UTC)?", "TIME"),
    (r"\d{4}-\d\d-\d\d|\d{8}T\d{6}Z", "DATE"),
    (r"\b\d\d:\d\d:\d\d\b", "CLOCK"),
    (r"\b[0-9a-f]{32}\b", "DIGEST"),
    (r"\bv\d{6}-[0-9a-f]+\b", "VERSION"),
    (r"[\w-]{22,}(?=\"|\b)", "ID"),
    (r"[\d,.]+ (s|ms|minutes|B|KiB|MiB|GiB)\b", r"N \1"),
    (r"\.venv/bin/sessionlake\b", "sessionlake"),
    (r"(?m)^setting up \.venv .*\n", ""),
    (r"[\d,.]+ (appends )?a second", "N a second"),
    (r"\b\d+\.\d+\.\d+\b", "RELEASE"),
    (r"[─━-]{3,}", "-"),
    (r"[ \t]+", " "),
)


def masked(text: str) -> list[str]:
    """The lines without what differs from run to run: times, sizes, rates, digests, widths of columns."""
    for pattern, replacement in _MASKS:
        text = re.sub(pattern, replacement, text)
    return [line.strip() for line in text.strip().splitlines()]


@dataclass(frozen=True)
class Machine:
    """Where a page is played.

    Attributes:
        installs: Its ``sh`` blocks are run too.
        preamble: What the shell runs before the page's first command.
        longest_seconds: A page that takes longer is stopped.
    """

    environment: Mapping[str, str]
    python: str
    installs: bool = False
    preamble: str = "true"
    longest_seconds: float = 240


class Shell:
    """One bash in one directory, for all commands of a page."""

    def __init__(self, directory: Path, machine: Machine) -> None:
        self._end = f"end-of-{uuid.uuid4().hex}"
        self._bash = subprocess.Popen(
            ["bash"], cwd=directory, env=dict(machine.environment), text=True, bufsize=1,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        self._deadline = threading.Timer(machine.longest_seconds, os.killpg, (self._bash.pid, 9))
        self._deadline.start()

    def run(self, command: str) -> tuple[str, int]:
        """What a command prints on both streams, and its exit code."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\n{{ code=$?; echo; echo {self._end} $code; (exit $code); }} 2>/dev/null\n")
        lines: list[str] = []
        for line in self._bash.stdout:
            if line.startswith(self._end):
                return "".join(lines).removesuffix("\n"), int(line.split()[1])
            lines.append(line)
        raise AssertionError(f"the shell ended in {command!r}: {''.join(lines)}")

    def close(self) -> None:
        """End the shell and what it started."""
        self._deadline.cancel()
        if self._bash.poll() is None:
            os.killpg(self._bash.pid, 9)
        self._bash.communicate()


def this_machine(directory: Path) -> Machine:
    """The tests' own interpreter and source tree; ``make demo`` is the demo without the installation."""
    clone = directory / "sessionlake"
    if not clone.exists():
        clone.symlink_to(ROOT)
    return Machine(
        _environment(directory), sys.executable,
        preamble="""
            sessionlake() { PYTHONPATH="$WITHOUT_PANDAS:$PYTHONPATH" python -m pipelines "$@"; }
            make() { test "$*" = demo && sessionlake demo; }
        """,
    )  # fmt: skip


class Walkthrough:
    """One page, played in one directory."""

    def __init__(self, directory: Path, machine: Machine | None = None) -> None:
        self._directory = directory
        self._machine = machine or this_machine(directory)
        self._ports: dict[str, str] = {}
        self._printed: str | None = None

    def play(self, page: str) -> Iterator[tuple[Block, str]]:
        """Every block with the body that it should have after this run."""
        shell = Shell(self._directory, self._machine)
        shell.run(self._machine.preamble)
        try:
            for block in blocks(page):
                yield block, self._play_block(shell, block)
        finally:
            shell.close()

    def _play_block(self, shell: Shell, block: Block) -> str:
        printed, self._printed = self._printed, None
        if block.title:
            (self._directory / block.title).write_text(block.body)
        elif block.language == "python":
            self._printed = self._program(block.body)
        elif block.language == "text" and printed is not None:
            return printed
        elif block.language == "console":
            return self._console(shell, commands(block.body))
        elif block.language == "sh" and self._machine.installs:
            self._printed = self._console(shell, block.body.splitlines(), prompt=None)
        return block.body

    def _program(self, body: str) -> str:
        done = subprocess.run(
            [self._machine.python, "-"], input=body, cwd=self._directory, env=self._machine.environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return self._as_shown(done.stdout)

    def _console(self, shell: Shell, wanted: list[str], prompt: str | None = "$ ") -> str:
        shown = ""
        for i, command in enumerate(wanted):
            output, code = shell.run(self._with_free_ports(command))
            assert code == 0 or wanted[i + 1 : i + 2] == ["echo $?"], f"{command}\nexit code {code}\n{output}"
            shown += self._as_shown(output) if prompt is None else f"{prompt}{command}\n{self._as_shown(output)}"
        return shown

    def _as_shown(self, output: str) -> str:
        output = output.replace(f"{self._directory}/", "").replace(str(self._directory), ".")
        for port, used in self._ports.items():
            output = output.replace(used, port)
        lines = [line.rstrip() for line in output.splitlines() if not re.match(r"\[\d+\] \d+$", line)]
        return "".join(f"{line}\n" for line in lines).lstrip("\n")

    def _with_free_ports(self, text: str) -> str:
        """The page's ports may be taken: each stands for a free one; ``weed`` gets all of its own."""
        text = _PORTS.sub(lambda m: self._ports.setdefault(m[0], str(_free_port())), text)
        if text.startswith("weed mini "):
            s3 = self._ports.setdefault("8333", str(_free_port()))
            flags = [f"-{name}.port={_free_port()}" for name in ("master", "volume", "filer", "admin")]
            flags += [f"-s3.port={s3}", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false"]
            return text.replace("weed mini", f"weed mini {' '.join(flags)}")
        return text


def _free_port() -> int:
    """A free port whose companion for gRPC, 10,000 above, is free too."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            if port + 10_000 > 65_535:
                port -= 20_000
            try:
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


def _environment(directory: Path) -> dict[str, str]:
    """A new user's environment: nothing of this machine's settings and credentials; pandas is no dependency."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SESSIONLAKE_", "AWS_"))}
    hidden = Path(tempfile.mkdtemp(prefix="without-pandas-"))
    (hidden / "pandas.py").write_text("raise ImportError('not a dependency of sessionlake')\n")
    return kept | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT), "WITHOUT_PANDAS": str(hidden), "COLUMNS": "120", "LC_ALL": "C.UTF-8",
        "HOME": str(directory), "HF_HOME": str(directory / ".hf"), "AWS_EC2_METADATA_DISABLED": "true",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip


def with_bodies(page: str, played: Iterable[tuple[Block, str]]) -> str:
    """The page with what its blocks should hold."""
    for block, body in reversed(list(played)):
        page = page[: block.start] + body + page[block.end :]
    return page


def record(path: Path) -> None:
    """Play a page and write what it printed into it, unless it was edited meanwhile."""
    before = path.read_text()
    with tempfile.TemporaryDirectory() as directory:
        page = with_bodies(before, Walkthrough(Path(directory)).play(before))
    assert path.read_text() == before, f"{path} was edited meanwhile"
    path.write_text(page)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(Path(name))
