"""A store of 1,000,000 sessions, made quickly, and what the calls over the whole store cost in it."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from archiver import SessionManager, service
from archiver.events import session_uid
from archiver.hot import HotStore
from archiver.hot.due import ClaimLimits
from archiver.hot.schema import MINUTE_US
from archiver.objects import open_store
from archiver.settings import HotSettings, Settings, StorageSettings

SESSIONS = 1_000_000
HOUR_US = 3_600_000_000


def fill(manager: SessionManager, now_us: int) -> None:
    """Sessions whose last activity is spread over 26 hours and 40 minutes: the oldest tenth has expired."""
    span_us = HOUR_US * 80 // 3
    with manager.hot.transaction(durability="process") as connection:
        for first in range(0, SESSIONS, 50_000):
            rows = []
            for i in range(first, first + 50_000):
                at = now_us - span_us * i // SESSIONS
                rows.append(
                    (session_uid(f"s{i}", at), f"s{i}", at, at, at, at // MINUTE_US, f"question {i}", 1, i % 3, i % 3)
                )
            connection.executemany(
                "INSERT INTO session(session_uid, session_id, created_us, updated_us, last_activity_us, minute, title, "
                "next_seq, n_interactions, fb_correct, language) VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'en')",
                rows,
            )
            events = [(i + 1, now_us, f"question {i}") for i in range(first, first + 50_000)]
            connection.executemany(
                "INSERT INTO event(sid, seq, kind, created_us, tag, content) VALUES(?, 0, 0, ?, 'user', ?)", events
            )


def measure(directory: Path, seconds: float) -> dict[str, float]:
    """Milliseconds of each call, and of appends while the archiver's process sweeps the expired tenth away."""
    now_us = time.time_ns() // 1000
    with SessionManager(directory / "sessions", max_sessions=2 * SESSIONS) as manager:
        fill(manager, now_us)
        figures = {
            "list ms": _median_ms(lambda: manager.list_sessions(20)),
            "stats ms": _median_ms(manager.get_stats),
            "claim 500 ms": _claim_ms(manager, now_us),
        }
        sweep = subprocess.Popen(
            [sys.executable, __file__, str(directory)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        times, i = [], 0
        while sweep.poll() is None:
            i = (i * 7919 + 13) % (SESSIONS // 2)
            before = time.perf_counter()
            manager.add_message(f"s{i}", "user", "x" * 400)
            times.append(time.perf_counter() - before)
            time.sleep(0.002)
        assert sweep.stdout is not None
        figures["swept"] = int(sweep.stdout.read())
    times.sort()
    figures["append p50 ms"] = times[len(times) // 2] * 1e3
    figures["append p99 ms"] = times[int(len(times) * 0.99)] * 1e3
    figures["append max ms"] = times[-1] * 1e3
    return figures


def _claim_ms(manager: SessionManager, now_us: int) -> float:
    """One claim transaction of so many sessions would take; they are claimed in smaller ones."""
    sessions = 20_000
    limits = ClaimLimits(
        max_age_us=24 * HOUR_US, max_sessions=2 * SESSIONS, segment_bytes=1 << 40, segment_sessions=sessions
    )
    before = time.perf_counter()
    assert manager.hot.claims.claim(limits, now_us=now_us) is not None
    return (time.perf_counter() - before) / (sessions / 500) * 1e3


def sweep_all(directory: Path) -> int:
    """Sweep to a lake beside the store, as the archiver's own process; returns how many sessions left."""
    hot = HotSettings(path=directory / "sessions", max_sessions=2 * SESSIONS)
    settings = Settings(hot=hot, storage=StorageSettings(url=f"file:{directory / 'lake'}"))
    with HotStore.from_settings(hot) as store:
        report = service.sweep(store, open_store(settings.storage), settings, now_us=time.time_ns() // 1000)
    assert report.ok, report.failures
    return report.sessions_released


def _median_ms(call: object) -> float:
    times = []
    for _ in range(7):
        before = time.perf_counter()
        call()  # type: ignore[operator]
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e3


if __name__ == "__main__":
    print(sweep_all(Path(sys.argv[1])))
