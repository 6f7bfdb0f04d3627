"""Objects as files below one directory.

::

    {root}/{key}                      the object
    {root}/.store/tmp/                files being written; never visible under a key
    {root}/.store/staged/{token}%{key}       % for each / of the key
    {root}/.store/meta/{key}/{sha256}.json   metadata, chosen by the content it belongs to
    {root}/.store/lock                one writer of metadata and names at a time

An object appears by ``link``, which fails where a name exists, so a create can neither tear nor
overwrite. Its metadata is written before that under a name made from the content: the one step that
makes the bytes visible makes their metadata visible too.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from archiver.errors import ConflictError, CorruptDataError, ObjectNotFoundError, OutcomeUnknownError, StorageError
from archiver.objects.base import ObjectInfo, Staged, StoreFacts, Tail, check_key, check_metadata, is_key, opened

_COPY_BYTES: Final = 1 << 20
_SLASH: Final = "%"  # no key has one
_NAME_BYTES: Final = 200
_HINTS: Final = {
    errno.ENOSPC: "the disk is full: free space and run again",
    errno.EDQUOT: "the quota is used up: free space and run again",
    errno.EROFS: "the file system is mounted read-only",
    errno.EACCES: "this user may not write there: check owner and mode of the directory",
    errno.EPERM: "this user may not do that there, or the file system has no hard links",
    errno.EOPNOTSUPP: "the file system has no hard links: use a local POSIX file system or s3://",
}


class DirectoryStore:
    """The object store in a local directory, which is made on the first write. See ObjectStore."""

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._tmp = self._root / ".store" / "tmp"
        self._staged = self._root / ".store" / "staged"
        self._meta = self._root / ".store" / "meta"

    @property
    def url(self) -> str:
        """``file:///directory``."""
        return self._root.as_uri()

    def create(
        self, key: str, data: bytes | Path, *, metadata: Mapping[str, str] | None = None, archival: bool = False
    ) -> bool:
        """See ObjectStore; ``archival`` means nothing here."""
        del archival
        values = check_metadata(metadata, key=key)
        target = self._path(key)
        with _translated("create", key):
            if target.exists():
                return False
            _make_directory(target.parent)
            with self._written(data) as (tmp, sha256), self._lock():
                if target.exists():  # its metadata must not become ours
                    return False
                self._write_metadata(key, sha256, values)
                made = _link(tmp, target)
        if made:
            _sync_written(target.parent, "create", key)
        return made

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
        del archival
        values = check_metadata(metadata, key=key)
        target = self._path(key)
        with _translated("replace", key), self._written(data) as (tmp, sha256), self._lock():
            if not target.exists() or _sha256(target) != if_match:
                return False
            self._write_metadata(key, sha256, values)
            tmp.replace(target)
            if sha256 != if_match:
                self._metadata_path(key, if_match).unlink(missing_ok=True)
        _sync_written(target.parent, "replace", key)
        return True

    def get(self, key: str) -> bytes:
        """See ObjectStore."""
        with _translated("get", key):
            return self._path(key).read_bytes()

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """See ObjectStore."""
        with _translated("get", key), self._path(key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            if start >= size:
                raise CorruptDataError(f"ends at byte {size}, wanted byte {start}", operation="get", key=key)
            file.seek(start)
            return file.read(length)

    def get_tail(self, key: str, length: int) -> Tail:
        """See ObjectStore."""
        with _translated("get", key), self._path(key).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - length))
            return Tail(file.read(), size)

    def head(self, key: str) -> ObjectInfo | None:
        """See ObjectStore. Reads the whole file: the digest is of the bytes that are there now."""
        path = self._path(key)
        with _translated("head", key):
            while True:
                try:
                    with path.open("rb") as file:
                        found = os.fstat(file.fileno())
                        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
                    metadata = self._read_metadata(key, sha256)
                    now = path.stat()
                    # else it was replaced meanwhile, and its metadata may be gone
                    if (now.st_ino, now.st_mtime_ns) == (found.st_ino, found.st_mtime_ns):
                        return ObjectInfo(key, found.st_size, sha256, metadata, sha256)
                except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
                    return None

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[ObjectInfo]:
        """See ObjectStore."""
        with _translated("list", prefix):
            for key, path in _walk(self._root, "", prefix, start_after or ""):
                try:
                    yield ObjectInfo(key, path.stat().st_size)
                except FileNotFoundError:  # deleted since its directory was read
                    continue

    def delete_versions(self, key: str, *, keep_latest: bool = False) -> int:
        """See ObjectStore. A directory keeps one version."""
        target = self._path(key)
        if keep_latest:
            return 0
        with _translated("delete", key):
            if not target.is_file():
                return 0
            with self._lock():
                target.unlink(missing_ok=True)
                shutil.rmtree(self._meta / key, ignore_errors=True)
        _sync_written(target.parent, "delete", key)
        return 1

    def stage(self, key: str, data: bytes | Path) -> str:
        """See ObjectStore."""
        self._path(key)
        token = uuid.uuid4().hex
        staged = self._staged_path(key, token)
        with _translated("stage", key), self._written(data, hashed=False) as (tmp, _):
            staged.parent.mkdir(parents=True, exist_ok=True)  # not synced: after a power loss nobody has the token
            tmp.rename(staged)
        return token

    def publish(self, key: str, token: str) -> None:
        """See ObjectStore."""
        target, staged = self._path(key), self._staged_path(key, token)
        with _translated("publish", key):
            _make_directory(target.parent)
            try:
                made = _link(staged, target)
            except FileNotFoundError:
                if target.is_file():  # this token was published before
                    return
                raise
            if not made and _sha256(staged) != _sha256(target):
                raise ConflictError(
                    "the name is taken by other bytes", operation="publish", key=key,
                    hint="names of staged files must be made from their content",
                )  # fmt: skip
        _sync_written(target.parent, "publish", key)
        self.discard(key, token)

    def discard(self, key: str, token: str) -> None:
        """See ObjectStore."""
        self._path(key)
        check_key(token)
        with _translated("discard", key):
            staged = self._staged_path(key, token)
            staged.unlink(missing_ok=True)
            for directory in staged.relative_to(self._staged).parents[:-1]:  # of a long key
                with suppress(FileNotFoundError):
                    (self._staged / directory).rmdir()

    def list_staged(self, prefix: str) -> Iterator[Staged]:
        """See ObjectStore."""
        with _translated("list staged", prefix):
            for path in sorted(path for path in self._staged.rglob("*") if path.is_file()):
                token, _, key = "".join(path.relative_to(self._staged).parts).replace(_SLASH, "/").partition("/")
                if key.startswith(prefix):
                    yield Staged(key, token, path.stat().st_mtime_ns // 1000)

    def delta_options(self) -> dict[str, str]:
        """See ObjectStore: a local directory needs none."""
        return {}

    def clock_skew_seconds(self) -> float:
        """See ObjectStore: a directory has this machine's clock."""
        return 0.0

    def probe(self, key: str) -> StoreFacts:
        """See ObjectStore."""
        try:
            creates_once = self.create(key, b"first") and not self.create(key, b"second") and self.get(key) == b"first"
            present = hashlib.sha256(b"first").hexdigest()
            refused = not self.replace(key, b"third", if_match="0" * 64)
            replaces = refused and self.replace(key, b"third", if_match=present) and self.get(key) == b"third"
        finally:
            self.delete_versions(key)
        # head() computes the digest from the bytes that lie on the disk, so a false one is always seen
        return StoreFacts(creates_once, replaces, refuses_bad_checksum=True)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _staged_path(self, key: str, token: str) -> Path:
        """One file without directories of its own, which cost more than a small file, unless its name is too long."""
        name = f"{token}/{key}".replace("/", _SLASH)
        return self._staged.joinpath(*(name[i : i + _NAME_BYTES] for i in range(0, len(name), _NAME_BYTES)))

    def _metadata_path(self, key: str, sha256: str) -> Path:
        return self._meta / key / f"{sha256}.json"

    def _write_metadata(self, key: str, sha256: str, values: dict[str, str]) -> None:
        path = self._metadata_path(key, sha256)
        if not values:
            path.unlink(missing_ok=True)
            return
        _make_directory(path.parent)
        with self._written(json.dumps(values, sort_keys=True).encode()) as (tmp, _):
            tmp.replace(path)
            _sync_directory(path.parent)

    def _read_metadata(self, key: str, sha256: str) -> dict[str, str]:
        try:
            values: dict[str, str] = json.loads(self._metadata_path(key, sha256).read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise CorruptDataError(f"metadata is no JSON: {error}", operation="head", key=key) from error
        return values

    @contextmanager
    def _written(self, data: bytes | Path, *, hashed: bool = True) -> Iterator[tuple[Path, str]]:
        """A temporary file that holds the data durably, and its SHA-256 if wanted; gone afterwards if still there."""
        _make_directory(self._tmp)
        tmp = self._tmp / uuid.uuid4().hex
        try:
            with tmp.open("xb") as file:
                sha256 = _copy(data, file.fileno(), hashed=hashed)
                os.fsync(file.fileno())
            yield tmp, sha256
        finally:
            tmp.unlink(missing_ok=True)

    @contextmanager
    def _lock(self) -> Iterator[None]:
        _make_directory(self._meta.parent)
        with (self._meta.parent / "lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _copy(data: bytes | Path, descriptor: int, *, hashed: bool) -> str:
    digest = hashlib.sha256()
    with opened(data) as source:
        while block := source.read(_COPY_BYTES):
            if hashed:
                digest.update(block)
            view = memoryview(block)
            while view:
                view = view[os.write(descriptor, view) :]
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except FileExistsError:
        return False
    return True


def _make_directory(path: Path) -> None:
    """Make a directory and its parents, each durable in its own parent before anything lies in it."""
    if path.is_dir():
        return
    _make_directory(path.parent)
    path.mkdir(exist_ok=True)
    _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_written(directory: Path, operation: str, key: str) -> None:
    """Make a name durable that others can already see, so that a failure means: nobody knows."""
    try:
        _sync_directory(directory)
    except OSError as error:
        raise OutcomeUnknownError(
            f"not known to be on the disk: {error.strerror}", operation=operation, key=key, hint="ask again"
        ) from error


def _walk(directory: Path, at: str, prefix: str, start_after: str) -> Iterator[tuple[str, Path]]:
    """Files below a directory in the order of their keys: a directory sorts as its name with a slash."""
    try:
        with os.scandir(directory) as found:
            entries = sorted((e.name + ("/" if e.is_dir() else ""), e.path) for e in found)
    except (FileNotFoundError, NotADirectoryError):
        return
    for name, path in entries:
        key = at + name
        if not is_key(key.removesuffix("/")):
            continue
        if name.endswith("/"):
            may_match = key.startswith(prefix) or prefix.startswith(key)
            if may_match and (key > start_after or start_after.startswith(key)):
                yield from _walk(Path(path), key, prefix, start_after)
        elif key.startswith(prefix) and key > start_after:
            yield key, Path(path)


@contextmanager
def _translated(operation: str, key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
        raise ObjectNotFoundError("no such object", operation=operation, key=key) from error
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "check the directory that storage.url names")
        raise StorageError(error.strerror or str(error), operation=operation, key=key, hint=hint) from error
