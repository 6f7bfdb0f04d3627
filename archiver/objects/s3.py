"""Objects in an S3 bucket, or in a server that speaks S3. boto3 is imported here, and only when used."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from archiver.errors import CorruptDataError, StorageError
from archiver.objects import s3_errors
from archiver.objects.base import (
    ObjectInfo,
    Source,
    Staged,
    StoreFacts,
    Tail,
    check_key,
    check_metadata,
    is_key,
    opened,
)
from archiver.objects.s3_staging import S3Staging
from archiver.settings import StorageSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_DELETE_BATCH: Final = 1000
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


class S3Store:
    """The object store in a bucket below a prefix. See ObjectStore; opening it sends no request."""

    def __init__(self, settings: StorageSettings) -> None:
        bucket, _, prefix = settings.url.removeprefix("s3://").partition("/")
        self._settings = settings
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._session = boto3.Session(region_name=settings.region)
        self._region = self._session.region_name or "us-east-1"
        with s3_errors.translated("open", settings.url):
            self._client: S3Client = self._session.client(
                "s3", endpoint_url=settings.endpoint_url, region_name=self._region, config=_config(settings)
            )
        self._staging = S3Staging(self._client, bucket, self._encryption())

    def __reduce__(self) -> tuple[type[S3Store], tuple[StorageSettings]]:
        return S3Store, (self._settings,)  # another process looks up credentials for itself

    @property
    def url(self) -> str:
        """``s3://bucket/prefix``."""
        return f"s3://{self._bucket}/{self._prefix}".rstrip("/")

    def create(
        self, key: str, data: bytes | Path, *, metadata: Mapping[str, str] | None = None, archival: bool = False
    ) -> bool:
        """See ObjectStore. Always one PUT: servers complete multipart uploads conditionally with a race."""
        return self._put("create", key, data, metadata, archival=archival, IfNoneMatch="*")

    def replace(
        self,
        key: str,
        data: bytes | Path,
        *,
        if_match: str,
        metadata: Mapping[str, str] | None = None,
        archival: bool = False,
    ) -> bool:
        """See ObjectStore."""
        bare = if_match.strip('"')  # Ceph 16 finds no ETag equal to a quoted one, the others take both
        return self._put("replace", key, data, metadata, archival=archival, IfMatch=bare)

    def get(self, key: str) -> bytes:
        """See ObjectStore."""
        with s3_errors.translated("get", key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._full(key))
            data = answer["Body"].read()
            md5 = _unchecked_md5(answer)
        if md5 and hashlib.md5(data, usedforsecurity=False).hexdigest() != md5:
            raise CorruptDataError("bytes do not match their ETag", operation="get", key=key)
        return data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        with s3_errors.translated("get", key):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._full(key), Range=f"bytes={start}-{start + length - 1}"
            )
            data = answer["Body"].read()
        if len(data) > length:
            raise StorageError("the storage ignores ranges", operation="get", key=key, hint="run sessionlake doctor")
        return data

    def get_tail(self, key: str, length: int) -> Tail:
        """See ObjectStore."""
        with s3_errors.translated("get", key):
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=self._full(key), Range=f"bytes=-{length}")
            except ClientError as error:
                if s3_errors.is_range_unsatisfiable(error):  # an empty object has no last byte
                    return Tail(b"", 0)
                raise
            data = answer["Body"].read()
            # some servers answer without a range where the object is not longer than the tail
            size = answer.get("ContentRange", "").rpartition("/")[2]
            return Tail(data, int(size) if size else len(data))

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore."""
        with s3_errors.translated("head", key):
            try:
                found = self._client.head_object(Bucket=self._bucket, Key=self._full(key), ChecksumMode="ENABLED")
            except ClientError as error:
                if s3_errors.is_absent(error):
                    return None
                raise
            md5 = None if "kms" in found.get("ServerSideEncryption", "") else _MD5.fullmatch(found["ETag"])
            checksum = found.get("ChecksumSHA256", "")
            return ObjectInfo(
                key=key,
                size_bytes=found["ContentLength"],
                etag=found["ETag"],
                metadata=found["Metadata"],
                # the checksum of a multipart upload is one of checksums, marked by "-parts"
                sha256=base64.b64decode(checksum).hex() if checksum and "-" not in checksum else None,
                md5=md5[1] if md5 else None,
            )

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        where: dict[str, Any] = {"Bucket": self._bucket, "Prefix": self._prefix + prefix}
        if start_after is not None:
            where["StartAfter"] = self._prefix + start_after
        with s3_errors.translated("list", prefix):
            for page in self._client.get_paginator("list_objects_v2").paginate(**where):
                for found in page.get("Contents", []):
                    key = found["Key"].removeprefix(self._prefix)
                    if is_key(key):
                        yield ObjectInfo(key, found["Size"], found["ETag"])

    def delete_versions(self, key: str, *, keep_latest: bool = False) -> int:
        """See ObjectStore. One request to list and one to delete per 1,000 versions."""
        with s3_errors.translated("delete versions", key, writes=True):
            versions = [v for v, latest in self._versions(key) if not (keep_latest and latest)]
            for start in range(0, len(versions), _DELETE_BATCH):
                self._delete_batch(key, versions[start : start + _DELETE_BATCH])
        return len(versions)

    def stage(self, key: str, data: bytes | Path) -> str:
        """See ObjectStore."""
        return self._staging.stage(self._full(key), data)

    def publish(self, key: str, token: str) -> None:
        """See ObjectStore."""
        self._staging.publish(self._full(key), token)

    def discard(self, key: str, token: str) -> None:
        """See ObjectStore."""
        self._staging.discard(self._full(key), token)

    def list_staged(self, prefix: str) -> Iterator[Staged]:
        """See ObjectStore."""
        for staged in self._staging.list_staged(self._prefix + prefix):
            yield staged._replace(key=staged.key.removeprefix(self._prefix))

    def delta_options(self) -> dict[str, str]:
        """See ObjectStore. Temporary credentials are the present ones: ask again for every table opened."""
        with s3_errors.translated("find credentials for", self.url):
            found = self._session.get_credentials()
            credentials = found.get_frozen_credentials() if found else None
        if credentials is None or not credentials.access_key or not credentials.secret_key:
            raise StorageError("no credentials", operation="open", key=self.url, hint=s3_errors.CREDENTIALS_HINT)
        settings, endpoint = self._settings, self._settings.endpoint_url or ""
        options = {
            "AWS_REGION": self._region,
            "AWS_ACCESS_KEY_ID": credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
            "AWS_SESSION_TOKEN": credentials.token,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ALLOW_HTTP": "true" if endpoint.startswith("http:") else "",
            "AWS_CONDITIONAL_PUT": "etag",
            "AWS_SERVER_SIDE_ENCRYPTION": settings.sse,
            "AWS_SSE_KMS_KEY_ID": settings.sse_kms_key_id,
        }
        return {name: value for name, value in options.items() if value}

    def probe(self, key: str) -> StoreFacts:
        """See ObjectStore. Nine requests."""
        try:
            creates_once = self.create(key, b"first") and not self.create(key, b"second") and self.get(key) == b"first"
            present = self.head(key)
            refused = not self.replace(key, b"third", if_match='"00000000000000000000000000000000"')
            replaces = (
                present is not None
                and refused
                and self.replace(key, b"third", if_match=present.etag)
                and self.get(key) == b"third"
            )
            refuses = self._refuses_bad_checksum(key)
        finally:
            self.delete_versions(key)
        return StoreFacts(creates_once, replaces, refuses)

    def clock_skew_seconds(self) -> float:
        """How far this machine's clock is ahead of the server's, to a second; one request."""
        with s3_errors.translated("ask the time of", self.url):
            answer = self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)
            date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
            return time.time() - parsedate_to_datetime(date).timestamp() if date else 0.0

    def _put(
        self,
        operation: str,
        key: str,
        data: bytes | Path,
        metadata: Mapping[str, str] | None,
        *,
        archival: bool,
        **condition: str,
    ) -> bool:
        options: dict[str, Any] = {"Metadata": check_metadata(metadata, key=key), **condition, **self._encryption()}
        if archival and self._settings.storage_class:
            options["StorageClass"] = self._settings.storage_class
        options |= {"Bucket": self._bucket, "Key": self._full(key)}
        with s3_errors.translated(operation, key, writes=True), opened(data) as body:
            try:
                self._client.put_object(**options, **self._checksum(body), Body=body)
            except ClientError as error:
                if s3_errors.is_precondition_failed(error) or ("IfMatch" in condition and s3_errors.is_absent(error)):
                    return False
                raise
        return True

    def _refuses_bad_checksum(self, key: str) -> bool:
        if self._settings.checksums == "when_required":
            return False
        options: dict[str, Any] = {**self._encryption(), "Bucket": self._bucket, "Key": self._full(key)}
        false = base64.b64encode(hashlib.sha256(b"other bytes").digest()).decode()
        with s3_errors.translated("probe", key):
            try:
                self._client.put_object(**options, Body=b"bytes", ChecksumSHA256=false)
            except ClientError as error:
                if s3_errors.is_refusal(error):
                    return True
                raise
        return False

    def _checksum(self, body: Source) -> dict[str, Any]:
        """The integrity header of a PUT; MD5 for servers that do not know the newer ones."""
        old = self._settings.checksums == "when_required"
        digest = hashlib.file_digest(body, "md5" if old else "sha256").digest()
        body.seek(0)
        return {"ContentMD5" if old else "ChecksumSHA256": base64.b64encode(digest).decode()}

    def _versions(self, key: str) -> Iterator[tuple[str, bool]]:
        """(version id, whether it is the latest) of every version and delete marker of exactly this key."""
        full = self._full(key)
        for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self._bucket, Prefix=full):
            found: Any = [*page.get("Versions", []), *page.get("DeleteMarkers", [])]
            yield from ((v["VersionId"], v["IsLatest"]) for v in found if v["Key"] == full)
            if any(v["Key"] > full for v in found):
                return

    def _delete_batch(self, key: str, versions: Sequence[str]) -> None:
        full = self._full(key)
        answer = self._client.delete_objects(
            Bucket=self._bucket,
            Delete={"Objects": [{"Key": full, "VersionId": v} for v in versions], "Quiet": True},
        )
        for failed in answer.get("Errors", []):
            code = failed.get("Code", "")
            raise StorageError(f"a version stays: {code}", operation="delete versions", key=key,
                               hint=s3_errors.hint_of(code))  # fmt: skip

    def _encryption(self) -> dict[str, Any]:
        named = {"ServerSideEncryption": self._settings.sse, "SSEKMSKeyId": self._settings.sse_kms_key_id}
        return {name: value for name, value in named.items() if value}

    def _full(self, key: str) -> str:
        return self._prefix + check_key(key)


def _config(settings: StorageSettings) -> Config:
    return Config(
        retries={"total_max_attempts": settings.max_attempts, "mode": "standard"},
        connect_timeout=settings.connect_timeout_seconds,
        read_timeout=settings.read_timeout_seconds,
        tcp_keepalive=True,
        max_pool_connections=settings.workers + 2,
        s3={"addressing_style": "path" if settings.bucket_in_path else "auto"},
        request_checksum_calculation=settings.checksums,
        response_checksum_validation=settings.checksums,
    )


def _unchecked_md5(answer: Mapping[str, Any]) -> str | None:
    """The MD5 to compare where the server sent no checksum, which boto3 would have compared while reading."""
    if "ServerSideEncryption" in answer or any(name.startswith("Checksum") for name in answer):
        return None
    match = _MD5.fullmatch(answer["ETag"])
    return match[1] if match else None
