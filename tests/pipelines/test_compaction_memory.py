"""What bounds a run's memory, whatever its size: what a process is given to hold."""

from __future__ import annotations

import pickle

from archived import put, session

from archiver import archive
from archiver.objects import DirectoryStore
from pipelines.compaction.plan import Part, read_keys
from pipelines.compaction.select import STORED_COLUMNS, select
from pipelines.compaction.tasks import ChosenPart
from pipelines.schema import TABLES


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
