"""What ObjectStore promises, held against every store there is, and against wrong ones that must fail."""

from __future__ import annotations

import pickle
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from _pytest.outcomes import Failed
from s3_servers import SECRET_KEY

from archiver.errors import ConflictError, CorruptDataError, InputError, ObjectNotFoundError
from archiver.objects import DirectoryStore, ObjectInfo, ObjectStore


def test_create_once_then_read_back(any_store: ObjectStore) -> None:
    assert any_store.create("a/b.parquet", b"first", metadata={"digest": "d1"})
    assert not any_store.create("a/b.parquet", b"second", metadata={"digest": "d2"})
    assert any_store.get("a/b.parquet") == b"first"
    info = any_store.head("a/b.parquet")
    assert info is not None
    assert (info.key, info.size_bytes, dict(info.metadata)) == ("a/b.parquet", 5, {"digest": "d1"})


def test_create_from_a_file(any_store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "segment"
    source.write_bytes(b"0123456789" * 300_000)
    assert any_store.create("big", source)
    assert any_store.get("big") == source.read_bytes()
    assert source.exists()


def test_empty_object(any_store: ObjectStore) -> None:
    assert any_store.create("empty", b"")
    assert any_store.get("empty") == b""
    assert any_store.get_tail("empty", 100) == (b"", 0)


def test_one_winner_among_racing_creators(any_store: ObjectStore) -> None:
    for key in ("race/1", "race/2"):
        barrier = threading.Barrier(4)

        def create(i: int, key: str = key, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait(30)
            return any_store.create(key, b"%d" % i, metadata={"who": str(i)})

        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(create, range(4)))
        assert made.count(True) == 1
        winner = made.index(True)
        info = any_store.head(key)
        assert any_store.get(key) == b"%d" % winner
        assert info is not None
        assert info.metadata["who"] == str(winner)


def test_digests_are_of_the_stored_bytes(any_store: ObjectStore) -> None:
    any_store.create("d", b"hello")
    info = any_store.head("d")
    assert info is not None
    assert info.sha256 in {None, "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"}
    assert info.md5 in {None, "5d41402abc4b2a76b9719d911017c592"}
    assert info.sha256 or info.md5


def test_missing_object(any_store: ObjectStore) -> None:
    assert any_store.head("no/such") is None
    for read in (
        lambda: any_store.get("no/such"),
        lambda: any_store.get_range("no/such", 0, 1),
        lambda: any_store.get_tail("no/such", 1),
    ):
        with pytest.raises(ObjectNotFoundError) as caught:
            read()
        assert caught.value.key == "no/such"


def test_ranges(any_store: ObjectStore) -> None:
    any_store.create("r", bytes(range(100)))
    assert any_store.get_range("r", 10, 5) == bytes(range(10, 15))
    assert any_store.get_range("r", 95, 50) == bytes(range(95, 100))
    assert any_store.get_tail("r", 7) == (bytes(range(93, 100)), 100)
    assert any_store.get_tail("r", 1000) == (bytes(range(100)), 100)
    with pytest.raises(CorruptDataError, match="ends"):
        any_store.get_range("r", 100, 1)


def test_replace_only_what_was_seen(any_store: ObjectStore) -> None:
    any_store.create("k", b"one", metadata={"n": "1"})
    seen = any_store.head("k")
    assert seen is not None
    assert any_store.replace("k", b"two", if_match=seen.etag, metadata={"n": "2"})
    assert not any_store.replace("k", b"three", if_match=seen.etag)
    info = any_store.head("k")
    assert info is not None
    assert (any_store.get("k"), dict(info.metadata)) == (b"two", {"n": "2"})


def test_replace_never_creates(any_store: ObjectStore) -> None:
    any_store.create("gone", b"x")
    seen = any_store.head("gone")
    any_store.delete_versions("gone")
    assert seen is not None
    assert not any_store.replace("gone", b"y", if_match=seen.etag)
    assert any_store.head("gone") is None


def test_delete_is_idempotent_and_frees_the_name(any_store: ObjectStore) -> None:
    any_store.create("x", b"1", metadata={"m": "old"})
    any_store.delete_versions("x")
    any_store.delete_versions("x")
    assert any_store.head("x") is None
    assert any_store.create("x", b"1")
    info = any_store.head("x")
    assert info is not None
    assert dict(info.metadata) == {}


def test_delete_versions_removes_the_object(any_store: ObjectStore) -> None:
    any_store.create("v", b"1")
    any_store.create("v-sibling", b"2")
    assert any_store.delete_versions("v", keep_latest=True) == 0
    assert any_store.get("v") == b"1"
    assert any_store.delete_versions("v") == 1
    assert any_store.delete_versions("v") == 0
    assert any_store.head("v") is None
    assert any_store.get("v-sibling") == b"2"


def test_listing_below_a_prefix(any_store: ObjectStore) -> None:
    keys = ["p/a-b/c", "p/a.b", "p/a/1", "p/a/2", "p/a0", "p/b", "q/z"]
    for key in reversed(keys):
        any_store.create(key, key.encode())
    assert sorted((o.key, o.size_bytes) for o in any_store.list("p/")) == [(k, len(k)) for k in keys[:-1]]
    assert sorted(o.key for o in any_store.list("p/a")) == keys[:5]
    assert [o.key for o in any_store.list("p/a/")] == ["p/a/1", "p/a/2"]
    assert list(any_store.list("nothing/")) == []


def test_listing_after_a_key_is_in_order(any_store: ObjectStore) -> None:
    keys = [f"s/{i:03d}.parquet" for i in range(12)]
    for key in reversed(keys):
        any_store.create(key, b"")
    assert [o.key for o in any_store.list("s/")] == keys
    assert [o.key for o in any_store.list("s/", start_after=keys[4])] == keys[5:]
    assert [o.key for o in any_store.list("s/", start_after="s/0035")] == keys[4:]
    assert list(any_store.list("s/", start_after=keys[-1])) == []


@pytest.mark.slow
def test_listing_more_than_a_page(any_store: ObjectStore) -> None:
    keys = [f"many/{i:04d}" for i in range(1_005)]
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda key: any_store.create(key, b""), keys))
    assert [o.key for o in any_store.list("many/")] == keys
    assert [o.key for o in any_store.list("many/", start_after="many/1001")] == keys[1002:]


def test_names_that_no_store_may_take(any_store: ObjectStore) -> None:
    for key in ("", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "ü", "a\n", "x" * 901):
        with pytest.raises(InputError):
            any_store.create(key, b"")
        with pytest.raises(InputError):
            any_store.get(key)


def test_metadata_that_no_store_may_take(any_store: ObjectStore) -> None:
    for metadata in ({"UPPER": "x"}, {"a": "ü"}, {"a": " x"}, {"a": "x\n"}, {"a": "x" * 2048}):
        with pytest.raises(InputError):
            any_store.create("m", b"", metadata=metadata)
    assert any_store.head("m") is None


@pytest.mark.parametrize("size", [0, 100, 17 * 1024**2])
def test_staged_bytes_are_invisible_until_published(any_store: ObjectStore, tmp_path: Path, size: int) -> None:
    source = tmp_path / "part"
    source.write_bytes(b"\x07" * size)
    token = any_store.stage("t/data/f.parquet", source)
    assert list(any_store.list("")) == []
    assert any_store.head("t/data/f.parquet") is None
    assert [s.key for s in any_store.list_staged("t/")] == ["t/data/f.parquet"]
    any_store.publish("t/data/f.parquet", token)
    assert any_store.get("t/data/f.parquet") == source.read_bytes()
    assert list(any_store.list_staged("t/")) == []


def test_publishing_again_changes_nothing(any_store: ObjectStore) -> None:
    token = any_store.stage("f", b"same")
    other = any_store.stage("f", b"same")
    for each in (token, token, other):
        any_store.publish("f", each)
    assert any_store.get("f") == b"same"
    assert list(any_store.list_staged("")) == []


def test_publishing_over_other_bytes_is_a_conflict(any_store: ObjectStore) -> None:
    token, other = any_store.stage("f", b"one"), any_store.stage("f", b"two")
    any_store.publish("f", token)
    with pytest.raises(ConflictError):
        any_store.publish("f", other)
    assert any_store.get("f") == b"one"


def test_discarded_bytes_cannot_be_published(any_store: ObjectStore) -> None:
    token = any_store.stage("f", b"one")
    any_store.discard("f", token)
    any_store.discard("f", token)
    assert list(any_store.list_staged("")) == []
    with pytest.raises(ObjectNotFoundError):
        any_store.publish("f", token)
    assert any_store.head("f") is None


def test_a_stale_upload_can_be_discarded_by_who_finds_it(any_store: ObjectStore) -> None:
    any_store.stage("t/f", b"one")
    (found,) = any_store.list_staged("t/")
    assert found.started_us > 10**15
    any_store.discard(found.key, found.token)
    assert list(any_store.list_staged("t/")) == []


def test_probe_finds_the_promises_kept_and_leaves_nothing(any_store: ObjectStore) -> None:
    facts = any_store.probe(f"probe/{uuid.uuid4().hex}")
    assert facts.creates_once
    assert facts.replaces_if_match
    assert list(any_store.list("")) == []
    assert abs(any_store.clock_skew_seconds()) < 30


def test_url_names_the_store(any_store: ObjectStore) -> None:
    assert any_store.url.startswith(("file:///", "s3://"))
    assert not any_store.url.endswith("/")


def test_a_store_goes_to_another_process(any_store: ObjectStore) -> None:
    any_store.create("k", b"hello")
    pickled = pickle.dumps(any_store)
    assert SECRET_KEY.encode() not in pickled
    assert pickle.loads(pickled).get("k") == b"hello"


class _Overwrites(DirectoryStore):
    def create(self, key: str, data: bytes | Path, **values: Any) -> bool:
        self.delete_versions(key)
        return super().create(key, data, **values)


class _ChecksThenActs(DirectoryStore):
    def create(self, key: str, data: bytes | Path, **values: Any) -> bool:
        if self.head(key) is not None:
            return False
        time.sleep(0.05)
        self.delete_versions(key)
        super().create(key, data, **values)
        return True


class _ForgetsMetadata(DirectoryStore):
    def create(self, key: str, data: bytes | Path, **values: Any) -> bool:
        return super().create(key, data)


class _ReplacesAnything(DirectoryStore):
    def replace(self, key: str, data: bytes | Path, *, if_match: str, **values: Any) -> bool:
        self.delete_versions(key)
        return super().create(key, data, metadata=values.get("metadata"))


class _StagesInSight(DirectoryStore):
    def stage(self, key: str, data: bytes | Path) -> str:
        super().create(key, data)
        return super().stage(key, data)


class _PublishesOverAnything(DirectoryStore):
    def publish(self, key: str, token: str) -> None:
        self.delete_versions(key)
        super().publish(key, token)


class _DeletesSiblings(DirectoryStore):
    def delete_versions(self, key: str, *, keep_latest: bool = False) -> int:
        return sum(super(_DeletesSiblings, self).delete_versions(o.key) for o in list(self.list(key)))


class _IgnoresStartAfter(DirectoryStore):
    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        return super().list(prefix)


class _EndsAtAPage(DirectoryStore):
    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        return islice(super().list(prefix, start_after), 1000)


class _ForgivesMissing(DirectoryStore):
    def get(self, key: str) -> bytes:
        return super().get(key) if self.head(key) else b""


@pytest.mark.parametrize(
    ("wrong", "promise"),
    [
        (_Overwrites, test_create_once_then_read_back),
        (_ChecksThenActs, test_one_winner_among_racing_creators),
        (_ForgetsMetadata, test_create_once_then_read_back),
        (_ReplacesAnything, test_replace_only_what_was_seen),
        (_ReplacesAnything, test_replace_never_creates),
        (_StagesInSight, test_discarded_bytes_cannot_be_published),
        (_PublishesOverAnything, test_publishing_over_other_bytes_is_a_conflict),
        (_DeletesSiblings, test_delete_versions_removes_the_object),
        (_IgnoresStartAfter, test_listing_after_a_key_is_in_order),
        (_EndsAtAPage, test_listing_more_than_a_page),
        (_ForgivesMissing, test_missing_object),
    ],
)
def test_a_wrong_store_fails_the_suite(
    tmp_path: Path, wrong: type[DirectoryStore], promise: Callable[[ObjectStore], None]
) -> None:
    with pytest.raises((AssertionError, Failed)):
        promise(wrong(tmp_path))
