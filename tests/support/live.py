"""Hot stores for tests of the archive: sessions put in whole, everything in the archive taken out again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from archived import DAY_US, START_US

from archiver import archive, segments
from archiver.events import SessionRecord, content_sha256
from archiver.hot import HotStore
from archiver.objects import ObjectStore
from archiver.settings import ArchiveSettings, HotSettings, Settings

NOW_US: Final = START_US + 40 * DAY_US
IDLE_US: Final = START_US + 20 * DAY_US
"""last_activity of sessions that are expired at NOW_US."""


def settings(*, max_sessions: int = 1000, segment_sessions: int = 20_000, **archive_values: object) -> Settings:
    """Settings with the limits a test is about; a day's age expires."""
    return Settings(
        hot=HotSettings(max_sessions=max_sessions, session_max_age_hours=24),
        archive=ArchiveSettings(segment_sessions=segment_sessions, **archive_values),
    )


def fill(hot: HotStore, records: Iterable[SessionRecord], *, last_activity_us: int = IDLE_US) -> list[SessionRecord]:
    """Put sessions into a hot store as if they had been live, and return them."""
    done = list(records)
    for record in done:
        hot.insert_record(record, last_activity_us=last_activity_us, durability="process")
    return done


def archived_records(store: ObjectStore) -> list[SessionRecord]:
    """Every session of every segment of every archiver."""
    found: list[SessionRecord] = []
    for archiver_id in archive.list_archivers(store):
        for ref, _ in archive.list_segments(store, archiver_id):
            for batch in segments.read_batches(archive.open_remote(store, ref), key=ref.key):
                found += segments.batch_to_records(batch)
    return found


def contents(records: Iterable[SessionRecord]) -> Counter[tuple[str, int, str]]:
    """Sessions as a bag of (uid, revision, content digest), so that what is lost or doubled shows."""
    return Counter((r.session_uid, r.revision, content_sha256(r)) for r in records)


def live_count(hot: HotStore) -> int:
    """Sessions with rows in the hot store."""
    with hot.reader() as connection:
        return int(connection.execute("SELECT count(*) FROM session").fetchone()[0])
