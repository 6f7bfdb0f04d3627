"""What lies in the written files beside the rows: nothing that depends on chance, nothing of other sessions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from archived import continued, put, session

from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction

PROGRAM = Path(__file__).parents[1] / "support" / "poisoned.py"
NOW_US = 1_790_900_000_000_000


def written(directory: Path, garbage: int) -> list[str]:
    """What the program writes where fresh memory is full of one byte."""
    environment = os.environ | {"MALLOC_PERTURB_": str(garbage), "ARROW_DEFAULT_MEMORY_POOL": "system"}
    command = [sys.executable, str(PROGRAM), str(directory)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_no_file_holds_bytes_of_unwritten_memory(tmp_path: Path) -> None:
    """Names are made from bytes: two attempts at one run must meet under the same names."""
    first = written(tmp_path / "a", 85)
    assert len(first) > 20
    assert written(tmp_path / "b", 170) == first


def test_a_file_names_nobody_without_a_row_in_it(tmp_path: Path) -> None:
    """An entry of a dictionary without a row would outlive its session's erasure."""
    store = DirectoryStore(tmp_path)
    settings = Settings(runner={"workers": 1})
    bare = [session(n, days=1, user_id=f"bare{n}", interactions=(), graph_state=None) for n in range(3)]
    records = [session(n, days=1, n_messages=4, user_id=f"u{n % 2}") for n in range(3, 12)]
    put(store, 1, [*bare, *records, session(12, days=1, n_messages=0, user_id="silent")])
    compaction.compact(store, settings, now_us=NOW_US)
    put(store, 2, [continued(records[0], messages=0), continued(records[1])])
    compaction.compact(store, settings, now_us=NOW_US + 1)
    files = sorted((tmp_path / "tables").glob("*/data/**/*.parquet"))
    with_keys = [file for file in files if "feedback_summary" not in file.parts]
    assert {file.parts[-4] for file in with_keys} == {"sessions", "messages", "interactions", "nodes", "feedback"}
    for file in with_keys:
        for key in ("session_uid", "session_id", "user_id"):
            assert entries(file, key) == set(pq.ParquetFile(file).read([key])[key].drop_null().to_pylist()), file


def entries(file: Path, column: str) -> set[str]:
    """What the dictionary pages of a column hold."""
    chunks = pq.ParquetFile(file, read_dictionary=[column]).read([column])[column].chunks
    return {value for chunk in chunks for value in chunk.dictionary.to_pylist()}
