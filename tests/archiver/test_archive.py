"""The archive's walks: verify names what is wrong, the ledger decides who is erased."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from archived import ARCHIVER, START_US, segment_bytes, session
from live import NOW_US, archived_records, contents, fill, settings

from archiver import archive, pushing, sealing, segments
from archiver.archive import Ledger, SegmentRef, Tombstone
from archiver.events import SessionRecord
from archiver.hot import HotStore
from archiver.objects import DirectoryStore, ObjectStore


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


@pytest.fixture
def refs(hot: HotStore, directory_store: DirectoryStore) -> list[SegmentRef]:
    """Four segments of ten sessions each, as the archiver makes them."""
    return archived(hot, directory_store, 4)


def archived(hot: HotStore, store: ObjectStore, count: int) -> list[SegmentRef]:
    fill(hot, (session(n, n_messages=4) for n in range(10 * count)))
    while sealing.seal(hot, settings(segment_sessions=10), now_us=NOW_US) is not None:
        pass
    pushing.push_pending(hot, store, settings(), now_us=NOW_US)
    return [ref for ref, _ in archive.list_segments(store, hot.claims.archiver_id)]


def path_of(store: DirectoryStore, ref: SegmentRef) -> Path:
    return Path(store.url.removeprefix("file://")) / ref.key


def found(store: ObjectStore, *, deep: bool = False, expected: dict[str, int] | None = None) -> set[tuple[str, str]]:
    return {(f.kind, f.key) for f in archive.verify(store, deep=deep, expected=expected).findings}


@pytest.mark.parametrize("deep", [False, True])
def test_sound_archive_has_no_findings(refs: list[SegmentRef], directory_store: DirectoryStore, deep: bool) -> None:
    report = archive.verify(directory_store, deep=deep)
    assert (report.ok, report.segments, report.sessions, report.archivers) == (True, 4, 40, 1)


def test_verify_works_on_every_store(hot: HotStore, any_store: ObjectStore) -> None:
    refs = archived(hot, any_store, 2)
    assert archive.verify(any_store, deep=True).ok
    any_store.delete_versions(refs[0].key)
    assert found(any_store) == {("gap", refs[0].key)}


def test_flipped_byte_is_found(refs: list[SegmentRef], directory_store: DirectoryStore) -> None:
    path = path_of(directory_store, refs[1])
    data = bytearray(path.read_bytes())
    data[50] ^= 1
    path.write_bytes(data)
    assert ("digest", refs[1].key) in found(directory_store)
    assert {key for _, key in found(directory_store, deep=True)} == {refs[1].key}


def test_truncated_object_is_found(refs: list[SegmentRef], directory_store: DirectoryStore) -> None:
    path = path_of(directory_store, refs[2])
    path.write_bytes(path.read_bytes()[:-5])
    assert found(directory_store) == {("digest", refs[2].key), ("damaged", refs[2].key)}


def test_deleted_object_is_a_gap(refs: list[SegmentRef], directory_store: DirectoryStore) -> None:
    path_of(directory_store, refs[1]).unlink()
    assert found(directory_store) == {("gap", refs[1].key)}


def test_deleted_last_object_is_a_gap_where_the_store_that_released_it_is_asked(
    hot: HotStore, refs: list[SegmentRef], directory_store: DirectoryStore
) -> None:
    path_of(directory_store, refs[3]).unlink()
    expected = {hot.claims.archiver_id: hot.claims.last_released()}
    assert found(directory_store, expected=expected) == {("gap", refs[3].key)}


def test_swapped_pair_is_found(refs: list[SegmentRef], directory_store: DirectoryStore) -> None:
    one, two = path_of(directory_store, refs[0]), path_of(directory_store, refs[3])
    data = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(data)
    assert {pair for pair in found(directory_store) if pair[0] == "swapped"} == {
        ("swapped", refs[0].key),
        ("swapped", refs[3].key),
    }


def test_forged_rows_are_found_by_their_digests(directory_store: DirectoryStore) -> None:
    ref = SegmentRef(ARCHIVER, 1)
    archive.register_archiver(directory_store, ARCHIVER)
    rows = segments.records_to_batch(sorted((session(n) for n in range(5)), key=lambda r: r.session_uid))
    forged = rows.set_column(8, segments.SCHEMA.field("language"), pa.array(["xx"] * 5))
    sink = io.BytesIO()
    segments.write_segment(sink, segments.SegmentHeader(ARCHIVER, 1), [forged])
    data = sink.getvalue()
    stated = segments.segment_metadata(segments.open_segment(io.BytesIO(data), key="k"), key="k")
    metadata = {"sha256": hashlib.sha256(data).hexdigest(), "membership-digest": stated["membership_digest"]}
    directory_store.create(ref.key, data, metadata=metadata)
    assert archive.verify(directory_store).ok
    assert found(directory_store, deep=True) == {("rows", ref.key)}


def test_unregistered_archiver_and_stray_objects_are_named(directory_store: DirectoryStore) -> None:
    ref = SegmentRef(ARCHIVER, 1)
    data = segment_bytes(ref, [session(1)])
    directory_store.create(ref.key, data, metadata={"sha256": hashlib.sha256(data).hexdigest()})
    directory_store.create("archive/v1/notes.txt", b"hello")
    kinds = {kind for kind, _ in found(directory_store)}
    assert {"unregistered", "stray"} <= kinds


def test_gap_that_a_person_passed_is_a_void(refs: list[SegmentRef], directory_store: DirectoryStore) -> None:
    path_of(directory_store, refs[1]).unlink()
    directory_store.create(refs[1].void_key, b'{"reason":"disk lost"}')
    report = archive.verify(directory_store)
    assert (report.ok, report.voids) == (True, [refs[1].void_key])


def test_first_sequence_of_a_later_archiver_id_is_no_gap(directory_store: DirectoryStore) -> None:
    archive.register_archiver(directory_store, ARCHIVER, first_sequence=5)
    ref = SegmentRef(ARCHIVER, 5)
    data = segment_bytes(ref, [session(1)])
    stated = segments.segment_metadata(segments.open_segment(io.BytesIO(data), key="k"), key="k")["membership_digest"]
    metadata = {"sha256": hashlib.sha256(data).hexdigest(), "membership-digest": stated}
    directory_store.create(ref.key, data, metadata=metadata)
    assert archive.verify(directory_store).ok


def test_listing_continues_after_a_sequence(refs: list[SegmentRef], directory_store: DirectoryStore) -> None:
    after = [ref.sequence for ref, _ in archive.list_segments(directory_store, refs[0].archiver_id, after=2)]
    assert after == [3, 4]


# -------------------------------------------------------------------- tombstones


def test_ledger_covers_sessions_and_users_created_before_the_erasure() -> None:
    record = session(1, user_id="u")
    user, one = Tombstone.of("user", "u", START_US + 10), Tombstone.of("session", record.session_uid, START_US + 10)
    assert Ledger(frozenset([user])).covers("other", "u", START_US)
    assert Ledger(frozenset([one])).covers(record.session_uid, None, START_US)
    assert not Ledger(frozenset([user])).covers("other", "u", START_US + 11), "came back later: a new user"
    assert not Ledger(frozenset([user, one])).covers("other", "v", START_US)
    assert not Ledger(frozenset())


def test_ledger_holds_no_id_and_costs_no_get(any_store: ObjectStore) -> None:
    erased = Tombstone.of("user", "ann@example.org", NOW_US)
    archive.put_tombstone(any_store, erased)
    archive.put_tombstone(any_store, erased)
    assert archive.tombstones(any_store).entries == {erased}
    assert "ann" not in erased.key
    archive.acknowledge(any_store, ARCHIVER, erased)
    assert archive.acknowledged(any_store, ARCHIVER) == {erased.name}


def erase(store: ObjectStore, ref: SegmentRef, *records: SessionRecord) -> archive.ErasedSegment | None:
    stones = (Tombstone.of("session", r.session_uid, NOW_US) for r in records)
    return archive.erase_from_segment(store, ref, Ledger(frozenset(stones)))


def test_erasure_keeps_the_segments_name_and_sealed_digest(hot: HotStore, any_store: ObjectStore) -> None:
    [ref] = archived(hot, any_store, 1)
    before = any_store.head(ref.key)
    records = archived_records(any_store)
    result = erase(any_store, ref, records[0], records[5])
    after = any_store.head(ref.key)
    assert result is not None
    assert before is not None
    assert after is not None
    assert result.erased_sessions == 2
    assert after.metadata["membership-digest"] == before.metadata["membership-digest"]
    assert after.metadata["erased"] == "2"
    assert contents(archived_records(any_store)) == contents(r for r in records if r not in (records[0], records[5]))
    assert archive.verify(any_store, deep=True).ok


def test_second_erasure_adds_up_and_a_third_of_nothing_changes_nothing(
    refs: list[SegmentRef], directory_store: DirectoryStore
) -> None:
    file = archive.open_remote(directory_store, refs[0])
    records = [r for batch in segments.read_batches(file, key="k") for r in segments.batch_to_records(batch)]
    erase(directory_store, refs[0], records[0])
    erase(directory_store, refs[0], *records[:3])
    info = directory_store.head(refs[0].key)
    assert info is not None
    assert info.metadata["erased"] == "3"
    bytes_before = directory_store.get(refs[0].key)
    erase(directory_store, refs[0], *records[:3])
    assert directory_store.get(refs[0].key) == bytes_before
    assert archive.verify(directory_store, deep=True).ok


def test_erasing_everybody_leaves_an_empty_segment_in_its_place(
    refs: list[SegmentRef], directory_store: DirectoryStore
) -> None:
    everybody = archived_records(directory_store)
    for ref in refs:
        erase(directory_store, ref, *everybody)
    report = archive.verify(directory_store, deep=True)
    assert (report.ok, report.sessions, report.erased_sessions, report.segments) == (True, 0, 40, 4)
