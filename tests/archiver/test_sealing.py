"""Sealing: due sessions become one closed segment, the same however often it is built."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from archived import START_US, session
from live import IDLE_US, NOW_US, contents, fill, settings

from archiver import sealing, segments
from archiver.errors import CorruptDataError, StorageError, StoreBusyError
from archiver.events import Interaction, Message, SessionRecord
from archiver.hot import HotStore


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


def spooled(hot: HotStore) -> list[SessionRecord]:
    found = []
    for path in sorted(hot.spool.directory.glob("*.parquet")):
        file = segments.open_segment(path, key=path.name)
        found += [r for batch in segments.read_batches(file, key="k") for r in segments.batch_to_records(batch)]
    return found


def test_sealed_sessions_are_lossless(hot: HotStore) -> None:
    records = fill(hot, (session(n) for n in range(300)))
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    assert (segment.state, segment.n_sessions, segment.sequence) == ("closed", 300, 1)
    found = spooled(hot)
    assert contents(found) == contents(records)
    assert {r.archived_at_us for r in found} == {NOW_US}
    assert [r.session_uid for r in found] == sorted(r.session_uid for r in records)


def test_nothing_due_seals_nothing(hot: HotStore) -> None:
    fill(hot, [session(1)], last_activity_us=NOW_US - 60_000_000)
    assert sealing.seal(hot, settings(), now_us=NOW_US) is None
    assert hot.claims.unreleased() == []


def test_segment_is_full_at_its_session_limit(hot: HotStore) -> None:
    fill(hot, (session(n) for n in range(25)))
    sizes = []
    while (segment := sealing.seal(hot, settings(segment_sessions=10), now_us=NOW_US)) is not None:
        sizes.append(segment.n_sessions)
    assert sizes == [10, 10, 5]


def test_segment_is_full_at_its_size_limit(hot: HotStore) -> None:
    text = "x" * 100_000
    fill(hot, (session(n, messages=(Message("user", text, START_US),), graph_state=None) for n in range(10)))
    sizes = []
    while (segment := sealing.seal(hot, settings(segment_bytes=350_000), now_us=NOW_US)) is not None:
        sizes.append(segment.n_sessions)
    assert sizes == [3, 3, 3, 1]


def test_oldest_sessions_go_first(hot: HotStore) -> None:
    for n in range(10):
        fill(hot, [session(n)], last_activity_us=IDLE_US + (10 - n) * 3_600_000_000)
    sealing.seal(hot, settings(segment_sessions=4), now_us=NOW_US)
    assert sorted(r.session_id for r in spooled(hot)) == ["s6", "s7", "s8", "s9"]


def test_rebuild_reproduces_the_membership_and_never_trusts_a_file(hot: HotStore) -> None:
    fill(hot, (session(n) for n in range(150)))
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    path = hot.spool.path(segment.archiver_id, segment.sequence)
    path.write_bytes(path.read_bytes()[:-100])
    assert hot.spool.verified(path, segment.file_sha256 or "") is None
    rebuilt = sealing.rebuild(hot, segment)
    file = segments.open_segment(rebuilt.path, key="k")
    assert segments.segment_metadata(file, key="k")["membership_digest"] == segment.membership_digest
    assert hashlib.sha256(path.read_bytes()).hexdigest() == rebuilt.sha256 == segment.file_sha256


WRITES = {
    "message": "UPDATE session SET next_seq = next_seq + 1, updated_us = 7 WHERE sid = 1",
    "metadata": "UPDATE session SET metadata = '{\"changed\":1}' WHERE sid = 1",
    "language": "UPDATE session SET language = 'xx' WHERE sid = 1",
    "updated": "UPDATE session SET updated_us = 99 WHERE sid = 1",
    "user": "UPDATE session SET user_id = 'other' WHERE sid = 1",
    "graph": "INSERT OR REPLACE INTO graph_state(sid, state) VALUES(1, '{}')",
    "graph changed": "UPDATE graph_state SET state = '[]' WHERE sid = 1",
    "graph gone": "DELETE FROM graph_state WHERE sid = 1",
}


@pytest.mark.parametrize("write", WRITES)
def test_write_to_a_claimed_session_does_not_change_what_is_sealed(hot: HotStore, write: str) -> None:
    [record] = fill(hot, [session(1, graph_state='{"nodes":[]}', n_messages=3)])
    claimed = hot.claims.claim(sealing.claim_limits(settings()), now_us=NOW_US)
    assert claimed is not None
    with hot.transaction() as connection:
        connection.execute(WRITES[write])
        connection.execute(
            "INSERT INTO event(sid, seq, kind, created_us, tag, content) VALUES(1, 1000, 0, 5, 'user', 'later')"
        )
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    assert contents(spooled(hot)) == contents([record])
    with hot.transaction() as connection:
        connection.execute("UPDATE session SET language = 'second write' WHERE sid = 1")
    assert sealing.rebuild(hot, segment).sha256 == segment.file_sha256


def test_rows_changed_behind_the_protocols_back_are_not_sealed_as_if_they_were_the_same(hot: HotStore) -> None:
    fill(hot, (session(n, n_messages=4) for n in range(5)))
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    with hot.transaction() as connection:
        connection.execute("UPDATE event SET content = 'forged' WHERE sid = 2 AND seq = 0")
    with pytest.raises(CorruptDataError, match="membership"):
        sealing.rebuild(hot, segment)
    assert not hot.spool.path(segment.archiver_id, segment.sequence).exists()


def test_session_that_cannot_be_archived_is_named_and_can_be_set_aside(hot: HotStore) -> None:
    fill(hot, (session(n) for n in range(10)))
    with hot.transaction() as connection:
        connection.execute("UPDATE session SET created_us = created_us + 1 WHERE session_id = 's4'")
    with pytest.raises(CorruptDataError, match="s4") as caught:
        sealing.seal(hot, settings(), now_us=NOW_US)
    assert "--quarantine" in caught.value.hint
    uid = hot.claims.quarantine("s4", "id and time do not give its uid")
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    assert segment.n_sessions == 9
    assert hot.claims.progress().quarantined == {uid: "id and time do not give its uid"}


def test_full_disk_leaves_no_file_and_the_sessions_claimed(hot: HotStore) -> None:
    records = fill(hot, (session(n) for n in range(200)))
    hot.spool.size_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    hot.claims.claim(sealing.claim_limits(settings()), now_us=NOW_US)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
    try:
        with pytest.raises(StorageError, match="write spool file"):
            sealing.build(hot, hot.claims.unreleased()[0])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [p.name for p in hot.spool.directory.iterdir()] == []
    assert sealing.seal(hot, settings(), now_us=NOW_US) is not None
    assert contents(spooled(hot)) == contents(records)


def test_spool_files_are_private(hot: HotStore) -> None:
    fill(hot, [session(1)])
    sealing.seal(hot, settings(), now_us=NOW_US)
    assert {oct(p.stat().st_mode & 0o777) for p in hot.spool.directory.glob("*.parquet")} == {"0o600"}
    assert oct(hot.spool.directory.stat().st_mode & 0o777) == "0o700"


def test_second_archiver_is_told_that_one_is_at_work(hot: HotStore) -> None:
    with hot.spool.lock(), pytest.raises(StoreBusyError, match="another archiver"), hot.spool.lock(wait_seconds=0.1):
        pass


def test_records_are_sealed_without_ever_being_live(hot: HotStore) -> None:
    records = sorted((session(n) for n in range(40)), key=lambda r: r.session_uid)
    segment = sealing.seal_records(hot, records, now_us=NOW_US)
    assert (segment.kind, segment.state, segment.n_sessions, segment.sequence) == ("import", "closed", 40, 1)
    assert contents(spooled(hot)) == contents(records)
    assert sealing.seal_records(hot, records[:1], now_us=NOW_US).sequence == 2


def test_client_ids_of_events_are_archived_beside_the_unknown_fields(hot: HotStore) -> None:
    messages = (Message("user", "a", START_US), Message("assistant", "b", START_US))
    acts = (Interaction(START_US, "feedback", None, None, "correct", "{}"),)
    extra = '{"topic":"t","messages":{"1":{"id":"m-2","model":"x"}}}'
    [record] = fill(hot, [session(1, messages=messages, interactions=acts, extra=extra)])
    sealing.seal(hot, settings(), now_us=NOW_US)
    assert spooled(hot)[0] == replace(record, archived_at_us=NOW_US)
