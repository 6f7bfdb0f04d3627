from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from archived import put
from remains import places_of, stored_bytes
from s3_servers import S3Server

from archiver import archive, erasure, service
from archiver.errors import InputError, StorageError, UnknownSessionError, UnsuitableStorageError
from archiver.events import Interaction, Message, SessionRecord, content_sha256
from archiver.hot import HotStore
from archiver.objects import DirectoryStore, ObjectInfo, ObjectStore, StoreFacts, open_store
from archiver.program import ExitCode, exit_code
from archiver.segments import batch_to_records, read_batches
from archiver.settings import Settings, load_settings

NOW = 1_750_000_000_000_000
DAY = 86_400_000_000


@pytest.fixture
def settings() -> Settings:
    return load_settings(flags={"archive.max_wait_minutes": 0})


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[HotStore]]:
    stores = [HotStore(tmp_path / name) for name in ("host-a", "host-b")]
    yield stores
    for store in stores:
        store.close()


def _record(user: str, n: int, *, created_us: int = NOW - 30 * DAY, session_id: str = "") -> SessionRecord:
    start = created_us + n
    return SessionRecord(
        session_id=session_id or f"{user}-{n}",
        created_at_us=start,
        updated_at_us=start + 5,
        user_id=user,
        language="en",
        tz_assumed=False,
        messages=(Message("user", f"secret of {user} number {n}", start + 1), Message("assistant", "yes", start + 2)),
        interactions=(Interaction(start + 3, "inject", "n1", f"thought of {user}"),),
        graph_state=f'{{"nodes": [{{"id": "n1", "content": "graph of {user}"}}]}}',
        metadata=f'{{"name": "name of {user}"}}',
    )


def _sweep(hot: HotStore, store: ObjectStore, settings: Settings, *, now_us: int = NOW) -> None:
    report = service.sweep(hot, store, settings, now_us=now_us)
    assert report.ok, report.failures


def _fill(hosts: list[HotStore], store: ObjectStore, settings: Settings) -> list[SessionRecord]:
    """Three segments on two hosts, two users in each."""
    records = [_record(user, n) for n in range(12) for user in ("eve", "bob")]
    for part, hot in enumerate((hosts[0], hosts[0], hosts[1])):
        for record in records[part * 8 : part * 8 + 8]:
            hot.insert_record(record, last_activity_us=record.created_at_us)
        _sweep(hot, store, settings)
    return records


def _records(store: ObjectStore) -> dict[str, str]:
    """session_uid → content digest of everything readable in the archive."""
    found = {}
    for archiver_id in archive.list_archivers(store):
        for ref, _ in archive.list_segments(store, archiver_id):
            for batch in read_batches(archive.open_remote(store, ref), key=ref.key):
                found |= {record.session_uid: content_sha256(record) for record in batch_to_records(batch)}
    return found


def _erase(
    hot: HotStore, store: ObjectStore, settings: Settings, *, now_us: int = NOW, **whom: str
) -> erasure.EraseReceipt:
    plan = erasure.plan_erasure(hot, store, now_us=now_us, **whom)  # type: ignore[arg-type]
    return erasure.erase(hot, store, plan, push=lambda: _sweep(hot, store, settings, now_us=now_us))


def test_nothing_of_an_erased_user_is_left_anywhere_and_others_are_untouched(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    records = _fill(hosts, directory_store, settings)
    hosts[0].insert_record(_record("eve", 50), last_activity_us=NOW)  # still live
    before = _records(directory_store)
    assert places_of(b"of eve", directory_store, hosts)

    receipt = _erase(hosts[0], directory_store, settings, user_id="eve")
    assert receipt.live_sessions == 1
    assert len(receipt.segments) == 3
    assert sum(receipt.segments.values()) == 12
    assert receipt.pending_archivers == (hosts[1].archiver_id,)
    _sweep(hosts[1], directory_store, settings)
    assert _erase(hosts[0], directory_store, settings, user_id="eve").complete

    assert places_of(b"of eve", directory_store, hosts) == []
    others = {r.session_uid for r in records if r.user_id == "bob"}
    assert _records(directory_store) == {uid: digest for uid, digest in before.items() if uid in others}


def test_a_rewritten_segment_is_still_its_archivers_own(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    _fill(hosts, directory_store, settings)
    (ref, _), *_ = archive.list_segments(directory_store, hosts[0].archiver_id)
    sealed = directory_store.head(ref.key)
    _erase(hosts[0], directory_store, settings, user_id="eve")
    erased = directory_store.head(ref.key)
    assert sealed is not None
    assert erased is not None
    assert erased.metadata["membership-digest"] == sealed.metadata["membership-digest"]
    assert erased.metadata["erased"] == "4"


def test_planning_writes_nothing(hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings) -> None:
    _fill(hosts, directory_store, settings)
    hosts[0].insert_record(_record("eve", 50), last_activity_us=NOW)
    before = {name: data for name, data in stored_bytes(directory_store, []) if "/.store/" not in name}
    plan = erasure.plan_erasure(hosts[0], directory_store, user_id="eve", now_us=NOW)
    assert plan.live_sessions == 1
    assert sorted(plan.segments.values()) == [4, 4, 4]
    assert {name: data for name, data in stored_bytes(directory_store, []) if "/.store/" not in name} == before
    with hosts[0].reader() as connection:
        assert connection.execute("SELECT count(*) FROM session").fetchone() == (1,)


def test_revisions_from_before_the_user_was_known_go_too(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    anonymous = replace(_record("eve", 1), user_id=None)
    hosts[0].insert_record(anonymous, last_activity_us=anonymous.created_at_us)
    _sweep(hosts[0], directory_store, settings)
    known = replace(_record("eve", 1), revision=2)
    put(directory_store, 1, [known, _record("bob", 1)], archiver=hosts[1].archiver_id)
    plan = erasure.plan_erasure(hosts[0], directory_store, user_id="eve", now_us=NOW)
    assert sorted(plan.segments.values()) == [1, 1]
    _erase(hosts[0], directory_store, settings, user_id="eve")
    assert places_of(b"of eve", directory_store, hosts) == []
    assert places_of(b"of bob", directory_store, hosts)


def test_a_session_dated_in_a_far_future_is_erased(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    future = 32_472_144_000_000_000  # the year 2999
    for record in (_record("eve", 1, created_us=future), _record("eve", 2)):
        hosts[0].insert_record(record, last_activity_us=NOW - 30 * DAY)
    _sweep(hosts[0], directory_store, settings)
    assert _erase(hosts[0], directory_store, settings, user_id="eve").complete
    assert places_of(b"of eve", directory_store, hosts) == []


def test_a_session_is_erased_in_all_its_conversations_and_no_other_is(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    _fill(hosts, directory_store, settings)
    again = _record("eve", 3, created_us=NOW - 2 * DAY, session_id="eve-3")  # a later conversation of the same id
    hosts[1].insert_record(again, last_activity_us=again.created_at_us)
    _sweep(hosts[1], directory_store, settings)
    receipt = _erase(hosts[0], directory_store, settings, session_id="eve-3")
    assert len(receipt.tombstones) == 2
    assert sum(receipt.segments.values()) == 2
    _sweep(hosts[1], directory_store, settings)
    assert places_of(b"eve number 3", directory_store, hosts) == []
    assert places_of(b"eve number 4", directory_store, hosts)


def test_whom_to_erase_must_be_said(hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings) -> None:
    with pytest.raises(UnknownSessionError):
        erasure.plan_erasure(hosts[0], directory_store, session_id="never-seen", now_us=NOW)
    with pytest.raises(InputError):
        erasure.plan_erasure(hosts[0], directory_store, now_us=NOW)
    with pytest.raises(InputError):
        erasure.plan_erasure(hosts[0], directory_store, user_id="u", session_id="s", now_us=NOW)


def test_a_user_who_comes_back_is_a_new_user(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    _fill(hosts, directory_store, settings)
    _erase(hosts[0], directory_store, settings, user_id="eve")
    back = _record("eve", 90, created_us=NOW + DAY)
    hosts[0].insert_record(back, last_activity_us=back.created_at_us)
    _sweep(hosts[0], directory_store, settings, now_us=NOW + 5 * DAY)
    assert back.session_uid in _records(directory_store)


class _DiesAfterPut(DirectoryStore):
    """The host is cut off right after its segment arrived: pushed, not released."""

    def head(self, key: str) -> ObjectInfo | None:
        if key.endswith(".parquet"):
            raise StorageError("cut off", operation="head", key=key)
        return super().head(key)


def test_a_host_between_push_and_release_obeys_before_it_releases(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings, tmp_path: Path
) -> None:
    _fill(hosts, directory_store, settings)
    late = [_record(user, 70) for user in ("eve", "bob")]
    for record in late:
        hosts[1].insert_record(record, last_activity_us=record.created_at_us)
    assert not service.sweep(hosts[1], _DiesAfterPut(tmp_path / "lake"), settings, now_us=NOW).ok
    assert places_of(b"eve number 70", directory_store, hosts[1:])

    receipt = _erase(hosts[0], directory_store, settings, user_id="eve")
    assert receipt.pending_archivers == (hosts[1].archiver_id,)
    _sweep(hosts[1], directory_store, settings)
    assert places_of(b"of eve", directory_store, hosts) == []
    assert late[1].session_uid in _records(directory_store)
    assert _erase(hosts[0], directory_store, settings, user_id="eve").complete


@pytest.mark.slow
@pytest.mark.parametrize("step", ["create", "replace", "delete_versions"])
def test_a_killed_erasure_is_finished_by_the_next(
    hosts: list[HotStore], moto_s3: S3Server, settings: Settings, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(moto_s3.settings(bucket=moto_s3.versioned_bucket))
    _fill(hosts, store, settings)
    plan = erasure.plan_erasure(hosts[0], store, user_id="eve", now_us=NOW)
    original = getattr(type(store), step)
    calls = []

    def dies(self: ObjectStore, key: str, *args: object, **values: object) -> object:
        calls.append(key)
        if key.startswith("archive/") and len([k for k in calls if k.startswith("archive/")]) == 2:
            raise KeyboardInterrupt
        return original(self, key, *args, **values)

    with monkeypatch.context() as patch:
        patch.setattr(type(store), step, dies)
        with pytest.raises(KeyboardInterrupt):
            erasure.erase(hosts[0], store, plan, push=lambda: _sweep(hosts[0], store, settings))
    assert _erase(hosts[0], store, settings, user_id="eve").pending_archivers == (hosts[1].archiver_id,)
    _sweep(hosts[1], store, settings)
    assert _erase(hosts[0], store, settings, user_id="eve").complete
    assert places_of(b"of eve", store, hosts, moto_s3) == []


def test_a_damaged_segment_is_named_and_the_others_are_erased(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    _fill(hosts, directory_store, settings)
    (ref, _), *_ = archive.list_segments(directory_store, hosts[0].archiver_id)
    data = directory_store.get(ref.key)
    directory_store.delete_versions(ref.key)
    directory_store.create(ref.key, data[: len(data) // 2])
    receipt = _erase(hosts[0], directory_store, settings, user_id="eve")
    assert receipt.unreadable == (ref.key,)
    assert len(receipt.segments) == 2
    assert not receipt.complete


class _ReplacesAnything(DirectoryStore):
    def probe(self, key: str) -> StoreFacts:
        return StoreFacts(creates_once=True, replaces_if_match=False, refuses_bad_checksum=True)


def test_where_objects_cannot_be_replaced_safely_nothing_is_begun(
    hosts: list[HotStore], tmp_path: Path, settings: Settings
) -> None:
    store = _ReplacesAnything(tmp_path / "lake")
    _fill(hosts, store, settings)
    with pytest.raises(UnsuitableStorageError, match="replaced safely") as caught:
        _erase(hosts[0], store, settings, user_id="eve")
    assert exit_code(caught.value) == ExitCode.FAILED, "trying again will not help"
    assert not archive.tombstones(store)


def test_a_repeated_erasure_of_a_session_makes_no_second_tombstone(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    _fill(hosts, directory_store, settings)
    for later_us in (0, 5, 9):
        plan = erasure.plan_erasure(hosts[0], directory_store, session_id="eve-3", now_us=NOW + later_us)
        erasure.erase(hosts[0], directory_store, plan, push=lambda: _sweep(hosts[0], directory_store, settings))
        assert len(archive.tombstones(directory_store).entries) == 1


def test_nobody_waits_for_a_retired_archiver(
    hosts: list[HotStore], directory_store: DirectoryStore, settings: Settings
) -> None:
    _fill(hosts, directory_store, settings)
    gone = hosts[1].archiver_id
    assert _erase(hosts[0], directory_store, settings, user_id="eve").pending_archivers == (gone,)
    assert list(service.status(hosts[0], directory_store, settings, now_us=NOW).unacknowledged) == [gone]
    for nobody in (hosts[0].archiver_id, "f" * 32):
        with pytest.raises(InputError):
            service.retire_archiver(hosts[0], directory_store, nobody)
    service.retire_archiver(hosts[0], directory_store, gone)
    assert service.status(hosts[0], directory_store, settings, now_us=NOW).unacknowledged == {}
    assert _erase(hosts[0], directory_store, settings, user_id="eve").complete
