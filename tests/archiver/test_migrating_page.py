"""docs/MIGRATING.md: its code runs, and the names it mentions exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import archiver
from archiver import SessionManager, errors

PAGE = (Path(__file__).parents[2] / "docs" / "MIGRATING.md").read_text("utf-8")


def test_the_code_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"SessionManager": SessionManager, "session_id": "s"}
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, names)
    manager = names["manager"]
    assert isinstance(manager, SessionManager)
    assert [m.content for m in manager.messages("s")] == ["why?"]
    manager.close()


def test_the_names_of_the_page_exist() -> None:
    for name in re.findall(r"`(\w+Error)`", PAGE):
        assert hasattr(errors, name) or name in ("ValueError", "KeyError", "TypeError"), name
    for name in re.findall(r"`SessionManager\.(\w+)", PAGE):
        assert hasattr(SessionManager, name), name
    for name in re.findall(r"^from archiver import (.*)$", PAGE, re.MULTILINE)[0].split(", "):
        assert name in archiver.__all__, name
