"""Commands that are one batch let the collector look rarely; library calls leave it as it is."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AFTER = """
    import gc, os, sys
    from archiver.program import run
    from pipelines.cli import program
    run(program(), sys.argv[1:])
    print("threshold", gc.get_threshold()[0], flush=True)
    os._exit(0)
"""


def collector_after(*command: str, directory: Path) -> str:
    arguments = [*command, "--hot", str(directory / "hot"), "--storage", f"file:{directory / 'lake'}"]
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AFTER), *arguments],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return run.stdout.splitlines()[-1]


@pytest.mark.parametrize("command", [["sweep"], ["import", "."]], ids=lambda words: words[0])
def test_a_batch_command_sets_the_collector_for_itself(command: list[str], tmp_path: Path) -> None:
    assert collector_after(*command, directory=tmp_path) == "threshold 10000"


def test_a_sweep_within_a_program_leaves_its_collector_alone(tmp_path: Path) -> None:
    program = """
        import gc, sys
        from archiver import SessionManager
        before = gc.get_threshold()
        with SessionManager(sys.argv[1]) as manager:
            manager.create_session("s")
            manager.delete_session("s")
            assert manager.cleanup_stale_sessions().sessions_released == 1
        assert gc.get_threshold() == before
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "hot")]
    assert subprocess.run(arguments, cwd=ROOT, check=False).returncode == 0
