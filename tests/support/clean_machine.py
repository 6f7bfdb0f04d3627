"""A machine with Python, make and git only: a fresh clone, an empty environment, a page followed to its end.

``python tests/support/clean_machine.py PAGE...`` plays pages so, writes what they printed into them,
and how long it took from ``git clone`` to the mark ``<!-- first success -->``.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from walkthrough import ROOT, Block, Machine, Walkthrough, with_bodies

SUCCESS = "<!-- first success -->"
_MEASURED = ("<!-- measured -->", "<!-- /measured -->")
_NETWORK = (
    "PIP_",
    "SSL_",
    "REQUESTS_",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
)
_PYTHON = Path(os.path.realpath(sys.executable)).parent


@dataclass(frozen=True)
class Played:
    """A page after a run: every block with its new body, and the seconds from clone to first success."""

    blocks: tuple[tuple[Block, str], ...]
    seconds: float


def clean_machine(directory: Path) -> Machine:
    """Nothing of this machine but its system programs, this Python, and its way to the package index."""
    kept = {k: v for k, v in os.environ.items() if k.startswith(_NETWORK)}
    python = directory / ".venv" / "bin"
    environment = kept | {
        "PATH": f"{_PYTHON}:/usr/local/bin:/usr/bin:/bin", "HOME": str(directory),
        "LC_ALL": "C.UTF-8", "COLUMNS": "120", "AWS_EC2_METADATA_DISABLED": "true",
        "PIP_NO_CACHE_DIR": "1", "PIP_QUIET": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    return Machine(environment, str(python / "python"), installs=True, longest_seconds=1800)


@contextmanager
def empty_directory() -> Iterator[Path]:
    """A directory that is gone afterwards: an environment with torch takes a gigabyte."""
    directory = Path(tempfile.mkdtemp(prefix="clean-machine-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def play(page: Path, directory: Path) -> Played:
    """Clone the committed tree and follow the page: README.md in the clone, any other beside it."""
    text = page.read_text()
    started, seconds = time.monotonic(), 0.0
    clone = directory if page.name == "README.md" else directory / "sessionlake"
    subprocess.run(["git", "clone", "--quiet", f"file://{ROOT}", str(clone)], check=True)
    success, played = text.index(SUCCESS), []
    for block, body in Walkthrough(directory, clean_machine(directory)).play(text):
        played.append((block, body))
        if block.end < success:
            seconds = time.monotonic() - started
    return Played(tuple(played), seconds)


def measured(seconds: float) -> str:
    """The sentence about a run, with the machine that it ran on."""
    minutes, rest = divmod(round(seconds), 60)
    taken = f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
    system = platform.freedesktop_os_release()["PRETTY_NAME"].partition(" (")[0]
    day = datetime.now(UTC).date().isoformat()
    return f"**{taken}** (measured {day}: {os.cpu_count()} cores, {system}, Python {platform.python_version()})"


def record(page: Path) -> None:
    """Play a page and write what it printed into it, unless it was edited meanwhile."""
    before = text = page.read_text()
    with empty_directory() as directory:
        played = play(page, directory)
    text = with_bodies(text, played.blocks)
    head, _, rest = text.partition(_MEASURED[0])
    text = f"{head}{_MEASURED[0]}{measured(played.seconds)}{_MEASURED[1]}{rest.partition(_MEASURED[1])[2]}"
    assert page.read_text() == before, f"{page} was edited meanwhile"
    page.write_text(text)


if __name__ == "__main__":
    for name in sys.argv[1:]:
        record(Path(name))
        print(name, "recorded", flush=True)
