"""The doctor: does this installation keep what the archive promises? Found out by really doing it.

The storage is probed by writing, reading, replacing and deleting objects of random names below
``_doctor/``; nothing else in it is touched and nothing stays. Every finding says what to do.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Literal

from archiver.errors import SessionLakeError, UnsuitableStorageError
from archiver.hot import HotStore
from archiver.hot.gate import refuse_network_filesystem
from archiver.objects import ObjectInfo, ObjectStore, StoreFacts
from archiver.settings import Settings

Level = Literal["ok", "warning", "failure"]
VerifyBy = Literal["etag", "checksum", "read back"]

WARN_SKEW_SECONDS: Final = 60
_IN_STEP_SECONDS: Final = 2  # the storage tells its time in whole seconds
FAIL_SKEW_SECONDS: Final = 14 * 60  # Amazon S3 refuses requests at 15 minutes
_OLDEST: Final = {"boto3": (1, 40), "deltalake": (1, 6, 6), "duckdb": (1, 4), "pyarrow": (25,), "pydantic": (2, 10)}
_OLDEST_SQLITE: Final = (3, 37)  # STRICT tables


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at: what was found, and what to do where it is not ok."""

    check: str
    level: Level
    detail: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """Everything found.

    Attributes:
        facts: What the store was seen to do; None where it could not be probed.
        verify_by: How a pushed segment will be proven: by the checksum that the server compared with the
            bytes, by the ETag where it is their MD5, or by reading it back once.
    """

    findings: tuple[Finding, ...]
    facts: StoreFacts | None
    verify_by: VerifyBy | None

    @property
    def failures(self) -> tuple[Finding, ...]:
        """The findings that stop the archive."""
        return tuple(finding for finding in self.findings if finding.level == "failure")


def require_safe_store(store: ObjectStore) -> StoreFacts:
    """Probe a store before the first segment goes there; UnsuitableStorageError where archiving would not be safe."""
    facts = store.probe(_random_key())
    unsafe = [finding for finding in _promises(facts) if finding.level == "failure"]
    if unsafe:
        raise UnsuitableStorageError(unsafe[0].detail, operation="probe", key=store.url, hint=unsafe[0].remedy)
    return facts


def examine(settings: Settings, store: ObjectStore, hot: HotStore | None = None) -> DoctorReport:
    """Look at storage, clock, local disk and library versions. Never raises for what it finds."""
    findings, info = _permissions(store)
    facts = None
    if all(finding.level == "ok" for finding in findings):
        findings.append(_attempt("clock", lambda: _clock(store)))
        try:
            facts = store.probe(_random_key())
        except SessionLakeError as error:
            findings.append(Finding("storage: promises", "failure", error.message, error.hint))
        else:
            findings += _promises(facts)
    findings += _local(settings)
    findings += _versions()
    if hot is not None:
        findings.append(_attempt("sqlite", lambda: _sqlite(hot)))
    return DoctorReport(tuple(findings), facts, _verify_by(info, facts))


def _verify_by(info: ObjectInfo | None, facts: StoreFacts | None) -> VerifyBy | None:
    if info is None:
        return None
    if info.sha256 and facts is not None and facts.refuses_bad_checksum:
        return "checksum"
    return "etag" if info.md5 else "read back"


def _random_key() -> str:
    return f"_doctor/{uuid.uuid4().hex}"


def _attempt(check: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except SessionLakeError as error:
        return Finding(check, "failure", error.message, error.hint)


def _permissions(store: ObjectStore) -> tuple[list[Finding], ObjectInfo | None]:
    """One finding for each kind of request the program sends; stops at the first write that fails."""
    key, body = _random_key(), b"sessionlake doctor"
    info: ObjectInfo | None = None
    findings = [_request("create", lambda: store.create(key, body))]
    if findings[0].level == "failure":
        return findings, None
    try:
        findings.append(_request("read", lambda: store.get(key) == body))
        findings.append(_request("read a range", lambda: store.get_range(key, 3, 5) == body[3:8]))
        findings.append(_request("list", lambda: [info.key for info in store.list(key)] == [key]))
        findings.append(_request("stage", lambda: _staging(store, key + "-staged")))
        info = store.head(key)
    except SessionLakeError as error:
        findings.append(Finding("storage: head", "failure", error.message, error.hint))
    finally:
        findings.append(_request("delete", lambda: store.delete_versions(key) >= 1))
    return findings, info


def _request(name: str, works: Callable[[], object]) -> Finding:
    check = f"storage: {name}"
    return _attempt(check, lambda: _worked(check, works()))


def _worked(check: str, result: object) -> Finding:
    if result:
        return Finding(check, "ok", "works")
    return Finding(check, "failure", "answered, but did something else", "this server is not usable for an archive")


def _staging(store: ObjectStore, key: str) -> bool:
    store.discard(key, store.stage(key, b"staged and discarded"))
    token = store.stage(key, b"staged")
    hidden = store.head(key) is None and any(staged.key == key for staged in store.list_staged(key))
    store.publish(key, token)
    shown = store.get(key) == b"staged"
    store.delete_versions(key)
    return hidden and shown


def _promises(facts: StoreFacts) -> Iterator[Finding]:
    if facts.creates_once:
        yield Finding("storage: If-None-Match", "ok", "a second create of one name is refused")
    else:
        yield Finding(
            "storage: If-None-Match", "failure", "a second create overwrites the first: sessions could be lost",
            "use a server with conditional writes (Amazon S3, SeaweedFS from 4.48, Ceph, R2) or a directory",
        )  # fmt: skip
    if facts.replaces_if_match:
        yield Finding("storage: If-Match", "ok", "an object is replaced only if it is the one that was seen")
    else:
        yield Finding(
            "storage: If-Match", "warning", "objects cannot be replaced safely: erase will refuse",
            "archiving works; choose another server if people may ask to be erased",
        )  # fmt: skip
    if facts.refuses_bad_checksum:
        yield Finding("storage: checksums", "ok", "bytes that do not match their checksum are refused")
    else:
        yield Finding(
            "storage: checksums", "warning", "damaged bytes are accepted",
            "nothing to do: every segment is proven by its MD5, or read back once",
        )  # fmt: skip


def _clock(store: ObjectStore) -> Finding:
    skew = store.clock_skew_seconds()
    if abs(skew) < _IN_STEP_SECONDS:
        return Finding("clock", "ok", "in step with the storage")
    detail = f"{abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} the storage"
    if abs(skew) < WARN_SKEW_SECONDS:
        return Finding("clock", "ok", detail)
    level: Level = "failure" if abs(skew) > FAIL_SKEW_SECONDS else "warning"
    return Finding("clock", level, detail, "set the clock: run a time service such as chrony")


def _local(settings: Settings) -> Iterator[Finding]:
    directory = settings.hot.path.absolute()
    yield _attempt("hot store: file system", lambda: _file_system(settings))
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding("hot store: directory", "failure", f"{existing} cannot be written to", "give this user the right")
    mode = existing.stat().st_mode & 0o077
    if existing == directory and mode:
        yield Finding("hot store: directory", "warning", "others may read it", f"chmod 700 {directory}")
    free, wanted = shutil.disk_usage(existing).free, settings.archive.min_free_bytes
    if free < wanted:
        yield Finding(
            "disk space", "warning", f"{free // 2**20} MiB free, sweeps claim nothing below {wanted // 2**20} MiB",
            "free space, or lower archive.min_free_bytes",
        )  # fmt: skip
    else:
        yield Finding("disk space", "ok", f"{free / 2**30:,.1f} GiB free")


def _file_system(settings: Settings) -> Finding:
    refuse_network_filesystem(settings.hot.path.absolute())
    return Finding("hot store: file system", "ok", "is local")


def _versions() -> Iterator[Finding]:
    for name, oldest in _OLDEST.items():
        found = metadata.version(name)
        if _numbers(found) < oldest:
            wanted = ".".join(map(str, oldest))
            yield Finding(f"package {name}", "failure", f"{found} is too old", f"install {name} {wanted} or newer")
        else:
            yield Finding(f"package {name}", "ok", found)


def _sqlite(hot: HotStore) -> Finding:
    with hot.reader() as connection:
        found = str(connection.execute("SELECT sqlite_version()").fetchone()[0])
    if _numbers(found) < _OLDEST_SQLITE:
        return Finding("sqlite", "failure", f"{found} is too old", "use a Python whose SQLite is 3.37 or newer")
    bug = "; its WAL-reset bug cannot occur: no commit resets the WAL while it is moved" if _resets_badly(found) else ""
    return Finding("sqlite", "ok", f"{found}{bug}")


def _resets_badly(version: str) -> bool:
    """Whether this SQLite can lose a WAL when two connections write and checkpoint at the same instant."""
    found = _numbers(version)
    mended = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
    return found < mended[-1] and not any(found[:2] == fix[:2] and found >= fix for fix in mended)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
