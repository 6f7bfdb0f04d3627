"""Every program of docs/TRAINING.md runs; those that need torch run in tests/trainers."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import archived
import pytest
from replays import reasoning

from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction, exports

PAGE = Path(__file__).parents[2] / "docs" / "TRAINING.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), flags=re.DOTALL)
PLAIN = [block for block in BLOCKS if "torch" not in block and "trl" not in block]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("lake")
    store, settings = DirectoryStore(root), Settings(runner={"workers": 1})  # type: ignore[arg-type]
    archived.put(store, 1, [reasoning(n) for n in range(300)])
    compaction.compact(store, settings, now_us=1)
    exports.export(store, settings, "preferences", now_us=1)
    return root


def test_the_page_has_programs_of_both_kinds() -> None:
    assert (len(BLOCKS), len(PLAIN)) == (5, 3)


@pytest.mark.parametrize("block", PLAIN, ids=["datasets", "duckdb", "latest"])
def test_programs_run(block: str, lake: Path) -> None:
    directory = next(path for path in (lake / "exports" / "preferences").iterdir() if path.is_dir())
    program = f"DIRECTORY, LAKE = {str(directory)!r}, {str(lake)!r}\n{block}"
    command, environment = [sys.executable, "-c", program], {"HF_HOME": str(lake / "hf")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert any(word in done.stdout for word in ("'train':", "rank", directory.name)), done
