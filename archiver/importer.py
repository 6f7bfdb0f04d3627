"""Import of sessions from files: every form the single-file session manager wrote, JSON Lines, gzip or zstd.

Two passes: the first finds which identities occur more than once in the input, the second seals.
So the result does not depend on the order of the input, and memory holds one segment plus the
repeated identities. Importing the same input again adds nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any, Literal

from archiver import archive, doctor, pushing, restore, sealing
from archiver.errors import SessionConflictError, TooManyRejectsError
from archiver.events import SessionRecord, content_sha256
from archiver.hot import HotStore
from archiver.inputs import MAX_RECORD_BYTES, input_files, read_texts
from archiver.legacy import RejectedRecordError, identity, is_archive_form, parse_json, parse_record
from archiver.objects import ObjectStore
from archiver.settings import Settings

Relation = Literal["same", "extends", "older", "collides"]


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """How to read the input.

    Attributes:
        live: Put sessions that have not expired into the hot store instead of the archive.
        max_rejects: Stop with TooManyRejectsError when more records than this were rejected; None: never.
    """

    assume_tz: tzinfo = UTC
    live: bool = False
    max_rejects: int | None = None
    max_record_bytes: int = MAX_RECORD_BYTES


@dataclass(frozen=True, slots=True)
class Reject:
    """One record that was not imported, and why."""

    file: str
    line: int
    rule: str
    reason: str


@dataclass(slots=True)
class ImportReport:
    """What an import did; ``records`` is the sum of the other counts and the rejects."""

    records: int = 0
    imported: int = 0
    revised: int = 0
    made_live: int = 0
    identical: int = 0
    older: int = 0
    rejects: list[Reject] = field(default_factory=list)

    @property
    def by_rule(self) -> dict[str, int]:
        """Rejects counted by rule."""
        return dict(Counter(r.rule for r in self.rejects).most_common())


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a record stands, for its reject."""

    file: str
    line: int


@dataclass(frozen=True, slots=True)
class _Found:
    """A record as read from the input."""

    source: _Source
    uid: str
    record: SessionRecord
    archive_form: bool


def import_files(
    paths: Sequence[Path],
    hot: HotStore,
    store: ObjectStore,
    settings: Settings,
    *,
    now_us: int,
    options: ImportOptions | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImportReport:
    """Import files and directories; every record ends imported, skipped as known, or in ``rejects``.

    Raises InputError for a path that cannot be read, StorageError if the archive cannot take a
    segment or could lose one (see doctor); what was imported before stays, and importing again continues.
    """
    run = _Import(hot, store, settings, now_us, options or ImportOptions(), progress or (lambda _: None))
    return run.execute(input_files(paths))


class _Import:
    """One run over the input; holds what would otherwise be a dozen parameters."""

    def __init__(
        self,
        hot: HotStore,
        store: ObjectStore,
        settings: Settings,
        now_us: int,
        options: ImportOptions,
        progress: Callable[[int], None],
    ) -> None:
        self._hot = hot
        self._store = store
        self._settings = settings
        self._now_us = now_us
        self._options = options
        self._progress = progress
        self._report = ImportReport()
        self._buffer: list[SessionRecord] = []
        self._buffer_bytes = 0
        self._facts = doctor.require_safe_store(store)
        self._tombstones = archive.tombstones(store)

    def execute(self, files: Sequence[Path]) -> ImportReport:
        self._push()  # segments of an interrupted import: after this the archived index is complete
        repeated = self._repeated_identities(files)
        groups: dict[str, list[_Found]] = defaultdict(list)
        for found in self._read(files):
            self._report.records += 1
            if found.uid in repeated:
                groups[found.uid].append(found)
            else:
                self._take(found)
            self._progress(self._report.records)
        for uid in sorted(groups):
            survivor = self._fold(groups[uid])
            self._take(survivor)
        self._flush()
        self._report.rejects.sort(key=lambda r: (r.file, r.line))
        return self._report

    def _repeated_identities(self, files: Sequence[Path]) -> set[str]:
        seen: set[str] = set()
        repeated: set[str] = set()
        for _, data in self._decoded(files, reject=lambda _source, _error: None):
            uid = identity(data, assume_tz=self._options.assume_tz)
            if uid is not None:
                (repeated if uid in seen else seen).add(uid)
        return repeated

    def _read(self, files: Sequence[Path]) -> Iterator[_Found]:
        for source, data in self._decoded(files, reject=self._reject_unreadable):
            try:
                record = parse_record(data, assume_tz=self._options.assume_tz)
            except RejectedRecordError as error:
                self._reject_unreadable(source, error)
            else:
                yield _Found(source, record.session_uid, record, is_archive_form(data))

    def _decoded(
        self, files: Iterable[Path], reject: Callable[[_Source, RejectedRecordError], None]
    ) -> Iterator[tuple[_Source, Any]]:
        for path in files:
            for line, text in read_texts(path, max_record_bytes=self._options.max_record_bytes):
                source = _Source(str(path), line)
                try:
                    yield source, parse_json(_within_limit(text, self._options.max_record_bytes))
                except RejectedRecordError as error:
                    reject(source, error)

    def _reject_unreadable(self, source: _Source, error: RejectedRecordError) -> None:
        self._report.records += 1
        self._reject(source, error)

    def _reject(self, source: _Source, error: RejectedRecordError) -> None:
        self._report.rejects.append(Reject(source.file, source.line, error.rule, error.message))
        limit = self._options.max_rejects
        if limit is not None and len(self._report.rejects) > limit:
            raise TooManyRejectsError(
                f"{len(self._report.rejects)} records rejected, at most {limit} permitted; the last: {error.message}",
                operation="import", key=f"{source.file}:{source.line}",
                hint="what was imported before stays; importing again continues",
            )  # fmt: skip

    def _fold(self, group: list[_Found]) -> _Found:
        """Of several records with one identity the furthest one; the others are prefixes of it or rejected."""
        group.sort(key=lambda f: (_size(f.record), f.record.updated_at_us or -1, content_sha256(f.record)))
        survivor = group.pop()
        for found in reversed(group):
            relation = compare(survivor.record, found)
            self._count_known(found, relation)
            if relation != "collides" and survivor.archive_form and not found.archive_form:
                survivor = replace(survivor, record=_with_known_fields(found.record, survivor), archive_form=False)
        return survivor

    def _take(self, found: _Found) -> None:
        """Decide about one record by what is already known of its identity."""
        record = found.record
        if self._tombstones.covers(found.uid, record.user_id, record.created_at_us):
            self._reject(
                found.source, RejectedRecordError("erased", f"{record.session_id!r:.60} was erased by request")
            )
            return
        if self._hot.holds(record.session_id, record.created_at_us):
            self._reject(
                found.source,
                RejectedRecordError("live", f"{record.session_id!r:.60} is live in {self._hot.directory}; sweep first"),
            )
            return
        versions = self._hot.claims.known_versions(record.session_id, record.created_at_us)
        if not versions:
            self._add(record, revision=1)
            return
        if any(v.content_sha256 == content_sha256(record) for v in versions):
            self._report.identical += 1
            return
        latest = versions[-1]
        known = restore.read_archived(self._store, latest)
        relation = compare(known, found)
        if relation == "extends":
            self._add(_with_known_fields(known, found), revision=latest.revision + 1)
        else:
            self._count_known(found, relation)

    def _count_known(self, found: _Found, relation: Relation) -> None:
        if relation == "same":
            self._report.identical += 1
        elif relation == "older":
            self._report.older += 1
        else:
            self._reject(
                found.source,
                RejectedRecordError(
                    "identity_collision",
                    f"session {found.record.session_id!r:.60} is known with the same created_at and other content",
                ),
            )

    def _add(self, record: SessionRecord, revision: int) -> None:
        if self._options.live and revision == 1 and self._make_live(record):
            self._report.made_live += 1
            return
        if revision == 1:
            self._report.imported += 1
        else:
            self._report.revised += 1
        self._buffer.append(replace(record, revision=revision, archived_at_us=self._now_us))
        self._buffer_bytes += _text_bytes(record)
        limits = self._settings.archive
        if len(self._buffer) >= limits.segment_sessions or self._buffer_bytes >= limits.segment_bytes:
            self._flush()

    def _make_live(self, record: SessionRecord) -> bool:
        """Put an unexpired session into the hot store; False if it has expired or its id is live already."""
        activity_us = _last_activity_us(record)
        max_age_us = int(self._settings.hot.session_max_age_hours * 3_600_000_000)
        if activity_us + max_age_us <= self._now_us:
            return False
        try:
            self._hot.insert_record(record, last_activity_us=activity_us)
        except SessionConflictError:  # another conversation has the id: only one can be live, this one is archived
            return False
        return True

    def _flush(self) -> None:
        if not self._buffer:
            return
        records = sorted(self._buffer, key=lambda r: r.session_uid)
        sealing.seal_records(self._hot, records, now_us=self._now_us)
        self._buffer, self._buffer_bytes = [], 0
        self._push()

    def _push(self) -> None:
        pushing.push_pending(self._hot, self._store, self._settings, now_us=self._now_us, facts=self._facts)


def compare(known: SessionRecord, found: _Found) -> Relation:
    """What a record is to the known one of the same identity.

    ``same``: nothing new. ``extends``: all known events and more, or a later state of the same
    events. ``older``: a prefix. ``collides``: neither, or another user.
    """
    new = found.record
    if content_sha256(known) == content_sha256(new):
        return "same"
    if None not in (known.user_id, new.user_id) and new.user_id != known.user_id:
        return "collides"
    longer = _extends(known, new)
    shorter = _extends(new, known)
    if longer and shorter:
        return _compare_states(known, found)
    if longer:
        return "extends"
    return "older" if shorter else "collides"


def _extends(base: SessionRecord, other: SessionRecord) -> bool:
    return (
        other.messages[: len(base.messages)] == base.messages
        and other.interactions[: len(base.interactions)] == base.interactions
    )


def _compare_states(known: SessionRecord, found: _Found) -> Relation:
    """Equal events: the later update wins; the archive form only has to agree in the fields it can express."""
    new = found.record
    if found.archive_form:
        agrees = (new.language, new.graph_state) == (known.language, known.graph_state)
        return "same" if agrees else "collides"
    if new.updated_at_us is None or new.updated_at_us == known.updated_at_us:
        return "collides"
    if known.updated_at_us is None or new.updated_at_us > known.updated_at_us:
        return "extends"
    return "older"


def _with_known_fields(known: SessionRecord, found: _Found) -> SessionRecord:
    """The record, with what its form cannot express taken from the revision before."""
    if not found.archive_form:
        return found.record
    return replace(found.record, metadata=known.metadata, user_id=known.user_id)


def _size(record: SessionRecord) -> int:
    return len(record.messages) + len(record.interactions)


def _last_activity_us(record: SessionRecord) -> int:
    if record.updated_at_us is not None:
        return record.updated_at_us
    times = [m.created_at_us for m in record.messages] + [i.created_at_us for i in record.interactions]
    return max(times, default=record.created_at_us)


def _text_bytes(record: SessionRecord) -> int:
    return (
        sum(len(m.content or "") for m in record.messages)
        + sum(len(i.content or "") + len(i.metadata) for i in record.interactions)
        + len(record.graph_state or "")
        + len(record.metadata)
    )


def _within_limit(text: bytes, limit: int) -> bytes:
    if len(text) > limit:
        raise RejectedRecordError("too_large", f"record is larger than {limit} bytes")
    return text
