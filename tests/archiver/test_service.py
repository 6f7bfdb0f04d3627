"""Sweep, watch and status: the archiver as its operator sees it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from archived import session
from faultproxy import Fault, FaultProxy
from live import IDLE_US, NOW_US, archived_records, contents, fill, live_count, settings
from s3_servers import S3Server

from archiver import archive, sealing, service
from archiver.errors import StorageError
from archiver.hot import HotStore
from archiver.objects import DirectoryStore, open_store
from archiver.service import Outlets
from archiver.service.watching import pause_seconds
from archiver.settings import Settings
from archiver.telemetry import CounterName, Metrics


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


@pytest.fixture
def broken(moto_s3: S3Server) -> Iterator[tuple[FaultProxy, object]]:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        yield proxy, open_store(moto_s3.settings(endpoint_url=proxy.url, max_attempts=1))


def test_sweep_archives_what_is_due_and_reports_it(hot: HotStore, directory_store: DirectoryStore) -> None:
    records = fill(hot, (session(n) for n in range(30)))
    fill(hot, [session(99)], last_activity_us=NOW_US)
    metrics = Metrics()
    report = service.sweep(hot, directory_store, settings(segment_sessions=10), now_us=NOW_US, metrics=metrics)
    assert (report.ok, report.segments, report.sessions_claimed, report.sessions_released) == (True, 3, 30, 30)
    assert report.backlog == 0
    assert contents(archived_records(directory_store)) == contents(records)
    assert live_count(hot) == 1
    assert metrics.value(CounterName.RELEASED) == 30
    assert metrics.value(CounterName.PUSH_ATTEMPTS) == 3


def test_second_sweep_finds_nothing_and_pushes_nothing(hot: HotStore, directory_store: DirectoryStore) -> None:
    fill(hot, (session(n) for n in range(3)))
    service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    report = service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    assert (report.ok, report.segments) == (True, 0)


def test_storage_failure_is_in_the_report_and_the_rows_stay(hot: HotStore, broken: tuple[FaultProxy, object]) -> None:
    proxy, store = broken
    records = fill(hot, (session(n) for n in range(5)))
    proxy.add(Fault.ANSWER, code="AccessDenied")
    report = service.sweep(hot, store, settings(), now_us=NOW_US)
    assert not report.ok
    assert [failure.kind for failure in report.failures] == ["storage"]
    assert (report.backlog, live_count(hot)) == (5, 5)
    assert service.status(hot, store, settings(), now_us=NOW_US).progress.last_error_us == NOW_US
    proxy.clear()
    assert service.sweep(hot, store, settings(), now_us=NOW_US).ok
    assert contents(archived_records(store)) == contents(records)


def test_store_that_ignores_conditions_is_refused_before_anything_is_claimed(
    hot: HotStore, broken: tuple[FaultProxy, object]
) -> None:
    proxy, store = broken
    fill(hot, [session(1)])
    proxy.add(Fault.DROP_CONDITIONS)
    report = service.sweep(hot, store, settings(), now_us=NOW_US)
    assert not report.ok
    assert (live_count(hot), hot.claims.unreleased(), report.sessions_claimed) == (1, [], 0)
    assert list(archive.list_archivers(store)) == []


def test_busy_spool_is_reported_as_such(hot: HotStore, directory_store: DirectoryStore) -> None:
    with hot.spool.lock():
        report = service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    assert [failure.kind for failure in report.failures] == ["store_busy"]
    assert hot.claims.progress().last_error is None, "being second is no fault of this store"


def test_report_counts_what_was_done_before_a_failure(hot: HotStore, broken: tuple[FaultProxy, object]) -> None:
    proxy, store = broken
    fill(hot, (session(n) for n in range(6)))
    while sealing.seal(hot, settings(segment_sessions=2), now_us=NOW_US) is not None:
        pass
    proxy.add(Fault.ANSWER, method="PUT", path=r"0003\.parquet", code="AccessDenied")
    report = service.sweep(hot, store, settings(), now_us=NOW_US)
    assert (report.ok, report.segments, report.sessions_released) == (False, 2, 4)


class Refusing(DirectoryStore):
    """A directory store that refuses one object as long as it is told to."""

    refused = "000000000002.parquet"
    error: Exception = StorageError("refused", operation="create")

    def create(self, key: str, data: bytes | Path, **options: object) -> bool:
        if self.refused and key.endswith(self.refused):
            raise self.error
        return super().create(key, data, **options)


def test_the_first_failure_stops_all_that_follow_and_the_next_sweep_goes_on(hot: HotStore, tmp_path: Path) -> None:
    store = Refusing(tmp_path / "store")
    records = fill(hot, (session(n) for n in range(12)))
    report = service.sweep(hot, store, settings(segment_sessions=2), now_us=NOW_US)
    assert (report.segments, report.sessions_released) == (1, 2)
    assert [failure.kind for failure in report.failures] == ["storage"]
    assert [(s.sequence, s.state) for s in hot.claims.unreleased()] == [(2, "closed"), (3, "closed")]
    assert len(archived_records(store)) == 2, "nothing is sent after a segment that is not there"
    assert "refused" in (hot.claims.progress().last_error or "")
    store.refused = ""
    report = service.sweep(hot, store, settings(segment_sessions=2), now_us=NOW_US)
    assert (report.ok, report.sessions_released) == (True, 10)
    assert contents(archived_records(store)) == contents(records)


def test_a_failure_of_the_last_segment_is_in_the_report(hot: HotStore, tmp_path: Path) -> None:
    store = Refusing(tmp_path / "store")
    fill(hot, (session(n) for n in range(4)))
    report = service.sweep(hot, store, settings(segment_sessions=2), now_us=NOW_US)
    assert (report.sessions_released, [failure.kind for failure in report.failures]) == (2, ["storage"])


def test_a_claim_and_a_push_that_fail_side_by_side_are_both_in_the_report(hot: HotStore, tmp_path: Path) -> None:
    store = Refusing(tmp_path / "store")
    store.refused = "000000000001.parquet"
    fill(hot, (session(n) for n in range(6)))
    narrow = settings(segment_sessions=2, spool_bytes=1000)
    report = service.sweep(hot, store, narrow, now_us=NOW_US)
    assert ["refused" in failure.message for failure in report.failures] == [True, False]
    assert "archive.spool_bytes" in report.failures[1].message
    assert (report.sessions_released, live_count(hot)) == (0, 6)


def test_a_fault_of_this_program_beside_a_failing_claim_is_not_swallowed(hot: HotStore, tmp_path: Path) -> None:
    store = Refusing(tmp_path / "store")
    store.refused, store.error = "000000000001.parquet", TypeError("a fault")
    fill(hot, (session(n) for n in range(6)))
    with pytest.raises(TypeError) as raised:
        service.sweep(hot, store, settings(segment_sessions=2, spool_bytes=1000), now_us=NOW_US)
    assert isinstance(raised.value.__cause__, StorageError)
    assert live_count(hot) == 6


def test_a_release_that_fails_holds_back_the_next(hot: HotStore, tmp_path: Path) -> None:
    store = DirectoryStore(tmp_path / "store")
    fill(hot, (session(n) for n in range(12)))
    with hot.transaction() as connection:
        connection.execute(
            "CREATE TRIGGER broken BEFORE DELETE ON claim WHEN OLD.segment = 2 BEGIN SELECT RAISE(ABORT, 'broken'); END"
        )
    report = service.sweep(hot, store, settings(segment_sessions=2), now_us=NOW_US)
    assert (report.segments, report.sessions_released) == (1, 2)
    assert hot.claims.unreleased()[0].sequence == 2
    assert live_count(hot) == 10
    with hot.transaction() as connection:
        connection.execute("DROP TRIGGER broken")
    assert service.sweep(hot, store, settings(segment_sessions=2), now_us=NOW_US).ok
    assert live_count(hot) == 0


def test_files_of_crashed_runs_are_removed_and_wanted_ones_kept(hot: HotStore, directory_store: DirectoryStore) -> None:
    records = fill(hot, (session(n) for n in range(3)))
    sealing.seal(hot, settings(), now_us=NOW_US)
    for name in (".tmp-1-x", f"{'0' * 32}-000000000009.parquet"):
        (hot.spool.directory / name).write_bytes(b"left over")
    report = service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    assert report.ok
    assert [p.name for p in hot.spool.directory.iterdir()] == [".lock"]
    assert contents(archived_records(directory_store)) == contents(records)


def test_full_spool_stops_claiming_and_says_so(hot: HotStore, directory_store: DirectoryStore) -> None:
    fill(hot, (session(n) for n in range(3)))
    sealing.seal(hot, settings(segment_sessions=1), now_us=NOW_US)
    report = service.sweep(hot, directory_store, settings(min_free_bytes=1 << 60), now_us=NOW_US)
    assert "min_free_bytes" in report.failures[0].message
    assert (report.sessions_released, report.backlog) == (1, 2), "what was sealed is still pushed"


def test_erased_users_rows_go_and_the_tombstone_is_acknowledged(hot: HotStore, directory_store: DirectoryStore) -> None:
    fill(hot, (session(n, user_id="gone" if n < 2 else "u") for n in range(5)), last_activity_us=NOW_US)
    stone = archive.Tombstone.of("user", "gone", NOW_US)
    archive.put_tombstone(directory_store, stone)
    report = service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    assert (report.sessions_erased, live_count(hot)) == (2, 3)
    assert archive.acknowledged(directory_store, hot.claims.archiver_id) == {stone.name}
    assert service.sweep(hot, directory_store, settings(), now_us=NOW_US).sessions_erased == 0


def test_tombstone_is_not_acknowledged_while_what_it_covers_is_on_its_way(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    fill(hot, [session(1, user_id="gone")])
    sealing.seal(hot, settings(), now_us=NOW_US)
    archive.put_tombstone(directory_store, archive.Tombstone.of("user", "gone", NOW_US))
    service.sweep(hot, directory_store, settings(), now_us=NOW_US, stop=lambda: True)
    assert archive.acknowledged(directory_store, hot.claims.archiver_id) == frozenset()
    service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    assert len(archive.acknowledged(directory_store, hot.claims.archiver_id)) == 1
    assert archived_records(directory_store) == []


def test_sealing_waits_until_it_is_worthwhile(hot: HotStore, directory_store: DirectoryStore) -> None:
    day_us = 24 * 3_600_000_000
    fill(hot, [session(1), session(2)], last_activity_us=NOW_US - day_us)

    def swept(minutes: int, **limits: int) -> int:
        now_us = NOW_US + minutes * 60_000_000
        report = service.sweep(hot, directory_store, settings(**limits), now_us=now_us, only_when_worthwhile=True)
        return report.sessions_released

    assert swept(14) == 0
    assert swept(14, segment_sessions=2) == 2
    fill(hot, [session(3)], last_activity_us=NOW_US - day_us)
    assert swept(14) == 0
    assert swept(15) == 1


def test_texts_that_fill_a_segment_are_worth_one(hot: HotStore, directory_store: DirectoryStore) -> None:
    fill(hot, (session(n) for n in range(4)), last_activity_us=NOW_US - 24 * 3_600_000_000)
    for segment_bytes, released in ((1 << 20, 0), (200, 4)):
        limits = settings(segment_bytes=segment_bytes)
        report = service.sweep(hot, directory_store, limits, now_us=NOW_US, only_when_worthwhile=True)
        assert report.sessions_released == released


def test_written_to_while_it_was_archived_and_due_again_is_archived_again(
    hot: HotStore, directory_store: DirectoryStore
) -> None:
    fill(hot, (session(n) for n in range(3)))
    sealing.seal(hot, settings(), now_us=NOW_US)
    with hot.transaction() as connection:
        connection.execute("UPDATE session SET language = 'zz' WHERE session_id = 's1'")
    report = service.sweep(hot, directory_store, settings(), now_us=NOW_US)
    assert (report.ok, report.sessions_kept, report.backlog, live_count(hot)) == (True, 1, 0, 0)
    assert sorted(r.revision for r in archived_records(directory_store)) == [1, 1, 1, 2]


def test_status_shows_where_everything_stands(hot: HotStore, directory_store: DirectoryStore) -> None:
    fill(hot, (session(n) for n in range(4)), last_activity_us=NOW_US - 25 * 3_600_000_000)
    fill(hot, (session(n) for n in range(50, 65)), last_activity_us=NOW_US)
    service.sweep(hot, directory_store, settings(segment_sessions=2), now_us=NOW_US - 2 * 3_600_000_000)
    limits = settings(segment_sessions=2, max_sessions=10)
    sealing.seal(hot, limits, now_us=NOW_US)
    status = service.status(hot, directory_store, limits, now_us=NOW_US)
    assert (status.backlog.expired, status.backlog.above_limit, status.backlog.evictable) == (2, 5, 0)
    assert status.oldest_due_seconds == 3600
    assert status.progress.segments == {"closed": 1}
    assert [s.sequence for s in status.waiting] == [1]
    assert status.spool_bytes > 1000
    assert status.progress.last_ok_us == NOW_US - 2 * 3_600_000_000
    service.sweep(hot, directory_store, limits, now_us=NOW_US)
    assert service.status(hot, directory_store, limits, now_us=NOW_US).archivers == (hot.claims.archiver_id,)


def test_status_answers_when_the_storage_does_not(hot: HotStore, broken: tuple[FaultProxy, object]) -> None:
    proxy, store = broken
    proxy.add(Fault.ANSWER, code="AccessDenied")
    status = service.status(hot, store, settings(), now_us=NOW_US)
    assert status.archivers is None
    assert "AccessDenied" in (status.storage_error or "")


# -------------------------------------------------------------------- watch


def watched(
    hot: HotStore, store: object, limits: Settings, until: Callable[[], bool], outlets: Outlets | None = None
) -> service.WatchReport:
    """Watch until a condition holds, at most 20 s."""
    stop = threading.Event()

    def wait() -> None:
        deadline = time.monotonic() + 20
        try:
            while time.monotonic() < deadline and not until():
                time.sleep(0.01)
        finally:
            stop.set()

    waiter = threading.Thread(target=wait)
    waiter.start()
    report = service.watch(hot, store, limits, now_us=lambda: NOW_US, stop=stop, outlets=outlets, interval_seconds=0.01)
    waiter.join()
    return report


def test_watch_archives_sessions_that_expire_later(
    hot: HotStore, directory_store: DirectoryStore, tmp_path: Path
) -> None:
    outlets = Outlets(health=tmp_path / "health.json", textfile=tmp_path / "metrics.prom")
    added = threading.Event()

    def done() -> bool:
        if outlets.health is not None and outlets.health.exists() and not added.is_set():
            fill(hot, [session(1)], last_activity_us=IDLE_US)
            added.set()
        return hot.claims.archived("s1") is not None and "released_sessions_total 1.0" in metrics()

    def metrics() -> str:
        return (tmp_path / "metrics.prom").read_text() if (tmp_path / "metrics.prom").exists() else ""

    report = watched(hot, directory_store, settings(), done, outlets)
    assert report.sessions_released == 1
    assert json.loads((tmp_path / "health.json").read_text())["ok"] is True
    assert "sessionlake_backlog_sessions 0.0" in metrics()


def test_watch_serves_metrics_on_a_port(hot: HotStore, directory_store: DirectoryStore) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pages: list[str] = []

    def seen() -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                pages.append(answer.read().decode())
        except urllib.error.URLError:
            return False
        return True

    watched(hot, directory_store, settings(), seen, Outlets(port=port))
    assert "sessionlake_spool_bytes" in pages[0]


def test_failing_storage_is_left_alone_longer_and_longer(hot: HotStore, broken: tuple[FaultProxy, object]) -> None:
    proxy, store = broken
    proxy.add(Fault.ANSWER, code="SlowDown")
    fill(hot, [session(1)])
    started = time.monotonic()
    report = watched(hot, store, settings(), lambda: time.monotonic() - started > 4)
    assert report.failed_sweeps == report.sweeps
    assert proxy.count() == report.sweeps <= 5, "one request a probe, pauses of at least 0.5, 1, 2 seconds"


def test_idle_watch_leaves_the_storage_alone(hot: HotStore, broken: tuple[FaultProxy, object]) -> None:
    proxy, store = broken
    started = time.monotonic()
    report = watched(hot, store, settings(), lambda: time.monotonic() - started > 1)
    assert report.sweeps > 5
    assert proxy.count() == 1, "the ledger, once"


def test_two_hosts_with_one_bucket_are_independent(tmp_path: Path, directory_store: DirectoryStore) -> None:
    everything = []
    for host in ("a", "b"):
        with HotStore(tmp_path / host, durability="process") as hot:
            everything += fill(hot, (session(n, seed=ord(host)) for n in range(10)))
            assert service.sweep(hot, directory_store, settings(segment_sessions=4), now_us=NOW_US).ok
    assert contents(archived_records(directory_store)) == contents(everything)
    assert len(archive.list_archivers(directory_store)) == 2
    assert archive.verify(directory_store, deep=True).ok


def test_pauses_double_up_to_the_cap_and_half_of_each_is_random() -> None:
    for failures, full in ((1, 1), (2, 2), (5, 16), (9, 256), (10, 300), (5000, 300)):
        found = [pause_seconds(failures, 300) for _ in range(200)]
        assert full / 2 <= min(found) < max(found) <= full
        assert len(set(found)) > 150


WATCHER = """
import sys, time
from pathlib import Path
from archiver import service
from archiver.hot import HotStore
from archiver.objects import DirectoryStore
from archiver.settings import Settings, HotSettings, ArchiveSettings
class Slow(DirectoryStore):
    def create(self, key, data, **values):
        if key.endswith(".parquet"):
            print("pushing", flush=True)
            time.sleep(1.5)
        return super().create(key, data, **values)
root = Path(sys.argv[1])
archive = ArchiveSettings(segment_sessions=2, max_wait_minutes=0)
settings = Settings(hot=HotSettings(session_max_age_hours=0), archive=archive)
with HotStore(root / "hot") as hot, service.until_signalled() as stop:
    service.watch(hot, Slow(root / "lake"), settings, now_us=lambda: int(time.time() * 1e6), stop=stop)
print("stopped", flush=True)
"""


@pytest.mark.parametrize("after_seconds", [0, 0.7], ids=["at once", "while the next segment waits to be sent"])
def test_sigterm_finishes_the_step_under_way_and_no_more(tmp_path: Path, after_seconds: float) -> None:
    with HotStore(tmp_path / "hot") as hot:
        fill(hot, (session(n, n_messages=1) for n in range(6)), last_activity_us=int(time.time() * 1e6) - 60_000_000)
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", WATCHER, str(tmp_path)], env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == "pushing\n"
        time.sleep(after_seconds)
        process.send_signal(signal.SIGTERM)
        rest = process.stdout.read()
    assert (process.returncode, rest) == (0, "stopped\n")
    with HotStore(tmp_path / "hot") as hot:
        assert live_count(hot) == 4, "the segment under way was released, no other begun"
        assert len(hot.claims.unreleased()) <= 1, "the next may be sealed already and waits in the spool"
