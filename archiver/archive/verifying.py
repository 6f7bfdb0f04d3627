"""The walk that checks the whole archive: is everything there, and is it what it says it is?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq

from archiver import segments
from archiver.archive.keys import ARCHIVERS, PREFIX, SegmentRef, first_sequence, open_bytes
from archiver.errors import CorruptDataError, ObjectNotFoundError
from archiver.events import content_sha256, membership_digest
from archiver.objects import ObjectInfo, ObjectStore

FindingKind = Literal["gap", "damaged", "digest", "swapped", "counts", "schema", "rows", "unregistered", "stray"]
_OWN = ("_archivers/", "_tombstones/", "_acks/", "_restored/")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, and with which object."""

    kind: FindingKind
    key: str
    detail: str


@dataclass(slots=True)
class VerifyReport:
    """What a verification saw.

    Attributes:
        voids: Keys of segments that hold nothing on purpose: unbuildable, or lost and passed by a person.
        erased_sessions: Sessions removed from segments by erasures.
    """

    archivers: int = 0
    segments: int = 0
    sessions: int = 0
    bytes: int = 0
    erased_sessions: int = 0
    voids: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings


def verify(
    store: ObjectStore,
    *,
    deep: bool = False,
    expected: Mapping[str, int] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> VerifyReport:
    """Read every segment and check bytes, name, counts and sequence; ``deep`` recomputes every session's digest too.

    ``expected`` names, by archiver id, the last sequence known to have been released: without it a
    deleted *last* segment looks like one never written. ``progress`` gets the number of segments done.
    Costs HEAD and GET per segment, and a listing. StorageError if the archive cannot be read at all.
    """
    report = VerifyReport()
    registered = {info.key.removeprefix(ARCHIVERS).removesuffix(".json") for info in store.list(ARCHIVERS)}
    found: dict[str, set[int]] = {archiver_id: set() for archiver_id in sorted({*registered, *(expected or {})})}
    passed: set[str] = set()
    for info in store.list(f"{PREFIX}/"):
        ref = SegmentRef.from_key(info.key)
        if ref is not None:
            found.setdefault(ref.archiver_id, set()).add(ref.sequence)
            _Check(store, ref, report).run(deep=deep)
            progress(report.segments)
        elif info.key.endswith(".void.json"):
            passed.add(info.key)
        elif not info.key.removeprefix(f"{PREFIX}/").startswith(_OWN):
            report.findings.append(Finding("stray", info.key, "no key of this archive"))
    report.archivers = len(found)
    for archiver_id, sequences in found.items():
        _check_sequence(store, report, archiver_id, sequences, passed, registered, (expected or {}).get(archiver_id, 0))
    return report


def _check_sequence(
    store: ObjectStore,
    report: VerifyReport,
    archiver_id: str,
    sequences: set[int],
    passed: set[str],
    registered: set[str],
    last_known: int,
) -> None:
    first = 1
    if archiver_id not in registered:
        key = f"{ARCHIVERS}{archiver_id}.json"
        report.findings.append(
            Finding("unregistered", key, "has segments but no registry entry: compaction skips them")
        )
    else:
        first = first_sequence(store, archiver_id)
    for sequence in range(first, max(sequences | {last_known}, default=0) + 1):
        ref = SegmentRef(archiver_id, sequence)
        if sequence in sequences:
            continue
        if ref.void_key in passed:
            report.voids.append(ref.void_key)
        else:
            report.findings.append(Finding("gap", ref.key, f"sequence {sequence} is missing"))


class _Check:
    """The checks of one segment; each names what it found and lets the walk go on."""

    def __init__(self, store: ObjectStore, ref: SegmentRef, report: VerifyReport) -> None:
        self._store = store
        self._ref = ref
        self._report = report

    def run(self, *, deep: bool) -> None:
        self._report.segments += 1
        try:
            info = self._store.head(self._ref.key)
            data = self._store.get(self._ref.key)
        except ObjectNotFoundError:
            info = None
        except CorruptDataError as error:
            self._found("damaged", error.message)
            return
        if info is None:
            self._found("gap", "was deleted during the walk")
            return
        self._report.bytes += len(data)
        self._check(info, data, deep=deep)

    def _check(self, info: ObjectInfo, data: bytes, *, deep: bool) -> None:
        sha256 = hashlib.sha256(data).hexdigest()
        if "void-of" not in info.metadata and sha256 != info.metadata.get("sha256"):
            self._found(
                "digest", f"bytes have sha256 {sha256[:12]}, metadata says {info.metadata.get('sha256', '')[:12]!r}"
            )
        try:
            file = open_bytes(data, self._ref)
        except CorruptDataError as error:
            self._found("swapped" if error.message.startswith("holds segment") else "damaged", error.message)
            return
        stated = segments.segment_metadata(file, key=self._ref.key)
        self._check_statements(file, stated, info)
        if "void" in stated:
            self._report.voids.append(self._ref.key)
        self._report.sessions += file.metadata.num_rows
        self._report.erased_sessions += int(stated.get("erased", "0"))
        if deep:
            self._check_rows(file, stated)

    def _check_statements(self, file: pq.ParquetFile, stated: Mapping[str, str], info: ObjectInfo) -> None:
        """What the file says of itself, beside what its object's metadata and its footer say."""
        if stated.get("n_sessions") != str(file.metadata.num_rows):
            self._found("counts", f"holds {file.metadata.num_rows} sessions, states {stated.get('n_sessions')}")
        if not file.schema_arrow.remove_metadata().equals(segments.SCHEMA):
            self._found("schema", "columns differ from segment format 1")
        wanted = info.metadata.get("content-digest", info.metadata.get("membership-digest"))
        if "void-of" not in info.metadata and wanted != stated.get("membership_digest"):
            self._found(
                "digest", f"states membership {stated.get('membership_digest', '')[:12]!r}, metadata {wanted!r:.16}"
            )

    def _check_rows(self, file: pq.ParquetFile, stated: Mapping[str, str]) -> None:
        members: list[tuple[str, int, str]] = []
        counts = {"n_messages": 0, "n_interactions": 0}
        try:
            for batch in segments.read_batches(file, key=self._ref.key):
                members += self._members(batch, counts)
        except CorruptDataError as error:
            self._found("damaged", error.message)
            return
        if membership_digest(members) != stated.get("membership_digest"):
            self._found("digest", "its rows do not give the membership digest it states")
        if [member[0] for member in members] != sorted({member[0] for member in members}):
            self._found("rows", "sessions are not sorted by session_uid, or one occurs twice")
        wrong = {name: count for name, count in counts.items() if stated.get(name) != str(count)}
        if wrong:
            self._found("counts", f"rows give {wrong}")

    def _members(self, batch: pa.RecordBatch, counts: dict[str, int]) -> Iterator[tuple[str, int, str]]:
        columns = [batch.column(name).to_pylist() for name in ("session_uid", "content_sha256")]
        for record, uid, digest in zip(segments.batch_to_records(batch), *columns, strict=True):
            counts["n_messages"] += len(record.messages)
            counts["n_interactions"] += len(record.interactions)
            if record.session_uid != uid or content_sha256(record) != digest:
                self._found("rows", f"session {uid} does not match its own digest")
            yield uid, record.revision, digest

    def _found(self, kind: FindingKind, detail: str) -> None:
        self._report.findings.append(Finding(kind, self._ref.key, detail))
