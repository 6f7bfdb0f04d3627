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
from pipelines import compaction, lake

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


def test_a_file_names_no_session_without_a_row_in_it(tmp_path: Path) -> None:
    """An entry of a dictionary without a row would outlive the session's erasure."""
    store = DirectoryStore(tmp_path)
    records = [session(n, days=1, n_messages=4, user_id="u1") for n in range(6)]
    put(store, 1, records)
    compaction.compact(store, Settings(runner={"workers": 1}), now_us=NOW_US)
    quiet = continued(records[0], messages=0)
    put(store, 2, [quiet, continued(records[1])])
    compaction.compact(store, Settings(runner={"workers": 1}), now_us=NOW_US + 1)
    files = sorted(lake.local_path(store, "tables/messages/data").rglob("part-0000000002-*"))
    assert [pq.read_table(file, columns=["session_id"])["session_id"].unique().to_pylist() for file in files] == [
        ["s1"]
    ]
    assert all(quiet.session_uid.encode() not in pages(file, "session_uid") for file in files)


def pages(file: Path, column: str) -> bytes:
    """The pages of one column, decompressed."""
    found = pq.read_table(file.open("rb"), columns=[column], read_dictionary=[column])[column].chunk(0).dictionary
    return b"\n".join(value.encode() for value in found.to_pylist())
