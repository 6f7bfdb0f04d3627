from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from archived import continued, put, session
from faultproxy import FaultProxy
from live import NOW_US, fill, live_count, settings
from s3_servers import S3Server

from archiver import archive, restore, segments, service
from archiver.archive import SegmentRef
from archiver.errors import CorruptDataError, ObjectNotFoundError, SessionConflictError
from archiver.events import Interaction, Message, SessionRecord, content_sha256
from archiver.hot import HotStore
from archiver.hot.archived import ArchivedEntry
from archiver.objects import DirectoryStore, ObjectStore, RangeFile, open_store
from archiver.restore import Place

MINE, OTHERS = "a" * 32, "b" * 32
_WORDS = [f"w{i:x}" for i in range(4096)]


def _record(i: int, *, turns: int = 2, revision: int = 1, words: int = 6) -> SessionRecord:
    rng = random.Random(i)
    start = 1_700_000_000_000_000 + i * 1_000_000

    def text() -> str:
        return " ".join(rng.choices(_WORDS, k=words))

    return SessionRecord(
        session_id=f"session-{i:05d}",
        created_at_us=start,
        updated_at_us=start + 9,
        user_id=f"user-{i % 7}",
        language="en",
        tz_assumed=False,
        messages=tuple(Message("user", text(), start + j) for j in range(turns)),
        interactions=(Interaction(start + 5, "feedback", "n1", None, "correct", '{"a":1}'),),
        graph_state='{"nodes": []}',
        revision=revision,
        archived_at_us=start + 10,
    )


def _put(store: ObjectStore, ref: SegmentRef, records: list[SessionRecord], tmp_path: Path) -> None:
    ordered = sorted(records, key=lambda r: r.session_uid)
    file = tmp_path / f"{ref.archiver_id}-{ref.sequence}"
    header = segments.SegmentHeader(ref.archiver_id, ref.sequence)
    segments.write_segment(file, header, map(segments.records_to_batch, segments.row_groups(ordered)))
    archive.register_archiver(store, ref.archiver_id)
    assert store.create(ref.key, file)


def _entry(record: SessionRecord, ref: SegmentRef, row_group: int | None = 0, digest: str = "") -> ArchivedEntry:
    return ArchivedEntry(
        session_uid=record.session_uid, revision=record.revision, session_id=record.session_id, user_id=record.user_id,
        created_us=record.created_at_us, updated_us=record.updated_at_us, last_activity_us=record.created_at_us,
        language=record.language, title=None,
        reason="expired", archiver_id=ref.archiver_id, sequence=ref.sequence, row_group=row_group,
        content_sha256=digest or content_sha256(record),
    )  # fmt: skip


@pytest.fixture
def ref() -> SegmentRef:
    return SegmentRef(MINE, 1)


@pytest.mark.parametrize("hint", [0, 2, None, 99])
def test_any_session_comes_back_lossless_whatever_the_hint(
    directory_store: DirectoryStore, tmp_path: Path, ref: SegmentRef, hint: int | None
) -> None:
    records = [_record(i) for i in range(400)]
    _put(directory_store, ref, records, tmp_path)
    for record in records[::57]:
        assert restore.read_archived(directory_store, _entry(record, ref, hint)) == record


def test_a_revision_is_restored_not_its_predecessor(
    directory_store: DirectoryStore, tmp_path: Path, ref: SegmentRef
) -> None:
    first, second = _record(1), _record(1, turns=5, revision=2)
    _put(directory_store, ref, [first, second], tmp_path)
    assert restore.read_archived(directory_store, _entry(second, ref)) == second
    assert restore.read_archived(directory_store, _entry(first, ref)) == first


def test_other_content_than_archived_is_an_error(
    directory_store: DirectoryStore, tmp_path: Path, ref: SegmentRef
) -> None:
    _put(directory_store, ref, [_record(1)], tmp_path)
    with pytest.raises(CorruptDataError, match="other content"):
        restore.read_archived(directory_store, _entry(_record(1), ref, digest="0" * 64))
    with pytest.raises(CorruptDataError, match="not in its segment"):
        restore.read_archived(directory_store, _entry(_record(2), ref))


def test_a_swapped_or_lost_segment_is_an_error(
    directory_store: DirectoryStore, tmp_path: Path, ref: SegmentRef
) -> None:
    _put(directory_store, ref, [_record(1)], tmp_path)
    swapped = SegmentRef(MINE, 2)
    directory_store.create(swapped.key, directory_store.get(ref.key))
    with pytest.raises(CorruptDataError, match="holds segment"):
        restore.read_archived(directory_store, _entry(_record(1), swapped))
    with pytest.raises(ObjectNotFoundError):
        restore.read_archived(directory_store, _entry(_record(1), SegmentRef(MINE, 3)))


def test_a_flipped_byte_in_a_row_group_is_never_returned(
    directory_store: DirectoryStore, tmp_path: Path, ref: SegmentRef
) -> None:
    records = [_record(i, words=50) for i in range(60)]
    _put(directory_store, ref, records, tmp_path)
    data = bytearray(directory_store.get(ref.key))
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for position in range(200, footer, footer // 40):
        data[position] ^= 4
        directory_store.delete_versions(ref.key)
        directory_store.create(ref.key, bytes(data))
        for record in records[:3]:
            try:
                assert restore.read_archived(directory_store, _entry(record, ref)) == record
            except CorruptDataError:
                continue
        data[position] ^= 4


@pytest.mark.slow
def test_one_session_of_a_64_mb_segment_costs_4_requests_and_a_megabyte(
    proxied: tuple[S3Server, FaultProxy], tmp_path: Path, ref: SegmentRef
) -> None:
    server, proxy = proxied
    records = sorted((_record(i, turns=20, words=80) for i in range(128)), key=lambda r: r.session_uid)
    batch = segments.records_to_batch(records)
    file, header = tmp_path / "segment", segments.SegmentHeader(ref.archiver_id, ref.sequence)
    segments.write_segment(file, header, [batch])
    n = 64 * 1024**2 // file.stat().st_size // 2 + 2
    # the wanted row group in the middle of others that sort before and after it
    before, after = ([_renamed(batch, f"{letter}{i:04d}") for i in range(n)] for letter in "!z")
    segments.write_segment(file, header, [*before, batch, *after])
    assert file.stat().st_size > 64 * 1024**2
    settings = server.settings(endpoint_url=proxy.url)
    open_store(server.settings(url=settings.url)).create(ref.key, file)

    record = records[77]
    assert restore.read_archived(open_store(settings), _entry(record, ref, row_group=None)) == record
    assert proxy.count("GET") == len(proxy.seen) <= 3
    assert proxy.answered_bytes <= 1_000_000


def _renamed(batch: pa.RecordBatch, prefix: str) -> pa.RecordBatch:
    uids = pa.array([f"{prefix}{i:027d}" for i in range(batch.num_rows)])
    return batch.set_column(0, segments.SCHEMA.field("session_uid"), uids)


def test_scan_finds_the_newest_conversation_at_its_highest_revision(
    directory_store: DirectoryStore, tmp_path: Path
) -> None:
    _put(directory_store, SegmentRef(MINE, 1), [_record(i) for i in range(200)], tmp_path)
    later = [_record(7, turns=3, revision=2), _record(300)]
    _put(directory_store, SegmentRef(OTHERS, 1), later, tmp_path)
    place = restore.scan(directory_store, "session-00007")
    assert place is not None
    assert (place.ref, place.revision) == (SegmentRef(OTHERS, 1), 2)
    assert restore.read_session(directory_store, place) == later[0]
    assert restore.scan(directory_store, "session-00300") == Place(SegmentRef(OTHERS, 1), later[1].session_uid, 1, 0)
    assert restore.scan(directory_store, "session-99999") is None


def test_a_restored_session_is_continued_by_one_archiver_only(any_store: ObjectStore) -> None:
    uid = _record(1).session_uid
    restore.continue_session(any_store, MINE, uid, revision=1)
    restore.continue_session(any_store, MINE, uid, revision=1)
    with pytest.raises(SessionConflictError, match=MINE):
        restore.continue_session(any_store, OTHERS, uid, revision=1)
    restore.continue_session(any_store, OTHERS, uid, revision=2)


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[HotStore]]:
    stores = [HotStore(tmp_path / name) for name in ("host-a", "host-b")]
    yield stores
    for store in stores:
        store.close()


def _archived(hot: HotStore, store: ObjectStore) -> list[SessionRecord]:
    records = fill(hot, (session(n) for n in range(20)))
    assert service.sweep(hot, store, settings(), now_us=NOW_US).ok
    return records


def test_the_host_that_archived_it_asks_its_own_index(
    proxied: tuple[S3Server, FaultProxy], hosts: list[HotStore]
) -> None:
    server, proxy = proxied
    store = open_store(server.settings(endpoint_url=proxy.url))
    record = _archived(hosts[0], store)[3]
    proxy.forget()
    assert restore.find_record(hosts[0], store, record.session_id) == replace(record, archived_at_us=NOW_US)
    assert len(proxy.seen) == 3  # tombstones, marker, the end of the segment, which is all of a small one
    assert restore.restore_session(hosts[0], store, record.session_id, now_us=NOW_US)


def test_any_host_restores_any_session(hosts: list[HotStore], directory_store: DirectoryStore) -> None:
    record = _archived(hosts[0], directory_store)[3]
    found = replace(record, archived_at_us=NOW_US)
    assert restore.find_record(hosts[1], directory_store, record.session_id) == found
    assert restore.restore_session(hosts[1], directory_store, record.session_id, now_us=NOW_US)
    assert live_count(hosts[1]) == 1
    assert restore.find_record(hosts[1], directory_store, "never-seen") is None
    assert not restore.restore_session(hosts[1], directory_store, "never-seen", now_us=NOW_US)


def test_a_catalog_spares_the_scan(hosts: list[HotStore], directory_store: DirectoryStore) -> None:
    record = _archived(hosts[0], directory_store)[3]
    asked = []

    def locate(session_id: str) -> tuple[SegmentRef, str, int]:
        asked.append(session_id)
        return SegmentRef(hosts[0].archiver_id, 1), record.session_uid, 1

    found = restore.find_record(hosts[1], directory_store, record.session_id, locate=locate)
    assert found is not None
    assert found.session_uid == record.session_uid
    assert asked == [record.session_id]


def test_an_erased_session_is_not_restored(hosts: list[HotStore], directory_store: DirectoryStore) -> None:
    record = _archived(hosts[0], directory_store)[3]
    archive.put_tombstone(directory_store, archive.Tombstone.of("session", record.session_uid, NOW_US))
    for hot in hosts:
        assert restore.find_record(hot, directory_store, record.session_id) is None
        assert not restore.restore_session(hot, directory_store, record.session_id, now_us=NOW_US)


def test_a_revision_that_another_host_went_on_with_is_found(
    hosts: list[HotStore], directory_store: DirectoryStore
) -> None:
    record = _archived(hosts[0], directory_store)[3]
    restore.continue_session(directory_store, hosts[1].archiver_id, record.session_uid, revision=1)
    known = restore.find_record(hosts[0], directory_store, record.session_id)
    assert known is not None
    assert known.revision == 1  # the other host has not archived its continuation yet
    later = continued(record)
    put(directory_store, 1, [later], archiver=hosts[1].archiver_id)
    assert restore.find_record(hosts[0], directory_store, record.session_id) == later


def test_range_file_reads_like_a_file(directory_store: DirectoryStore) -> None:
    data = random.Random(3).randbytes(5000)
    directory_store.create("o", data)
    file = RangeFile(directory_store, "o", tail_bytes=1000)
    file.prefetch(100, 200)
    for start, length in [(0, 10), (150, 100), (250, 100), (3990, 20), (4500, 400), (4990, 100), (5000, 10)]:
        assert file.seek(start) == start
        assert file.read(length) == data[start : start + length]
        assert file.tell() == min(start + length, 5000)
    file.seek(-10, 2)
    assert file.read() == data[-10:]


def test_range_file_asks_for_a_least_number_of_bytes_at_a_time(directory_store: DirectoryStore) -> None:
    data = random.Random(4).randbytes(9000)
    directory_store.create("o", data)
    asked: list[tuple[int, int]] = []

    class Recorded(DirectoryStore):
        def get_range(self, key: str, start: int, length: int) -> bytes:
            asked.append((start, length))
            return super().get_range(key, start, length)

    file = RangeFile(
        Recorded(Path(directory_store.url.removeprefix("file://"))), "o", tail_bytes=1000, request_bytes=1000
    )
    for start, length in [(10, 5), (900, 100), (1005, 5), (2000, 3000), (7500, 400), (7001, 999), (8500, 100)]:
        file.seek(start)
        assert file.read(length) == data[start : start + length]
    assert asked == [(10, 1000), (2000, 3000), (7500, 1000), (7001, 1000)]
    file.prefetch(8100, 900)
    assert len(asked) == 4  # it is the tail
    file.prefetch(0, 9000)
    assert asked[4:] == [(0, 9000)]
