"""A store of 1,000,000 sessions, made quickly, and what the calls over the whole store cost in it."""

from __future__ import annotations

import statistics
import threading
import time
from pathlib import Path

from archiver import SessionManager
from archiver.hot.due import ClaimLimits
from archiver.hot.schema import MINUTE_US

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
                rows.append((f"{i:032x}", f"s{i}", at, at, at, at // MINUTE_US, f"question {i}", 1, i % 3, i % 3))
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
    """Milliseconds of each call, and of appends beside a claiming sweep."""
    now_us = time.time_ns() // 1000
    with SessionManager(directory / "sessions", max_sessions=2_000_000) as manager:
        fill(manager, now_us)
        figures = {
            "list ms": _median_ms(lambda: manager.list_sessions(20)),
            "stats ms": _median_ms(manager.get_stats),
        }
        limits = ClaimLimits(
            max_age_us=24 * HOUR_US, max_sessions=2_000_000, segment_bytes=1 << 40, segment_sessions=20_000
        )
        stop, appended = threading.Event(), []

        def append() -> None:
            i = 0
            while not stop.is_set():
                i = (i * 7919 + 13) % 500_000
                before = time.perf_counter()
                manager.add_message(f"s{i}", "user", "x" * 400)
                appended.append(time.perf_counter() - before)
                time.sleep(0.002)

        thread = threading.Thread(target=append)
        thread.start()
        before = time.perf_counter()
        segment = manager.hot.claims.claim(limits, now_us=now_us)
        claiming = time.perf_counter() - before
        assert segment is not None
        stop.set()
        thread.join()
    appended.sort()
    figures["append p99 ms"] = appended[int(len(appended) * 0.99)] * 1e3
    figures["append max ms"] = appended[-1] * 1e3
    figures["claim 500 ms"] = claiming / (limits.segment_sessions / 500) * 1e3
    return figures


def _median_ms(call: object) -> float:
    times = []
    for _ in range(7):
        before = time.perf_counter()
        call()  # type: ignore[operator]
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e3
