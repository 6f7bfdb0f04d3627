"""The tables know where a session lies, so that restoring it needs no walk through the archive."""

from __future__ import annotations

from archived import OTHER_ARCHIVER, continued, put, session

from archiver import restore
from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import catalog, compaction

NOW_US = 1_790_900_000_000_000


def test_the_newest_revision_is_found_where_it_lies(directory_store: DirectoryStore) -> None:
    assert catalog.locate(directory_store, "s3") is None
    records = [session(n) for n in range(12)]
    first = put(directory_store, 1, records)
    later = continued(records[3])
    second = put(directory_store, 1, [later], archiver=OTHER_ARCHIVER)
    compaction.compact(directory_store, Settings(runner={"workers": 1}), now_us=NOW_US)

    assert catalog.locate(directory_store, "s5") == (first, records[5].session_uid, 1)
    found = catalog.locate(directory_store, "s3")
    assert found == (second, later.session_uid, 2)
    assert restore.read_session(directory_store, restore.Place(*found)) == later
    assert catalog.locate(directory_store, "never-seen") is None


def test_the_newest_conversation_of_an_id_is_found(directory_store: DirectoryStore) -> None:
    old = session(1)
    new = session(1, created_at_us=old.created_at_us + 1)
    put(directory_store, 1, [old, new])
    compaction.compact(directory_store, Settings(runner={"workers": 1}), now_us=NOW_US)
    found = catalog.locate(directory_store, "s1")
    assert found is not None
    assert found[1] == new.session_uid
