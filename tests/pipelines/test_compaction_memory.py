"""What bounds a run's memory, whatever its size: what a process is given to hold."""

from __future__ import annotations

import json
import pickle
import random

from archived import put, session

from archiver import archive
from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction
from pipelines.compaction.plan import Part, from_body, read_keys
from pipelines.compaction.select import STORED_COLUMNS, select
from pipelines.compaction.tasks import ChosenPart
from pipelines.runs import read_plan
from pipelines.schema import TABLES

NOW_US = 1_790_900_000_000_000


def test_a_task_is_sent_with_its_own_rows_only(directory_store: DirectoryStore) -> None:
    """Arrow sends a slice with all that it was cut from: every task of a run once held the keys of the whole run."""
    ref = put(directory_store, 1, [session(n, n_messages=0) for n in range(1_600)])
    (keys,), _ = read_keys(directory_store, [ref], max_bytes=2**30)
    nothing = TABLES["sessions"].schema.empty_table().select(STORED_COLUMNS)
    chosen = select([keys], nothing, archive.tombstones(directory_store)).chosen[0]
    whole = len(pickle.dumps(ChosenPart.cut(Part(ref, 0, None), keys, chosen)))
    parts = [ChosenPart.cut(Part(ref, i, i + 1), keys, chosen) for i in range(len(keys.row_groups))]
    assert sum(part.chosen.num_rows for part in parts) == 1_600
    assert max(len(pickle.dumps(part)) for part in parts) < whole / 4


def test_a_run_takes_in_twice_the_memory_limit_at_most(directory_store: DirectoryStore) -> None:
    """What planning keeps of a run's sessions is bounded by the run, and its tasks by a share of the limit."""
    limit = 64 * 1024**2
    text = random.Random(1).randbytes(4 * 1024**2).hex()
    for i in range(3):
        many = [session(10 * i + n, n_messages=0, interactions=(), metadata=json.dumps({"t": text})) for n in range(6)]
        put(directory_store, i + 1, many)
    settings = Settings(runner={"workers": 1}, tables={"memory_limit": limit})
    report = compaction.compact(directory_store, settings, now_us=NOW_US)
    plans = [read_plan(directory_store, number) for number in report.runs]
    inputs = [from_body(plan.body) for plan in plans if plan]
    assert report.rows_added["sessions"] == 18
    assert [len(refs) for refs, _ in inputs] == [2, 1]  # 48 MiB each
    assert [len(tasks) for _, tasks in inputs] == [2, 1]
