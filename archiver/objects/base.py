"""What every object store promises; one contract suite holds all of them to it."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple, Protocol

from archiver.errors import InputError, StorageError

MAX_METADATA_BYTES: Final = 2048
Source = io.BytesIO | io.BufferedReader
_SEGMENT = re.compile(r"[A-Za-z0-9_=~+@-][A-Za-z0-9._=~+@-]*")
_METADATA_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """One object as the store describes it.

    Attributes:
        etag: What ``replace(if_match=…)`` wants; empty in listings of a directory.
        metadata: From ``head`` only; empty in listings.
        sha256: Hex digest as the store states it, from ``head`` only. A directory computes it from
            the bytes; an S3 server's word counts only where :class:`StoreFacts` says so.
        md5: Hex digest that the server computed from the bytes, where the ETag is one; else None.
    """

    key: str
    size_bytes: int
    etag: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict)
    sha256: str | None = None
    md5: str | None = None


class Tail(NamedTuple):
    """The last bytes of an object and its whole size."""

    data: bytes
    object_bytes: int


class Staged(NamedTuple):
    """An upload that was staged and neither published nor discarded."""

    key: str
    token: str
    started_us: int


@dataclass(frozen=True, slots=True)
class StoreFacts:
    """What a probe found out by really writing: which promises this store keeps.

    Attributes:
        creates_once: A second create of one key is refused.
        replaces_if_match: A replace with an outdated etag is refused, with the present one accepted.
        refuses_bad_checksum: Bytes that do not match their SHA-256 are refused, so the store's own
            statement of a digest proves the bytes. Otherwise: compare MD5, else read back.
    """

    creates_once: bool
    replaces_if_match: bool
    refuses_bad_checksum: bool


class ObjectStore(Protocol):
    """Bytes by key.

    Keys are relative to :attr:`url`: parts of ``[A-Za-z0-9._=~+@-]`` joined by ``/``, none starting with
    a dot, and none both an object and the parent of others. Any call may raise StorageError (the store
    refused or cannot be reached); a call that writes raises OutcomeUnknownError where nobody can tell
    whether it landed. Safe for threads. Pickled, a store takes its settings to another process, never a
    credential.
    """

    @property
    def url(self) -> str:
        """``s3://bucket/prefix`` or ``file:///directory``, without a slash at the end."""
        ...

    def create(
        self, key: str, data: bytes | Path, *, metadata: Mapping[str, str] | None = None, archival: bool = False
    ) -> bool:
        """Make the object if there is none: all of it or nothing, durable on return.

        True: this call made it. False: something is there already, and a retried request may have
        met its own first try, so ask ``head`` whose it is. ``archival`` asks for the storage class of
        the settings. One request.
        """
        ...

    def replace(
        self,
        key: str,
        data: bytes | Path,
        *,
        if_match: str,
        metadata: Mapping[str, str] | None = None,
        archival: bool = False,
    ) -> bool:
        """Swap the object's bytes if its etag is still ``if_match``; False if it is gone or another.

        As with ``create``, False may be the echo of this call's own first try. One request.
        """
        ...

    def get(self, key: str) -> bytes:
        """All bytes. ObjectNotFoundError; CorruptDataError if they fail the store's checksum. One request."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Up to ``length`` bytes from ``start``, fewer where the object ends. One request.

        ObjectNotFoundError; CorruptDataError if the object ends before ``start``. No checksum
        protects a range: the reader needs one of its own.
        """
        ...

    def get_tail(self, key: str, length: int) -> Tail:
        """The last ``length`` bytes, or all if there are fewer, and the object's size. One request."""
        ...

    def head(self, key: str) -> ObjectInfo | None:
        """Size, etag, metadata and digests; None if there is no such object. One request."""
        ...

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """Objects whose key starts with ``prefix`` and sorts after ``start_after``; one request per 1,000.

        Keys of one parent come in their order. Across parents Amazon S3 and a directory keep the order
        of the whole keys, but a server that sorts level by level (SeaweedFS) does not.
        """
        ...

    def delete_versions(self, key: str, *, keep_latest: bool = False) -> int:
        """Remove the object for good, with every older version, or those only; returns how many.

        There is no other way to delete: in a versioned bucket it would leave the bytes behind.
        """
        ...

    def stage(self, key: str, data: bytes | Path) -> str:
        """Bring bytes to the store without making them visible; returns the token that publishes them."""
        ...

    def publish(self, key: str, token: str) -> None:
        """Make staged bytes visible under their key, atomically.

        Doing it again is a no-op. ConflictError if other bytes hold the key, which content-addressed
        names rule out; ObjectNotFoundError if the staged bytes are gone and the key does not hold them.
        """
        ...

    def discard(self, key: str, token: str) -> None:
        """Forget staged bytes; no error if there are none."""
        ...

    def list_staged(self, prefix: str) -> Iterator[Staged]:
        """Uploads under ``prefix`` neither published nor discarded. Their tokens can be discarded only."""
        ...

    def delta_options(self) -> dict[str, str]:
        """``storage_options`` for delta-rs. They hold credentials: never log, print or store them."""
        ...

    def clock_skew_seconds(self) -> float:
        """How far this machine's clock is ahead of the store's, to about a second."""
        ...

    def probe(self, key: str) -> StoreFacts:
        """Find out what the store really does by writing to and deleting the fresh, random ``key``."""
        ...


def check_key(key: str) -> str:
    """Return the key if every store can hold it as written; InputError otherwise."""
    if len(key) > 900 or not all(_SEGMENT.fullmatch(part) for part in key.split("/")):
        raise InputError(
            "not an object key", operation="check key", key=key[:200],
            hint="up to 900 of A-Z a-z 0-9 . _ = ~ + @ - and /, no part empty or starting with a dot",
        )  # fmt: skip
    return key


def is_key(key: str) -> bool:
    """Whether a name found in the store could be one of ours."""
    return all(_SEGMENT.fullmatch(part) for part in key.split("/"))


def check_metadata(metadata: Mapping[str, str] | None, *, key: str) -> dict[str, str]:
    """Return the metadata as a dict if every store keeps it byte for byte; InputError otherwise."""
    found = dict(metadata or {})
    for name, value in found.items():
        if not (_METADATA_NAME.fullmatch(name) and _METADATA_VALUE.fullmatch(value)) or value != value.strip():
            raise InputError(
                f"metadata {name!r:.60} cannot be kept", operation="check metadata", key=key,
                hint="names of a-z 0-9 and -, values of printable ASCII without spaces at the ends",
            )  # fmt: skip
    if sum(len(name) + len(value) for name, value in found.items()) > MAX_METADATA_BYTES:
        raise InputError(f"metadata is larger than {MAX_METADATA_BYTES} bytes", operation="check metadata", key=key)
    return found


@contextmanager
def opened(data: bytes | Path) -> Iterator[Source]:
    """What is to be stored, as a file; StorageError names a local file that cannot be read."""
    if isinstance(data, bytes):
        yield io.BytesIO(data)
        return
    try:
        file = data.open("rb")
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", operation="read file", key=str(data)) from error
    with file:
        yield file
