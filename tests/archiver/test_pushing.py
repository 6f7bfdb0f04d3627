"""Pushing: whatever the storage answers, a segment is in the archive once, and proven before a row goes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from archived import session
from faultproxy import Fault, FaultProxy
from live import NOW_US, archived_records, contents, fill, live_count, settings
from s3_servers import S3Server

from archiver import archive, pushing, sealing, segments, service
from archiver.archive import SegmentRef
from archiver.errors import ConflictError, StorageError
from archiver.events import SessionRecord, content_sha256
from archiver.hot import HotStore
from archiver.hot.archived import ArchivedEntry
from archiver.hot.claims import Claims
from archiver.hot.segment import Segment
from archiver.objects import DirectoryStore, ObjectStore, StoreFacts, open_store
from archiver.pushing import PushReport
from archiver.telemetry import Metrics


def versions(hot: HotStore, record: SessionRecord) -> list[ArchivedEntry]:
    return hot.claims.known_versions(record.session_id, record.created_at_us)


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


def sealed(hot: HotStore, count: int = 20, first: int = 0) -> tuple[list[SessionRecord], Segment]:
    records = fill(hot, (session(n) for n in range(first, first + count)))
    segment = sealing.seal(hot, settings(), now_us=NOW_US)
    assert segment is not None
    return records, segment


def push(hot: HotStore, store: ObjectStore, facts: StoreFacts | None = None) -> PushReport:
    return pushing.push_pending(hot, store, settings(), now_us=NOW_US, facts=facts)


def ref_of(segment: Segment) -> SegmentRef:
    return SegmentRef(segment.archiver_id, segment.sequence)


def assert_all_archived(hot: HotStore, store: ObjectStore, records: list[SessionRecord]) -> None:
    assert contents(archived_records(store)) == contents(records)
    assert live_count(hot) == 0
    assert list(hot.spool.directory.glob("*.parquet")) == []
    assert hot.claims.unreleased() == []


def test_push_moves_rows_to_every_kind_of_store(hot: HotStore, any_store: ObjectStore) -> None:
    records, _ = sealed(hot)
    report = push(hot, any_store)
    assert (report.segments, report.sessions_released, report.sessions_kept) == (1, 20, 0)
    assert_all_archived(hot, any_store, records)
    assert archive.list_archivers(any_store) == [hot.claims.archiver_id]


def test_index_knows_every_session_and_its_row_group(hot: HotStore, directory_store: DirectoryStore) -> None:
    records, segment = sealed(hot, 300)
    push(hot, directory_store)
    file = archive.open_remote(directory_store, ref_of(segment))
    for record in records[::37]:
        [entry] = versions(hot, record)
        assert (entry.archiver_id, entry.sequence, entry.reason) == (segment.archiver_id, 1, "expired")
        assert entry.row_group == segments.row_group_of(file, record.session_uid)
        assert hot.claims.archived(record.session_id) == entry


FAULTS: dict[str, dict[str, Any]] = {
    "answer lost after the commit": {"fault": Fault.LOSE_ANSWER, "method": "PUT", "times": 1},
    "error after the commit": {
        "fault": Fault.ANSWER_AFTER_COMMIT,
        "method": "PUT",
        "code": "InternalError",
        "times": 1,
    },
    "reset in mid-body": {"fault": Fault.RESET_MID_BODY, "method": "PUT", "times": 2},
    "slow down": {"fault": Fault.ANSWER, "method": "PUT", "code": "SlowDown", "times": 2},
    "conflicting request": {"fault": Fault.ANSWER, "method": "PUT", "code": "ConditionalRequestConflict", "times": 2},
    "refused": {"fault": Fault.REFUSE, "method": "PUT", "times": 2},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_outcome_is_asked_not_guessed(hot: HotStore, proxied: tuple[S3Server, FaultProxy], fault: str) -> None:
    server, proxy = proxied
    store = open_store(server.settings(endpoint_url=proxy.url))
    records, segment = sealed(hot)
    proxy.add(path=r"\.parquet", **FAULTS[fault])
    push(hot, store)
    assert_all_archived(hot, store, records)
    assert proxy.count("HEAD", ref_of(segment).key) >= 1


@pytest.mark.parametrize(
    "code", ["AccessDenied", "NoSuchBucket", "ExpiredToken", "RequestTimeTooSkewed", "InvalidAccessKeyId"]
)
def test_definite_refusal_keeps_everything_and_the_next_push_continues(
    hot: HotStore, moto_s3: S3Server, code: str
) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        store = open_store(moto_s3.settings(endpoint_url=proxy.url))
        records, _ = sealed(hot)
        proxy.add(Fault.ANSWER, code=code)
        with pytest.raises(StorageError):
            push(hot, store)
        assert live_count(hot) == 20
        proxy.clear()
        push(hot, store)
        assert_all_archived(hot, store, records)


def test_failure_of_a_push_is_noted_with_its_segment(hot: HotStore, moto_s3: S3Server) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        store = open_store(moto_s3.settings(endpoint_url=proxy.url))
        _, segment = sealed(hot)
        proxy.add(Fault.ANSWER, method="PUT", path=r"\.parquet", code="AccessDenied")
        with pytest.raises(StorageError):
            push(hot, store)
        [waiting] = hot.claims.unreleased()
        assert waiting.sequence == segment.sequence
        assert "AccessDenied" in (waiting.last_error or "")


def test_bytes_damaged_on_the_way_are_noticed_and_replaced(hot: HotStore, moto_s3: S3Server) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:  # moto stores what fails its checksum
        store = open_store(moto_s3.settings(endpoint_url=proxy.url))
        records, _ = sealed(hot)
        proxy.add(Fault.CORRUPT_REQUEST, method="PUT", path=r"\.parquet", times=1)
        push(hot, store)
        assert_all_archived(hot, store, records)
        assert archive.verify(store, deep=True).ok


def test_object_of_other_membership_is_never_overwritten(hot: HotStore, any_store: ObjectStore) -> None:
    records, segment = sealed(hot)
    theirs = segments.void_segment(segments.SegmentHeader(segment.archiver_id, 1), reason="a copy was here first")
    any_store.create(ref_of(segment).key, theirs, metadata={"membership-digest": "0" * 64, "sha256": "0" * 64})
    with pytest.raises(ConflictError, match="doctor --new-archiver"):
        push(hot, any_store)
    assert any_store.get(ref_of(segment).key) == theirs
    assert live_count(hot) == len(records)


def test_new_archiver_id_heals_a_conflict(hot: HotStore, directory_store: DirectoryStore) -> None:
    records, segment = sealed(hot)
    imported = sorted((session(n) for n in range(100, 130)), key=lambda r: r.session_uid)
    sealing.seal_records(hot, imported, now_us=NOW_US)
    theirs = segments.void_segment(segments.SegmentHeader(segment.archiver_id, 1), reason="a copy was here first")
    directory_store.create(ref_of(segment).key, theirs, metadata={"membership-digest": "0" * 64})
    with pytest.raises(ConflictError):
        push(hot, directory_store)
    new = sealing.new_archiver(hot, now_us=NOW_US)
    assert new not in (segment.archiver_id, "")
    while sealing.seal(hot, settings(), now_us=NOW_US) is not None:
        pass
    push(hot, directory_store)
    assert directory_store.get(ref_of(segment).key) == theirs
    assert contents(archived_records(directory_store)) == contents([*records, *imported])
    assert {ref.archiver_id for ref, _ in archive.list_segments(directory_store, new)} == {new}
    assert live_count(hot) == 0


def test_an_import_waits_for_the_segment_that_a_crash_left_open_before_it(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    records = fill(hot, (session(n) for n in range(3)))
    assert sealing.claim(hot, settings(), now_us=NOW_US) is not None
    imported = sealing.seal_records(hot, [session(9)], now_us=NOW_US)
    pusher = pushing.Pusher(hot, directory_store, facts=None, metrics=Metrics())
    assert pusher.push_closed(now_us=NOW_US).segments == 0, "segment 2 never before segment 1"
    assert push(hot, directory_store).segments == 2
    assert [ref.sequence for ref, _ in archive.list_segments(directory_store, imported.archiver_id)] == [1, 2]
    assert contents(archived_records(directory_store)) == contents([*records, session(9)])


def test_new_archiver_id_loses_no_import_even_if_one_file_is_damaged(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    lost = sealing.seal_records(hot, [session(1)], now_us=NOW_US)
    kept = sealing.seal_records(hot, [session(2)], now_us=NOW_US)
    hot.spool.path(lost.archiver_id, lost.sequence).write_bytes(b"damaged")
    new = service.new_archiver(hot, directory_store, now_us=NOW_US)
    assert "import the same files again" in hot.claims.progress().void[lost.sequence]
    push(hot, directory_store)
    assert [r.session_id for r in archived_records(directory_store)] == ["s2"]
    [entry] = versions(hot, session(2))
    assert (entry.archiver_id, entry.sequence) == (new, 1)
    assert kept.membership_digest == next(
        info.metadata["membership-digest"]
        for info in [directory_store.head(SegmentRef(new, 1).key)]
        if info is not None
    )
    assert archive.verify(directory_store, deep=True).ok


class Forgetful(DirectoryStore):
    """A store that counts reads and whose server states digests."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads = 0

    def get(self, key: str) -> bytes:
        self.reads += key.endswith(".parquet")
        return super().get(key)


@pytest.mark.parametrize(("trusted", "reads"), [(True, 0), (False, 1)])
def test_stated_checksum_counts_only_where_the_store_was_seen_to_check_it(
    hot: HotStore, tmp_path: Path, trusted: bool, reads: int
) -> None:
    store = Forgetful(tmp_path / "lake")
    sealed(hot)
    facts = StoreFacts(creates_once=True, replaces_if_match=True, refuses_bad_checksum=trusted)
    push(hot, store, facts)
    assert store.reads == reads


def test_lost_spool_file_is_built_again(hot: HotStore, directory_store: DirectoryStore) -> None:
    records, segment = sealed(hot)
    hot.spool.path(segment.archiver_id, segment.sequence).unlink()
    push(hot, directory_store)
    assert_all_archived(hot, directory_store, records)


def test_damaged_spool_file_is_never_pushed(hot: HotStore, directory_store: DirectoryStore) -> None:
    records, segment = sealed(hot)
    path = hot.spool.path(segment.archiver_id, segment.sequence)
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    push(hot, directory_store)
    assert_all_archived(hot, directory_store, records)
    assert archive.verify(directory_store, deep=True).ok


def test_closed_segment_that_cannot_be_built_becomes_a_void_and_its_sessions_go_later(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    records, segment = sealed(hot)
    hot.spool.path(segment.archiver_id, segment.sequence).unlink()
    with hot.transaction() as connection:
        connection.execute("DELETE FROM event WHERE sid = 3 AND seq = 0")
    assert push(hot, directory_store).voided == 1
    file = archive.open_remote(directory_store, ref_of(segment))
    assert "membership" in segments.segment_metadata(file, key="k")["void"]
    report = archive.verify(directory_store, deep=True)
    assert (report.ok, report.voids) == (True, [ref_of(segment).key])
    assert live_count(hot) == 20
    again = sealing.seal(hot, settings(), now_us=NOW_US)
    assert again is not None
    assert again.sequence == segment.sequence + 1
    push(hot, directory_store)
    assert {r.session_uid for r in archived_records(directory_store)} == {r.session_uid for r in records}
    assert hot.claims.progress().void.keys() == {segment.sequence}


def test_segment_already_there_needs_no_spool_file(hot: HotStore, directory_store: DirectoryStore) -> None:
    records, segment = sealed(hot)
    path = hot.spool.path(segment.archiver_id, segment.sequence)
    metadata: Mapping[str, str] = {
        "membership-digest": segment.membership_digest or "", "sha256": segment.file_sha256 or "", "sessions": "20",
    }  # fmt: skip
    archive.register_archiver(directory_store, segment.archiver_id)
    directory_store.create(ref_of(segment).key, path, metadata=metadata)
    path.unlink()
    with hot.transaction() as connection:
        connection.execute("DELETE FROM event WHERE sid = 3")
    assert push(hot, directory_store).voided == 0
    assert contents(archived_records(directory_store)) == contents(records)
    assert live_count(hot) == 0


@pytest.mark.parametrize("damage", ["gone", "a flipped byte"])
def test_a_release_without_a_sound_spool_file_reads_the_archive(
    hot: HotStore, directory_store: DirectoryStore, damage: str
) -> None:
    records, segment = sealed(hot, 30)
    path = hot.spool.path(segment.archiver_id, segment.sequence)
    archive.register_archiver(directory_store, segment.archiver_id)
    assert directory_store.create(ref_of(segment).key, path)
    hot.claims.verified(segment)
    data = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    assert push(hot, directory_store).sessions_released == 30
    assert [versions(hot, r)[0].content_sha256 for r in records] == [content_sha256(r) for r in records]


def test_erased_between_index_and_deletion_is_in_neither(
    hot: HotStore, directory_store: DirectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    records, segment = sealed(hot, 3)
    path = hot.spool.path(segment.archiver_id, segment.sequence)
    archive.register_archiver(directory_store, segment.archiver_id)
    directory_store.create(ref_of(segment).key, path)
    hot.claims.verified(segment)
    index = Claims._index

    def index_then_erase(claims: Claims, *arguments: object) -> None:
        index(claims, *arguments)
        assert len(versions(hot, records[0])) == 1, "known in the archive before its rows go"
        claims.drop_covered(lambda uid, *_: uid == records[0].session_uid)

    monkeypatch.setattr(Claims, "_index", index_then_erase)
    push(hot, directory_store)
    assert [len(versions(hot, record)) for record in records] == [0, 1, 1]
    assert live_count(hot) == 0


def test_imported_segment_enters_the_index_at_its_release(hot: HotStore, directory_store: DirectoryStore) -> None:
    records = sorted((session(n) for n in range(200)), key=lambda r: r.session_uid)
    sealing.seal_records(hot, records, now_us=NOW_US)
    assert versions(hot, records[0]) == []
    push(hot, directory_store)
    assert contents(archived_records(directory_store)) == contents(records)
    for i in (0, 127, 128, 199):
        [entry] = versions(hot, records[i])
        assert (entry.reason, entry.row_group) == ("imported", i // 128)
        assert entry.content_sha256 == content_sha256(records[i])


def test_lost_import_becomes_a_void_that_tells_to_import_again(hot: HotStore, directory_store: DirectoryStore) -> None:
    segment = sealing.seal_records(hot, [session(1)], now_us=NOW_US)
    hot.spool.path(segment.archiver_id, segment.sequence).unlink()
    assert push(hot, directory_store).voided == 1
    assert versions(hot, session(1)) == []
    assert "spool file" in hot.claims.progress().void[1]


def test_session_written_to_meanwhile_stays_and_becomes_the_next_revision(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    [record], _ = sealed(hot, 1)
    with hot.transaction() as connection:
        connection.execute(
            "INSERT INTO event(sid, seq, kind, created_us, tag, content)"
            " SELECT sid, next_seq, 0, 5, 'user', 'and one more' FROM session"
        )
        connection.execute(
            "UPDATE session SET next_seq = next_seq + 1, n_messages = n_messages + 1, updated_us = ?", (NOW_US,)
        )
    report = push(hot, directory_store)
    assert (report.sessions_released, report.sessions_kept) == (0, 1)
    assert contents(archived_records(directory_store)) == contents([record])
    assert sealing.seal(hot, settings(), now_us=NOW_US) is not None
    push(hot, directory_store)
    first, second = sorted(archived_records(directory_store), key=lambda r: r.revision)
    assert (first.revision, second.revision) == (1, 2)
    assert [m.content for m in second.messages] == [*(m.content for m in first.messages), "and one more"]
    assert [e.revision for e in versions(hot, record)] == [1, 2]
    assert live_count(hot) == 0


def test_deletion_of_a_claimed_session_is_carried_out_at_release(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    sealed(hot, 5)
    with hot.transaction() as connection:
        connection.execute("UPDATE session SET language = 'changed since'")
        connection.execute("UPDATE claim SET drop_rows = 1 WHERE sid = 2")
    report = push(hot, directory_store)
    assert (report.sessions_released, report.sessions_kept) == (1, 4)
    assert live_count(hot) == 4


def test_user_erased_between_seal_and_release_is_in_no_byte_of_the_archive(
    hot: HotStore, directory_store: DirectoryStore, tmp_path: Path
) -> None:
    records = fill(hot, (session(n, user_id="gone" if n % 2 else "stays", n_messages=3) for n in range(10)))
    assert sealing.seal(hot, settings(), now_us=NOW_US) is not None
    archive.put_tombstone(directory_store, archive.Tombstone.of("user", "gone", NOW_US))
    push(hot, directory_store)
    kept = [r for r in records if r.user_id == "stays"]
    assert contents(archived_records(directory_store)) == contents(kept)
    assert [versions(hot, r) for r in records if r.user_id == "gone"] == [[]] * 5
    assert live_count(hot) == 0
    report = archive.verify(directory_store, deep=True)
    assert (report.ok, report.erased_sessions) == (True, 5)


def test_user_erased_while_an_import_waits_is_neither_archived_nor_indexed(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    records = [session(n, user_id="gone" if n % 2 else "stays", n_messages=3) for n in range(10)]
    sealing.seal_records(hot, sorted(records, key=lambda r: r.session_uid), now_us=NOW_US)
    archive.put_tombstone(directory_store, archive.Tombstone.of("user", "gone", NOW_US))
    push(hot, directory_store)
    assert contents(archived_records(directory_store)) == contents(r for r in records if r.user_id == "stays")
    assert {len(versions(hot, r)) for r in records if r.user_id == "gone"} == {0}
    assert {len(versions(hot, r)) for r in records if r.user_id == "stays"} == {1}


def test_segments_appear_in_sequence_order(hot: HotStore, moto_s3: S3Server) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        store = open_store(moto_s3.settings(endpoint_url=proxy.url))
        _, first = sealed(hot)
        sealed(hot, first=100)
        proxy.add(Fault.ANSWER, method="PUT", path=ref_of(first).key, code="AccessDenied")
        with pytest.raises(StorageError):
            push(hot, store)
        assert list(archive.list_segments(store, first.archiver_id)) == []
        proxy.clear()
        push(hot, store)
        assert [ref.sequence for ref, _ in archive.list_segments(store, first.archiver_id)] == [1, 2]


def test_requests_per_segment_are_few(hot: HotStore, moto_s3: S3Server) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        store = open_store(moto_s3.settings(endpoint_url=proxy.url))
        sealed(hot)
        push(hot, store)
        assert proxy.count("PUT") == 2, "registration and segment"
        assert (proxy.count("HEAD"), proxy.count("GET")) == (1, 1), "verification and ledger"


def test_fresh_sessions_are_not_touched(hot: HotStore, directory_store: DirectoryStore) -> None:
    sealed(hot, 3)
    fill(hot, [session(50)], last_activity_us=NOW_US)
    push(hot, directory_store)
    assert live_count(hot) == 1
    assert hot.claims.archived("s50") is None
