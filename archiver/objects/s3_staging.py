"""Invisible uploads in S3: a multipart upload that is not completed yet.

A token is ``{upload id}#{sha256 of the bytes}``; the digest is also metadata of the object, so that
a completion whose answer was lost is recognised instead of guessed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from archiver.errors import ConflictError, InputError, ObjectNotFoundError
from archiver.objects import s3_errors
from archiver.objects.base import Staged, opened

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import CompletedPartTypeDef

PART_BYTES: Final = 16 * 1024**2
_DIGEST: Final = "staged-sha256"


class S3Staging:
    """Stage, publish and discard under full object names of one bucket."""

    def __init__(self, client: S3Client, bucket: str, encryption: dict[str, Any]) -> None:
        self._client = client
        self._bucket = bucket
        self._encryption = encryption

    def stage(self, name: str, data: bytes | Path) -> str:
        """Upload every part; 2 requests for up to 16 MiB, 1 more for each further 16 MiB."""
        sha256 = _sha256(data)
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": name}
        with s3_errors.translated("stage", name, writes=True):
            upload = self._client.create_multipart_upload(**where, **self._encryption, Metadata={_DIGEST: sha256})
            where["UploadId"] = upload["UploadId"]
            for number, part in enumerate(_parts(data), start=1):
                self._client.upload_part(**where, PartNumber=number, Body=part)
        return f"{where['UploadId']}#{sha256}"

    def publish(self, name: str, token: str) -> None:
        """Complete the upload; 2 requests, 3 where it was completed before."""
        upload, _, sha256 = token.partition("#")
        if not sha256:
            raise InputError("the token of another's upload cannot be published", operation="publish", key=name)
        where: dict[str, Any] = {"Bucket": self._bucket, "Key": name, "UploadId": upload}
        with s3_errors.translated("publish", name, writes=True):
            try:
                parts = list(self._uploaded(where))
                self._client.complete_multipart_upload(**where, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
            except ClientError as error:
                if not (s3_errors.is_absent(error) or s3_errors.is_precondition_failed(error)):
                    raise
                self._check_published(name, sha256)
                self.discard(name, token)

    def discard(self, name: str, token: str) -> None:
        """Abort the upload; one request."""
        upload = token.partition("#")[0]
        with s3_errors.translated("discard", name, writes=True):
            try:
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=name, UploadId=upload)
            except ClientError as error:
                if not s3_errors.is_absent(error):
                    raise

    def list_staged(self, prefix: str) -> Iterator[Staged]:
        """One request per 1,000 uploads."""
        with s3_errors.translated("list staged", prefix):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self._bucket, Prefix=prefix)
            for page in pages:
                for found in page.get("Uploads", []):
                    yield Staged(found["Key"], found["UploadId"], int(found["Initiated"].timestamp()) * 1_000_000)

    def _uploaded(self, where: dict[str, Any]) -> Iterator[CompletedPartTypeDef]:
        for page in self._client.get_paginator("list_parts").paginate(**where):
            for part in page.get("Parts", []):
                checksums = {k: v for k, v in part.items() if k.startswith("Checksum")}
                yield {"PartNumber": part["PartNumber"], "ETag": part["ETag"], **checksums}  # type: ignore[typeddict-item]

    def _check_published(self, name: str, sha256: str) -> None:
        """The upload is gone or the name is taken: fine if these very bytes hold the name."""
        try:
            found = self._client.head_object(Bucket=self._bucket, Key=name)
        except ClientError as error:
            if s3_errors.is_absent(error):
                raise ObjectNotFoundError(
                    "the staged bytes are gone", operation="publish", key=name, hint="stage them again"
                ) from error
            raise
        if found["Metadata"].get(_DIGEST) != sha256:
            raise ConflictError(
                "the name is taken by other bytes", operation="publish", key=name,
                hint="names of staged files must be made from their content",
            )  # fmt: skip


def _sha256(data: bytes | Path) -> str:
    with opened(data) as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def _parts(data: bytes | Path) -> Iterator[bytes]:
    """Parts of PART_BYTES; one empty part for an empty object."""
    with opened(data) as source:
        yield source.read(PART_BYTES)
        while part := source.read(PART_BYTES):
            yield part
