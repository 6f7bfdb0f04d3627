"""What a stranger reads: the empty store, the wide table, the flag that would do nothing, the session as archived."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from archiver import SessionManager
from archiver.program import own_name, run
from archiver.settings import load_settings
from pipelines.cli import program


@pytest.fixture
def at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to work in, where sessions expire at once."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS", "0")
    monkeypatch.setenv("SESSIONLAKE_RUNNER__WORKERS", "1")
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], line: str, code: int = 0) -> str:
    assert run(program(), line.split()) == code
    out, err = capsys.readouterr()
    return f"{out}{err}"


def one_session(session_id: str) -> None:
    with SessionManager.from_settings(load_settings()) as manager:
        manager.create_session(session_id, user_id="ada")
        manager.add_message(session_id, "user", "What is 6 × 7?", client_id="m-1")
        manager.add_feedback(session_id, "m-1", "correct")


def test_nothing_is_wrong_with_a_store_that_has_archived_nothing(
    at_once: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "no tables yet: sessionlake compact" in said(capsys, "status")
    assert said(capsys, "sweep") == "nothing has expired\n"
    assert "nothing is wrong" in said(capsys, "verify")
    said(capsys, "compact")
    assert "sessionlake compact brings them in" in said(capsys, "export sft", code=4)
    assert said(capsys, "erase --user ada --dry-run") == "nothing of it is here\n"


def test_counts_of_nothing_are_left_out(at_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (at_once / "old.jsonl").write_text(
        '{"session_id": "s", "created_at": "2026-01-02T10:00:00Z", "chat_history": []}\n'
    )
    assert said(capsys, "import old.jsonl").splitlines()[-1] == "1 new"
    assert said(capsys, "import old.jsonl").splitlines()[-1] == "1 known already"


def test_flags_of_watching_do_nothing_without_it_and_say_so(at_once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "add --watch" in said(capsys, "sweep --health health.json", code=2)
    assert "--metrics-port" in said(capsys, "sweep --watch --metrics-port 99999", code=2)


def test_the_page_of_a_session_shows_what_the_archive_keeps(
    at_once: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_session("s")
    said(capsys, "sweep")
    with monkeypatch.context() as patch:
        patch.delenv("SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS")
        said(capsys, "sessions restore s")
        with SessionManager.from_settings(load_settings()) as manager:
            manager.add_message("s", "assistant", "It is 42.")
    said(capsys, "sweep")
    said(capsys, "sessions show s --html page.html")
    page = (at_once / "page.html").read_text()
    assert "revision 2" in page
    (message,) = re.findall(r'id="message-0">(.*?)</li>', page, re.DOTALL)
    assert "correct" in message, "the verdict names the message by its client's id"


def test_restoring_what_is_live_says_so(
    at_once: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    one_session("s")
    said(capsys, "sweep")
    monkeypatch.delenv("SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS")
    assert said(capsys, "sessions restore s") == "live again: s, 1 message\n"
    assert said(capsys, "sessions restore s") == "live already: s, 1 message\n"


def test_a_row_too_wide_for_the_terminal_is_written_downwards(at_once: Path) -> None:
    one_session("s")
    assert run(program(), ["sweep"]) == run(program(), ["compact"]) == 0
    wide = on_a_terminal("query", "from sessions limit 1")
    assert "row 1" in wide
    assert any(line.split() == ["session_id", "s"] for line in wide.splitlines())
    assert "row 1" not in on_a_terminal("query", "select session_id, n_messages from sessions")


def on_a_terminal(*arguments: str) -> str:
    """What the command writes to a terminal of 80 columns."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["COLUMNS"] = "80"
        os.execv(sys.executable, [sys.executable, "-m", "pipelines", *arguments])
    pieces = []
    while True:
        try:
            piece = os.read(terminal, 65_536)
        except OSError:  # Linux: the other end is closed
            break
        pieces.append(piece)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return b"".join(pieces).decode()


def test_the_program_names_itself_so_that_the_shell_finds_it(at_once: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = at_once / ".venv" / "bin" / "sessionlake"
    script.parent.mkdir(parents=True)
    script.touch(mode=0o755)
    monkeypatch.setattr(sys, "argv", [str(script)])
    monkeypatch.setenv("PATH", "/usr/bin")
    assert own_name() == ".venv/bin/sessionlake"
    monkeypatch.setenv("PATH", str(script.parent))
    assert own_name() == "sessionlake"
