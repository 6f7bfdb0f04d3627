"""One sweep: everything that is due goes to the archive, and is deleted here once that is proven."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Final

from archiver import archive, doctor, sealing
from archiver.errors import SessionLakeError, StorageError
from archiver.hot import HotStore
from archiver.hot.due import Backlog
from archiver.hot.segment import Segment
from archiver.objects import ObjectStore, StoreFacts
from archiver.pushing import Pusher, PushReport
from archiver.service.line import PushLine
from archiver.settings import Settings
from archiver.telemetry import CounterName, GaugeName, Metrics, fields

log = logging.getLogger(__name__)

MINUTE_US: Final = 60_000_000
_LEDGER_READ: Final = "ledger_read_us"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a sweep stopped; ``kind`` is the error's stable code."""

    kind: str
    operation: str
    key: str
    message: str

    @classmethod
    def of(cls, error: SessionLakeError) -> Failure:
        """The failure that an error describes."""
        return cls(error.kind, error.operation, error.key, str(error))


@dataclass(slots=True)
class SweepReport:
    """What one sweep did. With failures, everything that is not in the archive is still in the hot store.

    Attributes:
        sessions_kept: Archived, but written to meanwhile: they stay, and are archived again later.
        sessions_erased: Deleted because of a tombstone.
        backlog: What is still due.
    """

    segments: int = 0
    sessions_claimed: int = 0
    sessions_released: int = 0
    sessions_kept: int = 0
    sessions_erased: int = 0
    voided: int = 0
    bytes: int = 0
    backlog: int = 0
    failures: list[Failure] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether all that was due is in the archive."""
        return not self.failures and not self.voided

    def add(self, pushed: PushReport) -> None:
        """Count what a push did."""
        self.segments += pushed.segments
        self.sessions_released += pushed.sessions_released
        self.sessions_kept += pushed.sessions_kept
        self.voided += pushed.voided
        self.bytes += pushed.bytes


def sweep(
    hot: HotStore,
    store: ObjectStore,
    settings: Settings,
    *,
    now_us: int,
    facts: StoreFacts | None = None,
    metrics: Metrics | None = None,
    only_when_worthwhile: bool = False,
    stop: Callable[[], bool] = lambda: False,
) -> SweepReport:
    """Archive everything that is due and delete it here once that is proven; safe to run beside others, and again.

    Never raises for the storage's or a session's sake: failures are in the report and the rows stay.
    ``only_when_worthwhile`` waits until a segment is full or its oldest session has waited long enough;
    ``stop`` is asked between steps.
    """
    run = _Sweep(hot, store, settings, now_us, facts, metrics or Metrics(), stop)
    report = run.report
    try:
        with hot.spool.lock():
            run.execute(only_when_worthwhile=only_when_worthwhile)
    except SessionLakeError as error:
        run.metrics.add(CounterName.SWEEP_FAILURES)
        report.failures.append(Failure.of(error))
    if not any(failure.kind == "store_busy" for failure in report.failures):  # whoever is at work notes it
        hot.claims.note_sweep(report.failures[0].message if report.failures else None, now_us=now_us)
    backlog = hot.claims.backlog(sealing.claim_limits(settings), now_us=now_us)
    report.backlog = backlog.sessions
    _show(run.metrics, hot, backlog, report, now_us)
    return report


class _Sweep:
    """One sweep under the spool's lock; holds what would otherwise be parameters."""

    def __init__(
        self,
        hot: HotStore,
        store: ObjectStore,
        settings: Settings,
        now_us: int,
        facts: StoreFacts | None,
        metrics: Metrics,
        stop: Callable[[], bool],
    ) -> None:
        self._hot = hot
        self._store = store
        self._settings = settings
        self._now_us = now_us
        self._facts = facts
        self._stop = stop
        self.metrics = metrics
        self.report = SweepReport()

    def execute(self, *, only_when_worthwhile: bool) -> None:
        if only_when_worthwhile and self._nothing_to_do():
            return
        self._clean_spool()
        obeyed = self._obey_tombstones()
        self._push_waiting()
        self._push_left_open()
        kept = -1
        while self.report.sessions_kept > kept:  # what was written to meanwhile may be due again
            kept = self.report.sessions_kept
            self._seal_and_push(only_when_worthwhile)
        if self._hot.claims.unreleased():
            return  # what a tombstone covers may still be on its way; the next sweep acknowledges
        if obeyed:
            self._hot.checkpoint()  # else deleted texts stay readable in the WAL
        for tombstone in obeyed:
            archive.acknowledge(self._store, self._hot.claims.archiver_id, tombstone)

    def _seal_and_push(self, only_when_worthwhile: bool) -> None:
        """Segment after segment, while earlier ones are sent and released."""
        claimed = self._claimed(only_when_worthwhile)
        if claimed is None:
            return
        with self._pusher() as pusher, self._line(pusher) as line:
            while claimed is not None:
                segment = sealing.close(self._hot, claimed)
                self._count(segment)
                line.wait()  # most of a sweep: a signal comes here
                if self._stop():
                    break
                line.add(segment)
                claimed = self._claimed(only_when_worthwhile)  # while the request is under way, before the release

    @contextmanager
    def _line(self, pusher: Pusher) -> Iterator[PushLine]:
        """A line for segments; what fails there while a claim fails, too, is in the report beside it."""
        line = PushLine(pusher, now_us=self._now_us)
        try:
            with line:
                yield line
        except SessionLakeError as error:
            if isinstance(line.failure, SessionLakeError):
                self.report.failures.append(Failure.of(line.failure))
            elif line.failure is not None:
                raise line.failure from error  # a fault of this program
            raise

    def _nothing_to_do(self) -> bool:
        """Whether even the storage need not be asked: nothing due, nothing waiting, the ledger read lately."""
        if self._hot.claims.unreleased() or worthwhile(self._hot, self._settings, now_us=self._now_us):
            return False
        last_us = int(self._hot.claims.remembered(_LEDGER_READ) or 0)
        return 0 <= self._now_us - last_us < self._settings.archive.max_wait_minutes * MINUTE_US

    def _claimed(self, only_when_worthwhile: bool) -> Segment | None:
        if self._stop():
            return None
        if only_when_worthwhile and not worthwhile(self._hot, self._settings, now_us=self._now_us):
            return None
        self._check_room()
        if self._facts is None and self._backlog().sessions:  # an idle sweep leaves the storage alone
            self._require_safe_storage()
        return sealing.claim(self._hot, self._settings, now_us=self._now_us)

    def _push_waiting(self) -> None:
        if self._hot.claims.unreleased():
            with self._pusher() as pusher:
                pusher.push_closed(now_us=self._now_us, stop=self._stop)

    def _push_left_open(self) -> None:
        """What a crash left open holds back all later ones: it is closed and pushed with them, in their order."""
        if any(segment.state == "open" for segment in self._hot.claims.unreleased()) and not self._stop():
            self._check_room()
            for segment in sealing.close_left_open(self._hot):
                self._count(segment)
            self._push_waiting()

    def _count(self, segment: Segment) -> None:
        self.report.sessions_claimed += segment.n_sessions
        self.metrics.add(CounterName.CLAIMED, segment.n_sessions)

    @contextmanager
    def _pusher(self) -> Iterator[Pusher]:
        """A pusher for a storage that is safe; what it did is in the report, whatever became of it."""
        self._require_safe_storage()
        pusher = Pusher(self._hot, self._store, facts=self._facts, metrics=self.metrics)
        try:
            yield pusher
        finally:
            self.report.add(pusher.report)

    def _backlog(self) -> Backlog:
        return self._hot.claims.backlog(sealing.claim_limits(self._settings), now_us=self._now_us)

    def _require_safe_storage(self) -> None:
        if self._facts is None:
            self._facts = _safe_facts(self._hot, self._store)

    def _clean_spool(self) -> None:
        wanted = {self._hot.spool.path(s.archiver_id, s.sequence) for s in self._hot.claims.unreleased()}
        removed = self._hot.spool.clean(wanted)
        if removed:
            log.info("spool_cleaned", extra=fields(files=removed))

    def _obey_tombstones(self) -> list[archive.Tombstone]:
        """Delete what was erased elsewhere; returns the tombstones to acknowledge once nothing covered is pending."""
        ledger = archive.tombstones(self._store)
        self._hot.claims.remember(_LEDGER_READ, str(self._now_us))
        if not ledger:
            return []
        known = archive.acknowledged(self._store, self._hot.claims.archiver_id)
        new = [tombstone for tombstone in ledger.entries if tombstone.name not in known]
        if new:
            self.report.sessions_erased += self._hot.claims.drop_covered(ledger.covers)
        return new

    def _check_room(self) -> None:
        limits = self._settings.archive
        if self._hot.spool.size_bytes() > limits.spool_bytes:
            raise StorageError(
                f"holds more than archive.spool_bytes = {limits.spool_bytes}", operation="claim",
                key=str(self._hot.spool.directory), hint="segments wait to be pushed: look at the storage",
            )  # fmt: skip
        free = self._hot.spool.free_bytes()
        if free < limits.min_free_bytes:
            raise StorageError(
                f"the disk has {free} bytes left, archive.min_free_bytes = {limits.min_free_bytes}", operation="claim",
                key=str(self._hot.spool.directory), hint="free some space; sessions stay in the hot store until then",
            )  # fmt: skip


def _safe_facts(hot: HotStore, store: ObjectStore) -> StoreFacts:
    """What the storage was found to promise, probed once for every url; StorageError if archiving there is unsafe."""
    name = f"facts:{store.url}"
    known = hot.claims.remembered(name)
    if known is not None:
        return StoreFacts(**json.loads(known))
    facts = doctor.require_safe_store(store)
    hot.claims.remember(name, json.dumps(asdict(facts)))
    return facts


def worthwhile(hot: HotStore, settings: Settings, *, now_us: int) -> bool:
    """Whether a segment should be sealed now: one is begun, enough is due, or something has been due long enough."""
    if any(segment.state == "open" for segment in hot.claims.unreleased()):
        return True
    limits = sealing.claim_limits(settings)
    backlog = hot.claims.backlog(limits, now_us=now_us)
    if backlog.sessions == 0:
        return False
    waited_us = now_us - backlog.oldest_due_us if backlog.oldest_due_us is not None else 0
    return (
        backlog.evictable > 0
        or backlog.sessions >= limits.segment_sessions
        or backlog.text_bytes >= limits.segment_bytes
        or waited_us >= settings.archive.max_wait_minutes * MINUTE_US
    )


def _show(metrics: Metrics, hot: HotStore, backlog: Backlog, report: SweepReport, now_us: int) -> None:
    metrics.set(GaugeName.BACKLOG, backlog.sessions)
    waited_us = now_us - backlog.oldest_due_us if backlog.oldest_due_us is not None else 0
    metrics.set(GaugeName.OLDEST_EXPIRED, max(0, waited_us) / 1_000_000)
    metrics.set(GaugeName.SPOOL, hot.spool.size_bytes())
    if not report.failures:
        metrics.set(GaugeName.LAST_SUCCESS, now_us / 1_000_000)
