"""Random kills of several archivers on one store while writers append: nothing acknowledged is lost or doubled."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest
from live import archived_records, contents
from s3_servers import ENVIRONMENT
from storming import Storm

from archiver import archive, service
from archiver.events import SessionRecord
from archiver.hot import HotStore
from archiver.objects import ObjectStore, open_store
from archiver.settings import ArchiveSettings, HotSettings, Settings, StorageSettings

HOURS_PER_SECOND = 1 / 3600


def storm_settings(tmp_path: Path, storage: StorageSettings) -> Settings:
    return Settings(
        storage=storage,
        hot=HotSettings(path=tmp_path / "hot", session_max_age_hours=0.7 * HOURS_PER_SECOND),
        archive=ArchiveSettings(segment_sessions=8),
    )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["directory", pytest.param("seaweed", marks=pytest.mark.s3)])
def test_200_random_kills_of_three_archivers_while_two_writers_append(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    if kind == "directory":
        storage = StorageSettings(url=f"file:{tmp_path}/lake")
    else:
        storage = request.getfixturevalue("seaweed_s3").settings()
    settings = storm_settings(tmp_path, storage)
    chance = random.Random(4)
    with Storm(settings, tmp_path, ENVIRONMENT) as storm:
        writers = [storm.start(f"w{n}") for n in range(2)]
        archivers = [storm.start("archiver") for _ in range(3)]
        for _ in range(200):
            time.sleep(chance.uniform(0.01, 0.15))
            i = chance.randrange(3)
            os.kill(archivers[i], signal.SIGKILL)
            archivers[i] = storm.start("archiver")
        storm.stop_writers(writers)
        assert storm.errors() == ""
        acknowledged = storm.acknowledged()
    store = open_store(storage)
    archive_the_rest(settings, store)
    assert_exactly_once(store, acknowledged)


def archive_the_rest(settings: Settings, store: ObjectStore) -> None:
    later_us = time.time_ns() // 1000 + 3_600_000_000
    with HotStore.from_settings(settings.hot) as hot:
        report = service.sweep(hot, store, settings, now_us=later_us)
        assert (report.ok, report.backlog) == (True, 0), report.failures
        with hot.reader() as connection:
            assert connection.execute("SELECT count(*) FROM session").fetchone()[0] == 0
        assert [p.name for p in hot.spool.directory.iterdir()] == [".lock"]


def assert_exactly_once(store: ObjectStore, acknowledged: list[tuple[str, str]]) -> None:
    assert len(acknowledged) > 500
    records = archived_records(store)
    assert set(contents(records).values()) == {1}
    conversations: dict[str, list[SessionRecord]] = defaultdict(list)
    for record in records:
        conversations[record.session_uid].append(record)
    found: Counter[tuple[str, str]] = Counter()
    for versions in conversations.values():
        versions.sort(key=lambda r: r.revision)
        assert [r.revision for r in versions] == list(range(1, len(versions) + 1))
        for earlier, later in pairwise(versions):
            assert later.messages[: len(earlier.messages)] == earlier.messages
        found.update((versions[-1].session_id, m.content or "") for m in versions[-1].messages)
    lost = Counter(acknowledged) - found
    unacknowledged = found - Counter(acknowledged)
    assert not lost
    assert max(found.values()) == 1
    assert len(unacknowledged) <= 2, "at most the call under way of each writer"
    assert archive.verify(store, deep=True).ok
