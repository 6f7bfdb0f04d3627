"""``sessionlake bench`` runs every benchmark on small inputs and prints figures."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("what", ["hot", "archive", "compact", "export"])
def test_a_benchmark_runs_and_prints_figures(what: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines", "bench", what, "--quick"], cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"\d+(?:\.\d+)?", done.stdout)) > 10, done.stdout
