"""Claims: who is due, who stays, and that no session is ever in two segments at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from archived import session
from live import IDLE_US, NOW_US, fill, live_count, settings

from archiver import archive, sealing, service
from archiver.errors import ConflictError, CorruptDataError, StoreBusyError, UnknownSessionError
from archiver.events import content_sha256
from archiver.hot import HotStore
from archiver.hot.due import ClaimLimits
from archiver.hot.segment import Member, Sealed, Segment
from archiver.objects import DirectoryStore

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
LIMITS = ClaimLimits(max_age_us=24 * HOUR_US, max_sessions=10, segment_sessions=1000, segment_bytes=1 << 30)
SEALED = Sealed(n_sessions=1, membership_digest="d", file_sha256="f", file_bytes=1)


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


def claimed(hot: HotStore) -> dict[str, str]:
    """Session ids of open and closed claims, with the reason."""
    with hot.reader() as connection:
        rows = connection.execute("SELECT s.session_id, c.reason FROM claim c JOIN session s USING(sid)").fetchall()
    return dict(rows)


def claim(hot: HotStore, limits: ClaimLimits = LIMITS) -> Segment | None:
    return hot.claims.claim(limits, now_us=NOW_US)


def test_only_the_expired_are_claimed_to_the_microsecond(hot: HotStore) -> None:
    fill(hot, [session(1)], last_activity_us=NOW_US - LIMITS.max_age_us)
    fill(hot, [session(2)], last_activity_us=NOW_US - LIMITS.max_age_us + 1)
    claim(hot)
    assert claimed(hot) == {"s1": "expired"}


def test_age_zero_expires_at_once(hot: HotStore) -> None:
    fill(hot, [session(1)], last_activity_us=NOW_US)
    claim(hot, ClaimLimits(0, 10, 1000, 1 << 30))
    assert claimed(hot) == {"s1": "expired"}


def test_closed_sessions_are_claimed_whatever_their_age(hot: HotStore) -> None:
    fill(hot, [session(1), session(2)], last_activity_us=NOW_US)
    with hot.transaction() as connection:
        connection.execute("UPDATE session SET state = 1, close_reason = 'closed' WHERE session_id = 's1'")
    claim(hot)
    assert claimed(hot) == {"s1": "closed"}


def test_eviction_goes_down_to_ninety_percent_least_recent_first(hot: HotStore) -> None:
    for n in range(11):
        fill(hot, [session(n)], last_activity_us=NOW_US - (20 + n) * MINUTE_US)
    claim(hot)
    assert claimed(hot) == {"s10": "evicted", "s9": "evicted"}


def test_up_to_the_limit_nobody_is_evicted(hot: HotStore) -> None:
    fill(hot, (session(n) for n in range(10)), last_activity_us=NOW_US - HOUR_US)
    assert claim(hot) is None


def test_recently_active_and_just_restored_sessions_are_not_evicted(hot: HotStore) -> None:
    fill(hot, (session(n) for n in range(20)), last_activity_us=NOW_US - 9 * MINUTE_US)
    [restored] = fill(hot, [session(50)], last_activity_us=NOW_US - 59 * MINUTE_US)
    fill(hot, [session(51)], last_activity_us=NOW_US - 58 * MINUTE_US)
    with hot.transaction() as connection:
        connection.execute(
            "UPDATE session SET restored_us = ? WHERE session_id = ?", (NOW_US - 59 * MINUTE_US, restored.session_id)
        )
    backlog = hot.claims.backlog(LIMITS, now_us=NOW_US)
    assert (backlog.above_limit, backlog.evictable) == (12, 1)
    claim(hot)
    assert claimed(hot) == {"s51": "evicted"}


def test_eviction_across_batches_stops_at_ninety_percent(hot: HotStore) -> None:
    fill(hot, (session(n, n_messages=0) for n in range(1600)), last_activity_us=NOW_US - HOUR_US)
    limits = ClaimLimits(24 * HOUR_US, 1000, 20_000, 1 << 30)
    claim(hot, limits)
    assert len(claimed(hot)) == 700


def test_expired_sessions_do_not_count_against_the_limit(hot: HotStore) -> None:
    fill(hot, (session(n) for n in range(30)), last_activity_us=IDLE_US)
    fill(hot, (session(n) for n in range(100, 110)), last_activity_us=NOW_US - HOUR_US)
    claim(hot)
    assert set(claimed(hot).values()) == {"expired"}


def test_restored_session_that_nobody_continued_is_dropped_not_archived_again(hot: HotStore) -> None:
    record = session(1)
    hot.insert_record(record, last_activity_us=IDLE_US, restored_us=IDLE_US, archived_sha256=content_sha256(record))
    fill(hot, [session(2)])
    claim(hot)
    assert claimed(hot) == {"s2": "expired"}
    assert live_count(hot) == 1


def test_continued_session_is_claimed_as_the_next_revision(hot: HotStore) -> None:
    record = session(1)
    hot.insert_record(record, last_activity_us=IDLE_US, restored_us=IDLE_US, archived_sha256=content_sha256(record))
    with hot.transaction() as connection:
        connection.execute("UPDATE session SET on_loan = 0, language = 'xx'")
    segment = claim(hot)
    assert segment is not None
    [[found]] = hot.claims.rows(segment, group_sessions=10, group_bytes=10_000)
    assert (found.revision, found.language) == (2, "xx")


def test_session_in_an_unreleased_claim_is_not_claimed_again(hot: HotStore) -> None:
    fill(hot, [session(1)])
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    with hot.transaction() as connection:
        connection.execute("UPDATE session SET state = 1, close_reason = 'closed'")
    assert claim(hot) is None


def test_segment_left_open_comes_first_and_takes_nobody_in(hot: HotStore) -> None:
    fill(hot, [session(1)])
    left = claim(hot)
    fill(hot, [session(2)])
    assert claim(hot) == left
    assert claimed(hot) == {"s1": "expired"}


def test_concurrent_archivers_never_share_a_session(hot: HotStore) -> None:
    """Without the spool's lock, which only spares work."""
    fill(hot, (session(n, n_messages=1) for n in range(600)))
    limits = ClaimLimits(24 * HOUR_US, 10, 50, 1 << 30)
    with ThreadPoolExecutor(4) as pool:
        for round_ in [pool.submit(claim, hot, limits) for _ in range(40)]:
            round_.result()
    with hot.reader() as connection:
        total, distinct = connection.execute("SELECT count(*), count(DISTINCT sid) FROM claim").fetchone()
        marked = connection.execute("SELECT count(*) FROM session WHERE claimed = 1").fetchone()[0]
    assert total == distinct == marked > 0


def test_segment_that_grew_after_its_build_cannot_be_closed(hot: HotStore) -> None:
    fill(hot, [session(1)])
    segment = claim(hot)
    assert segment is not None
    fill(hot, [session(2)])
    with hot.transaction() as connection:
        connection.execute(
            "INSERT INTO claim(segment, session_uid, sid, revision, last_seq, reason)"
            " SELECT ?, session_uid, sid, 1, 0, 'expired' FROM session WHERE session_id = 's2'",
            (segment.segment,),
        )
    with pytest.raises(StoreBusyError, match="2 sessions claimed, 1 built"):
        hot.claims.close_segment(segment, SEALED)
    assert hot.claims.segment(segment.segment).state == "open"


@pytest.mark.parametrize("state", ["open", "closed"])
def test_rows_of_an_unverified_segment_are_never_released(hot: HotStore, state: str) -> None:
    fill(hot, [session(1)])
    segment = sealing.seal(hot, settings(), now_us=NOW_US) if state == "closed" else claim(hot)
    assert segment is not None
    with pytest.raises(ConflictError, match=f"is {state}, not verified"):
        hot.claims.release(segment, {}, now_us=NOW_US)
    assert live_count(hot) == 1


def test_a_session_that_its_segments_file_lacks_is_not_deleted(hot: HotStore) -> None:
    fill(hot, [session(1), session(2)])
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    hot.claims.verified(segment)
    with pytest.raises(CorruptDataError, match="lacks 1 of 2 claimed sessions"):
        hot.claims.release(segment, {session(1).session_uid: Member("0" * 64, 0)}, now_us=NOW_US)
    assert live_count(hot) == 2


def test_number_taken_meanwhile_is_not_used_twice(hot: HotStore) -> None:
    sequence = hot.claims.next_sequence()
    hot.claims.add_import_segment(sequence, SEALED, now_us=NOW_US)
    with pytest.raises(StoreBusyError, match="took this number"):
        hot.claims.add_import_segment(sequence, SEALED, now_us=NOW_US)


def test_open_segment_that_lost_all_its_sessions_is_given_up_and_its_number_used(hot: HotStore) -> None:
    fill(hot, [session(1)])
    claim(hot)
    hot.claims.drop_covered(lambda *_: True)
    assert sealing.seal(hot, settings(), now_us=NOW_US) is None
    assert hot.claims.unreleased() == []
    fill(hot, [session(2)])
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    assert segment.sequence == 1


def test_number_before_another_is_not_given_up_but_archived_empty(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    fill(hot, [session(1)])
    claim(hot)
    sealing.seal_records(hot, [session(2)], now_us=NOW_US)
    hot.claims.quarantine("s1", "unreadable")
    report = service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    assert (report.ok, report.segments) == (True, 2)
    assert archive.verify(directory_store, deep=True).ok
    assert [ref.sequence for ref, _ in archive.list_segments(directory_store, hot.archiver_id)] == [1, 2]


def test_session_set_aside_can_be_given_back(hot: HotStore) -> None:
    [record] = fill(hot, [session(1)])
    hot.claims.quarantine("s1", "by mistake")
    assert claim(hot) is None
    assert hot.claims.unquarantine("s1") == record.session_uid
    claim(hot)
    assert claimed(hot) == {"s1": "expired"}
    with pytest.raises(UnknownSessionError):
        hot.claims.unquarantine("s1")


def test_only_uncontinued_restored_sessions_due_are_dropped_without_a_segment(hot: HotStore) -> None:
    record = session(1)
    hot.insert_record(record, last_activity_us=IDLE_US, restored_us=IDLE_US, archived_sha256=content_sha256(record))
    assert claim(hot) is None
    assert live_count(hot) == 0


def test_unknown_session_cannot_be_set_aside(hot: HotStore) -> None:
    with pytest.raises(UnknownSessionError):
        hot.claims.quarantine("nobody", "why")


def test_erased_sessions_leave_no_byte_in_the_database(hot: HotStore) -> None:
    fill(hot, (session(n, user_id="gone" if n == 3 else "u", metadata=f'{{"w":"marker-{n}"}}') for n in range(6)))
    assert hot.claims.drop_covered(lambda _uid, user, _created: user == "gone") == 1
    hot.checkpoint()
    files = b"".join(p.read_bytes() for p in hot.directory.iterdir() if p.is_file())
    assert b"marker-2" in files
    assert b"marker-3" not in files
