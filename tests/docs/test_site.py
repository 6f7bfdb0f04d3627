"""The site is built without a warning, and pages that speak of the code agree with it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from archiver.program import ExitCode
from archiver.settings import Settings
from archiver.telemetry import CounterName, GaugeName
from pipelines.cli import program
from pipelines.cli.lazy import LazyCommand

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OPERATIONS = (DOCS / "OPERATIONS.md").read_text()
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted((DOCS / "howto").glob("*.md"))]


def build(source: Path, target: Path) -> subprocess.CompletedProcess[str]:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    return subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target)],
        cwd=source, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("link", ["[dead](nowhere.md)", "[dead](OPERATIONS.md#no-such-part)", "[dead](#no-such-part)"])
def test_a_dead_link_fails_the_build(tmp_path: Path, link: str) -> None:
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    shutil.copytree(DOCS, tmp_path / "docs")
    with (tmp_path / "docs" / "CONCEPTS.md").open("a") as page:
        page.write(f"\n{link}\n")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 1
    assert "CONCEPTS.md" in done.stderr


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path: Path) -> None:
    done = build(ROOT, tmp_path / "site")
    assert done.returncode == 0, done.stdout + done.stderr
    api = (tmp_path / "site" / "API.html").read_text()
    assert "add_feedback" in api
    assert "AsyncSessionManager" in api
    linked = re.findall(r'(?:src|href)="(https?://[^"]+)"', (tmp_path / "site" / "index.html").read_text())
    assert [url for url in linked if re.search(r"\.(js|css|woff2?)\b", url)] == [], "nothing is loaded from elsewhere"


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = list(DOCS.rglob("*.md"))
    assert [p.name for p in pages if str(p.relative_to(DOCS)) not in navigation] == []


def test_the_metrics_are_those_of_the_code() -> None:
    shown = dict(re.findall(r"^\| `(sessionlake_\w+)` \| (counter|gauge) \|", OPERATIONS, re.MULTILINE))
    assert shown == {c.value[0]: "counter" for c in CounterName} | {g.value[0]: "gauge" for g in GaugeName}


def test_the_exit_codes_are_those_of_the_code() -> None:
    section = OPERATIONS.split("## Exit codes")[1].split("## ")[0]
    assert [int(n) for n in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)] == [code.value for code in ExitCode]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_setting_that_a_page_names_exists(page: Path) -> None:
    sections = "|".join(Settings.model_fields)
    text = page.read_text()
    named = set(re.findall(rf"`((?:{sections})\.[a-z_]+)[`\s=]", text))
    named |= {f"{s}.{k}".lower() for s, k in re.findall(r"SESSIONLAKE_([A-Z]+)__([A-Z_]+)", text) if s != "SECTION"}
    for name in named - {"hot.db", "exports.export"}:  # a file, a function
        section, _, key = name.partition(".")
        assert key in Settings.model_fields[section].annotation.model_fields, f"{page.name}: {name}"  # type: ignore[union-attr]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_and_option_that_a_page_names_exists(page: Path) -> None:
    assert [found for line in invocations(page.read_text()) if (found := problem(line))] == []


def test_an_unknown_command_or_option_would_be_noticed() -> None:
    assert problem("sessionlake sweeep") == "sessionlake sweeep: no command sweeep"
    assert problem("sessionlake sweep --wach") == "sessionlake sweep --wach: no option --wach"
    assert problem("sessionlake --config FILE sessions show ID --html FILE") is None


def invocations(text: str) -> list[str]:
    """Command lines in code spans and console blocks."""
    lines = re.findall(r"`(sessionlake [^`]+)`", text)
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        lines += re.findall(r"^\$ (?:[A-Z_]+=\S+ )*(sessionlake [^|>#\n]*)", block, re.MULTILINE)
    return lines


def problem(line: str) -> str | None:
    """What is wrong with a command line that a page shows, placeholders and all."""
    command: Any = program()
    options, wants_value = set[str](), False
    for word in line.split()[1:]:
        flags = {name: p.is_flag for p in command.params if p.param_type_name == "option" for name in p.opts}
        options |= set(flags)
        if word.startswith("--"):
            if word not in options | {"--help"}:
                return f"{line}: no option {word}"
            wants_value = not flags.get(word, True)
        elif wants_value:
            wants_value = False
        elif hasattr(command, "commands"):
            if word == "COMMAND" or word.startswith("["):
                return None
            if word not in command.commands:
                return f"{line}: no command {word}"
            command = command.commands[word]
            command = command.load() if isinstance(command, LazyCommand) else command
    return None
