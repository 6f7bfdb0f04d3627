"""No block of the documents stands there unexecuted: each page with blocks is played, or run by a test named here."""

from __future__ import annotations

import re
from pathlib import Path

import clean_machine
import pytest
from walkthrough import ROOT, Block, blocks, commands

from pipelines.cli.commands import COMMANDS, GROUPS

GENERATED = {"docs/CLI.md", "docs/TABLES.md", "docs/API.md"}
PLAYED = {
    "README.md", "docs/index.md", "docs/OPERATIONS.md", "docs/howto/erase.md", "docs/howto/fastapi.md",
    "docs/howto/query.md", "docs/howto/s3.md", "docs/howto/train.md",
}  # fmt: skip
"""By test_pages.py: console, python and files in the tests' environment, sh on a machine made empty."""

PYTHON_RUN_BY = {
    "docs/MIGRATING.md": "tests/archiver/test_migrating_page.py",
    "docs/TRAINING.md": "tests/pipelines/test_training_page.py",
}
NOT_RUN = {
    ("docs/CONCEPTS.md", " web handlers ──append──▶ hot store"): "a picture",
    ("docs/STORAGE.md", "{root}/archive/…"): "a picture of a directory",
    ("docs/TRAINING.md", "exports/preferences/latest.json"): "a picture of a directory",
    ("docs/STORAGE.md", "SESSIONLAKE_TEST_S3=http"): "wants a server of the reader's; the suite runs on SeaweedFS here",
}
"""What cannot run here: page and how the block begins, and why."""

PAGES = sorted(
    str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")] if not path.is_symlink()
)
FENCE = re.compile(r"^ *(?:```|~~~)", re.MULTILINE)
"""Any fence, also one that the player would not recognise."""


def unexecuted(page: str, text: str) -> list[str]:
    """The first lines of blocks that nothing runs and nothing excuses."""
    found = blocks(text)
    if len(FENCE.findall(text)) != 2 * len(found):
        return [f"{page}: a fence that is not ```LANGUAGE at the start of a line"]
    return [
        f"{page}: {block.body.splitlines()[0]}"
        for before, block in zip([None, *found], found, strict=False)
        if not _runs(page, text, before, block) and not _excused(page, block)
    ]


def _runs(page: str, text: str, before: Block | None, block: Block) -> bool:
    if page in PYTHON_RUN_BY:
        return block.language == "python" and block.title is None
    if page not in PLAYED:
        return False
    if block.title is not None:  # a file: some command names it
        others = "".join(b.body for b in blocks(text) if b.language in ("console", "sh"))
        return block.title in others
    match block.language:
        case "console" | "sh":
            return block.language == "sh" or len(commands(block.body)) > 0
        case "text":
            return before is not None and before.language in ("python", "sh")
        case "python":
            return True
    return False


def _excused(page: str, block: Block) -> bool:
    return any(page == name and block.body.startswith(start) for name, start in NOT_RUN)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in GENERATED])
def test_every_block_is_executed(page: str) -> None:
    assert unexecuted(page, (ROOT / page).read_text()) == []


def test_every_excuse_is_needed() -> None:
    for page, start in NOT_RUN:
        assert any(block.body.startswith(start) for block in blocks((ROOT / page).read_text())), (page, start)


@pytest.mark.parametrize(
    ("page", "added"),
    [
        ("docs/FORMAT.md", "```console\n$ sessionlake verify\n```\n"),
        ("docs/index.md", "```bash\nrm -rf data\n```\n"),
        ("docs/index.md", "```\nsessionlake sweep\n```\n"),
        ("docs/index.md", "  ```console\n  $ sessionlake sweep\n  ```\n"),
        ("docs/index.md", "words\n\n```text\nwhat nothing printed\n```\n"),
        ("docs/index.md", '```toml title="sessionlake.toml"\n[hot]\nmax_sesions = 3\n```\n'),
        ("docs/MIGRATING.md", "```console\n$ sessionlake import old\n```\n"),
        ("docs/TRAINING.md", "```sh\npip install trl\n```\n"),
    ],
)
def test_a_block_that_nothing_runs_is_noticed(page: str, added: str) -> None:
    text = (ROOT / page).read_text()
    assert unexecuted(page, f"{text}\n{added}") != []


def test_every_command_is_executed_on_some_page() -> None:
    names = {*COMMANDS, *(f"{group} {name}" for group, (_, places) in GROUPS.items() for name in places)}
    shown = [
        command for page in PLAYED for block in blocks((ROOT / page).read_text())
        if block.language == "console" for command in commands(block.body)
    ]  # fmt: skip
    run = {name for name in names if any(re.search(rf"\bsessionlake {name}\b", command) for command in shown)}
    assert names - run == {"bench"}, "its own test: tests/e2e/test_bench.py"


@pytest.mark.parametrize("page", sorted(PYTHON_RUN_BY))
def test_the_named_test_runs_the_page(page: str) -> None:
    assert Path(page).name in (ROOT / PYTHON_RUN_BY[page]).read_text()


@pytest.mark.parametrize("page", sorted(PLAYED - {"docs/OPERATIONS.md"}))
def test_a_first_success_in_under_five_minutes_is_recorded(page: str) -> None:
    text = (ROOT / page).read_text()
    assert clean_machine.SUCCESS in text
    found = re.search(r"<!-- measured -->\*\*(?:(\d+) min )?(\d+) s\*\*[^<]+<!-- /measured -->", text)
    assert found is not None
    assert int(found[1] or 0) * 60 + int(found[2]) < 300
