"""What the contract suite cannot say of every store: files on disk, settings as requests, errors, credentials."""

from __future__ import annotations

import errno
import itertools
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from botocore.exceptions import ClientError
from deltalake import DeltaTable, write_deltalake
from faultproxy import STATUS, Fault, FaultProxy
from s3_servers import ACCESS_KEY, SECRET_KEY, S3Server

from archiver.errors import (
    CorruptDataError,
    ObjectNotFoundError,
    OutcomeUnknownError,
    SessionLakeError,
    StorageError,
)
from archiver.objects import DirectoryStore, ObjectStore, open_store, s3_errors
from archiver.settings import StorageSettings

# ---------------------------------------------------------------- opening


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///srv/lake", "file:///srv/lake"),
        ("file:/srv/lake", "file:///srv/lake"),
        ("file:///srv/my%20lake", "file:///srv/my%20lake"),
        ("file:./data/lake", f"file://{Path.cwd()}/data/lake"),
        ("file:lake", f"file://{Path.cwd()}/lake"),
        ("s3://bucket", "s3://bucket"),
        ("s3://bucket/a/b/", "s3://bucket/a/b"),
    ],
)
def test_url_of_the_settings_is_where_the_store_is(s3_credentials: None, url: str, expected: str) -> None:
    assert open_store(StorageSettings(url=url)).url == expected


def test_a_directory_costs_no_boto3() -> None:
    program = (
        "import sys; from archiver.objects import open_store; from archiver.settings import StorageSettings;"
        "open_store(StorageSettings(url='file:./x')); print('boto3' in sys.modules or 'botocore' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_opening_sends_nothing_and_makes_nothing(s3_credentials: None, tmp_path: Path) -> None:
    open_store(StorageSettings(url="s3://bucket", endpoint_url="http://127.0.0.1:9"))
    open_store(StorageSettings(url=f"file://{tmp_path}/lake"))
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- directory


def test_head_sees_a_flipped_bit_on_the_disk(directory_store: DirectoryStore, tmp_path: Path) -> None:
    directory_store.create("a/b", b"hello", metadata={"n": "1"})
    before = directory_store.head("a/b")
    (tmp_path / "lake/a/b").write_bytes(b"hellp")
    after = directory_store.head("a/b")
    assert before is not None
    assert after is not None
    assert after.sha256 != before.sha256
    assert not directory_store.replace("a/b", b"x", if_match=before.etag)


def test_head_beside_replace_never_mixes_two_versions(directory_store: DirectoryStore) -> None:
    directory_store.create("k", b"0" * 100_000, metadata={"n": "0"})
    done = threading.Event()

    def replace() -> None:
        for n in range(1, 60):
            info = directory_store.head("k")
            assert info is not None
            assert directory_store.replace("k", b"%d" % n * 50_000, if_match=info.etag, metadata={"n": str(n)})
        done.set()

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(replace)
        while not done.is_set() and not running.done():
            info = directory_store.head("k")
            assert info is not None
            n = info.metadata["n"]
            assert info.size_bytes == (100_000 if n == "0" else 50_000 * len(n))
        running.result()


def test_a_directory_copied_elsewhere_keeps_its_metadata(directory_store: DirectoryStore, tmp_path: Path) -> None:
    directory_store.create("a/b", b"hello", metadata={"n": "1"})
    subprocess.run(["cp", "-r", tmp_path / "lake", tmp_path / "copy"], check=True)
    copied = DirectoryStore(tmp_path / "copy").head("a/b")
    assert copied is not None
    assert dict(copied.metadata) == {"n": "1"}


def test_a_lost_race_never_changes_the_winners_metadata(directory_store: DirectoryStore) -> None:
    def create(i: int) -> bool:
        barrier.wait(30)
        return directory_store.create("same", b"the same bytes", metadata={"who": str(i)})

    for _ in range(20):
        barrier = threading.Barrier(4)
        with ThreadPoolExecutor(4) as pool:
            made = list(pool.map(create, range(4)))
        info = directory_store.head("same")
        assert info is not None
        assert info.metadata["who"] == str(made.index(True))
        directory_store.delete_versions("same")


def test_one_winner_among_racing_replacers(directory_store: DirectoryStore) -> None:
    directory_store.create("r", b"start")
    info = directory_store.head("r")
    assert info is not None
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda i: directory_store.replace("r", b"%d" % i, if_match=info.etag), range(8)))
    assert made.count(True) == 1
    assert directory_store.get("r") == b"%d" % made.index(True)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO])
def test_a_failing_disk_leaves_no_part_of_an_object(
    directory_store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def fails(descriptor: int, data: bytes) -> int:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", fails)
        with pytest.raises(StorageError) as caught:
            directory_store.create("a/b", b"x" * 100)
    assert caught.value.hint
    assert not isinstance(caught.value, OutcomeUnknownError | ObjectNotFoundError)
    assert [p for p in (tmp_path / "lake").rglob("*") if p.is_file() and p.name != "lock"] == []
    assert directory_store.create("a/b", b"x" * 100)


def test_a_name_that_may_not_be_durable_is_an_unknown_outcome(
    directory_store: DirectoryStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory_store.create("a/first", b"")
    original = os.fsync

    def fails_for_directory(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path / "lake/a":
            raise OSError(errno.EIO, "Input/output error")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fails_for_directory)
    with pytest.raises(OutcomeUnknownError):
        directory_store.create("a/b", b"x")


def test_a_missing_local_file_is_not_a_missing_object(any_store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="gone") as caught:
        any_store.create("a", tmp_path / "gone")
    assert not isinstance(caught.value, ObjectNotFoundError)


def test_what_other_programs_leave_in_the_directory_is_no_object(
    directory_store: DirectoryStore, tmp_path: Path
) -> None:
    directory_store.create("d/a", b"")
    for name in (".DS_Store", "d/.hidden", "d/part#1", "d/with space"):
        (tmp_path / "lake" / name).write_bytes(b"x")
    assert [info.key for info in directory_store.list("")] == ["d/a"]


# ---------------------------------------------------------------- settings as requests


def _seen(moto_s3: S3Server, act: Callable[[ObjectStore], object], **values: Any) -> list[Any]:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        act(open_store(moto_s3.settings(endpoint_url=proxy.url, **values)))
        return list(proxy.seen)


def test_a_create_is_one_conditional_put_with_its_checksum(moto_s3: S3Server, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"x" * 20_000_000)
    (put,) = _seen(moto_s3, lambda store: store.create("k", big, metadata={"membership-digest": "d"}, archival=True))
    assert put.method == "PUT"
    assert put.headers["if-none-match"] == "*"
    assert put.headers["x-amz-checksum-sha256"]
    assert put.headers["x-amz-meta-membership-digest"] == "d"
    assert "content-encoding" not in put.headers
    assert "x-amz-server-side-encryption" not in put.headers
    assert "x-amz-storage-class" not in put.headers


def test_servers_without_newer_checksums_get_md5(moto_s3: S3Server) -> None:
    (put,) = _seen(moto_s3, lambda store: store.create("k", b"hello"), checksums="when_required")
    assert put.headers["content-md5"] == "XUFAKrxLKna5cZ2REBfFkg=="
    assert not [name for name in put.headers if name.startswith("x-amz-checksum")]


def test_encryption_and_storage_class_go_with_the_write(moto_s3: S3Server) -> None:
    def act(store: ObjectStore) -> None:
        store.create("segment", b"1", archival=True)
        store.create("marker", b"2")
        store.stage("table", b"3")

    values = {"sse": "aws:kms", "sse_kms_key_id": "alias/lake", "storage_class": "STANDARD_IA"}
    segment, marker, staged, _part = _seen(moto_s3, act, **values)
    for seen in (segment, marker, staged):
        assert seen.headers["x-amz-server-side-encryption"] == "aws:kms"
        assert seen.headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/lake"
    assert segment.headers["x-amz-storage-class"] == "STANDARD_IA"
    assert "x-amz-storage-class" not in marker.headers


@pytest.mark.s3
def test_encrypted_objects_are_read_back(seaweed_s3: S3Server) -> None:
    store = open_store(seaweed_s3.settings(sse="AES256"))
    assert store.create("k", b"hello")
    assert store.get("k") == b"hello"
    info = store.head("k")
    assert info is not None
    assert info.size_bytes == 5


@pytest.mark.parametrize(
    ("path_style", "start"),
    [(False, "https://bucket.s3.amazonaws.com/k?"), (True, "https://s3.amazonaws.com/bucket/k?")],
)
def test_a_bucket_in_the_host_name_or_in_the_path(s3_credentials: None, path_style: bool, start: str) -> None:
    store = open_store(StorageSettings(url="s3://bucket/p", path_style=path_style))
    client = store._client  # type: ignore[attr-defined]
    assert client.generate_presigned_url("get_object", Params={"Bucket": "bucket", "Key": "k"}).startswith(start)


@pytest.mark.parametrize("attempts", [1, 3])
def test_a_request_is_tried_as_often_as_the_settings_say(moto_s3: S3Server, attempts: int) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        proxy.add(Fault.ANSWER, code="SlowDown")
        store = open_store(moto_s3.settings(endpoint_url=proxy.url, max_attempts=attempts))
        with pytest.raises(OutcomeUnknownError):
            store.create("k", b"")
        assert len(proxy.seen) == attempts


def test_a_server_that_never_answers_is_given_up(moto_s3: S3Server) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        proxy.add(Fault.HANG)
        store = open_store(moto_s3.settings(endpoint_url=proxy.url, max_attempts=1, read_timeout_seconds=0.3))
        with pytest.raises(OutcomeUnknownError):
            store.create("k", b"x")
        with pytest.raises(StorageError):
            store.get("k")


# ---------------------------------------------------------------- versions and staging


def test_older_versions_go_and_the_latest_stays(any_s3: S3Server) -> None:
    store = open_store(any_s3.settings(bucket=any_s3.versioned_bucket))
    prefix = store.url.removeprefix(f"s3://{any_s3.versioned_bucket}/")
    store.create("k", b"1")
    for body in (b"2", b"3"):
        info = store.head("k")
        assert info is not None
        assert store.replace("k", body, if_match=info.etag)
    store.create("k-sibling", b"4")
    assert store.delete_versions("k", keep_latest=True) == 2
    assert store.get("k") == b"3"
    any_s3.client().delete_object(Bucket=any_s3.versioned_bucket, Key=f"{prefix}/k")
    assert store.delete_versions("k") == 2  # the bytes and the marker of their deletion
    left = any_s3.client().list_object_versions(Bucket=any_s3.versioned_bucket, Prefix=prefix)
    assert [v["Key"] for v in left["Versions"]] == [f"{prefix}/k-sibling"]
    assert "DeleteMarkers" not in left


def test_a_published_file_whose_answer_was_lost_is_recognised(proxied: tuple[S3Server, FaultProxy]) -> None:
    server, proxy = proxied
    store = open_store(server.settings(endpoint_url=proxy.url, max_attempts=1))
    token = store.stage("t/f", b"rows")
    proxy.add(Fault.LOSE_ANSWER, method="POST", path="uploadId", times=1)
    with pytest.raises(OutcomeUnknownError):
        store.publish("t/f", token)
    store.publish("t/f", token)
    assert store.get("t/f") == b"rows"


def test_delta_tables_are_written_with_the_stores_options(any_store: ObjectStore) -> None:
    uri = f"{any_store.url}/tables/t"
    write_deltalake(uri, pa.table({"n": [1, 2, 3]}), storage_options=any_store.delta_options())
    assert DeltaTable(uri, storage_options=any_store.delta_options()).to_pyarrow_table().num_rows == 3
    assert any(info.key.startswith("tables/t/_delta_log/") for info in any_store.list("tables/t/"))


# ---------------------------------------------------------------- errors


def _answer(code: str, status: int) -> ClientError:
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, "PutObject")  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("code", "status", "writing", "reading"),
    [
        ("NoSuchKey", 404, ObjectNotFoundError, ObjectNotFoundError),
        ("NoSuchUpload", 404, ObjectNotFoundError, ObjectNotFoundError),
        ("NoSuchBucket", 404, StorageError, StorageError),
        ("AccessDenied", 403, StorageError, StorageError),
        ("ExpiredToken", 400, StorageError, StorageError),
        ("InvalidAccessKeyId", 403, StorageError, StorageError),
        ("SignatureDoesNotMatch", 403, StorageError, StorageError),
        ("RequestTimeTooSkewed", 403, StorageError, StorageError),
        ("InvalidObjectState", 403, StorageError, StorageError),
        ("PermanentRedirect", 301, StorageError, StorageError),
        ("NotImplemented", 501, StorageError, StorageError),
        ("EntityTooLarge", 400, StorageError, StorageError),
        ("SomethingNew", 400, StorageError, StorageError),
        ("InvalidRange", 416, CorruptDataError, CorruptDataError),
        ("BadDigest", 400, OutcomeUnknownError, StorageError),
        ("RequestTimeout", 400, OutcomeUnknownError, StorageError),
        ("ConditionalRequestConflict", 409, OutcomeUnknownError, StorageError),
        ("OperationAborted", 409, OutcomeUnknownError, StorageError),
        ("TooManyRequests", 429, OutcomeUnknownError, StorageError),
        ("SlowDown", 503, OutcomeUnknownError, StorageError),
        ("InternalError", 500, OutcomeUnknownError, StorageError),
        ("SomethingNew", 599, OutcomeUnknownError, StorageError),
        ("", 0, StorageError, StorageError),
    ],
)
def test_every_answer_has_one_meaning(code: str, status: int, writing: type, reading: type) -> None:
    for writes, expected in ((True, writing), (False, reading)):
        error = s3_errors.from_answer(_answer(code, status), "create", "a/b", writes=writes)
        assert type(error) is expected
        assert (error.operation, error.key) == ("create", "a/b")
        assert error.hint or isinstance(error, ObjectNotFoundError | CorruptDataError)


def test_no_call_lets_anything_but_our_errors_out(moto_s3: S3Server) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        store = open_store(moto_s3.settings(endpoint_url=proxy.url, max_attempts=1))
        for code, call in itertools.product(STATUS, _calls(store)):
            proxy.clear()
            proxy.add(Fault.ANSWER, code=code)
            error = _error_of(call)
            assert error is None or error.operation
            assert str(pickle.loads(pickle.dumps(error))) == str(error)


@pytest.mark.parametrize("fault", [Fault.REFUSE, Fault.TRUNCATE_ANSWER, Fault.CORRUPT_ANSWER])
def test_no_broken_answer_lets_anything_but_our_errors_out(moto_s3: S3Server, fault: Fault) -> None:
    good = open_store(moto_s3.settings())
    good.create("k", b"0123456789" * 100)
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        proxy.add(fault)
        store = open_store(moto_s3.settings(url=good.url, endpoint_url=proxy.url, max_attempts=1))
        for call in _calls(store):
            error = _error_of(call)
            assert error is None or error.operation


def _error_of(call: Callable[[], object]) -> SessionLakeError | None:
    """Our error, if the call fails; any other exception fails the test."""
    try:
        call()
    except SessionLakeError as error:
        return error
    return None


def _calls(store: ObjectStore) -> list[Callable[[], object]]:
    return [
        lambda: store.create("n", b"x"),
        lambda: store.replace("k", b"x", if_match='"0"'),
        lambda: store.get("k"),
        lambda: store.get_range("k", 0, 5),
        lambda: store.get_tail("k", 5),
        lambda: store.head("k"),
        lambda: list(store.list("")),
        lambda: store.delete_versions("n"),
        lambda: store.publish("s", store.stage("s", b"x")),
        lambda: store.publish("s", "upload#" + "0" * 64),
        lambda: store.discard("s", "upload"),
        lambda: list(store.list_staged("")),
        store.clock_skew_seconds,
        lambda: store.probe("p"),
    ]


def test_a_damaged_answer_is_noticed(proxied: tuple[S3Server, FaultProxy]) -> None:
    server, proxy = proxied
    store = open_store(server.settings(endpoint_url=proxy.url, max_attempts=1))
    store.create("k", os.urandom(50_000))
    proxy.add(Fault.CORRUPT_ANSWER, method="GET", times=1)
    with pytest.raises(CorruptDataError):
        store.get("k")
    proxy.add(Fault.TRUNCATE_ANSWER, method="GET", times=1)
    with pytest.raises(StorageError):
        store.get("k")


@pytest.mark.s3
def test_bytes_damaged_on_their_way_are_not_stored(seaweed_s3: S3Server) -> None:
    with FaultProxy(seaweed_s3.endpoint_url) as proxy:
        proxy.add(Fault.CORRUPT_REQUEST, method="PUT", times=1)
        store = open_store(seaweed_s3.settings(endpoint_url=proxy.url, max_attempts=1))
        with pytest.raises(OutcomeUnknownError):
            store.create("k", b"hello")
        assert store.head("k") is None


# ---------------------------------------------------------------- credentials


@pytest.mark.s3
def test_no_error_log_or_repr_holds_a_credential(
    seaweed_s3: S3Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="archiver")
    secret = "a-wrong-secret-that-must-not-show"
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
    store = open_store(seaweed_s3.settings(max_attempts=1))
    texts = [repr(store), str(vars(store))]
    for call in _calls(store):
        error = _error_of(call)
        if error is not None:
            texts += [str(error), repr(error), repr(error.__cause__), json.dumps(vars(error))]
    assert len(texts) > 20
    texts += [
        record.getMessage() + str(vars(record)) for record in caplog.records if record.name.startswith("archiver")
    ]
    for hidden in (secret, ACCESS_KEY, SECRET_KEY):
        assert not [text for text in texts if hidden in text]


def test_without_credentials_the_hint_says_where_they_are_looked_for(
    moto_s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    store = open_store(moto_s3.settings(max_attempts=1))
    for call in (lambda: store.get("k"), store.delta_options):
        with pytest.raises(StorageError, match="credentials") as caught:
            call()
        assert "boto3" in caught.value.hint


def test_temporary_credentials_reach_the_tables(s3_credentials: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    store = open_store(StorageSettings(url="s3://b/p", region="eu-west-1", sse="AES256"))
    options = store.delta_options()
    assert options["AWS_SESSION_TOKEN"] == "token"
    assert options["AWS_REGION"] == "eu-west-1"
    assert options["AWS_SERVER_SIDE_ENCRYPTION"] == "AES256"
    assert "AWS_ALLOW_HTTP" not in options


def test_long_keys_can_be_staged(directory_store: DirectoryStore) -> None:
    keys = [f"t/{'/'.join([letter * 150] * 5)}" for letter in "abc"]
    tokens = [directory_store.stage(key, key.encode()) for key in keys]
    assert sorted((s.key, s.token) for s in directory_store.list_staged("t/")) == sorted(zip(keys, tokens, strict=True))
    directory_store.publish(keys[0], tokens[0])
    directory_store.discard(keys[1], tokens[1])
    assert directory_store.get(keys[0]) == keys[0].encode()
    assert [s.key for s in directory_store.list_staged("")] == keys[2:]
