"""Archiving speed: 20 messages and 5 interactions a session, from the hot store to a real S3 server.

Beside it, in the same run on the same server: the original's way, one JSON object per session, sent by
boto3 with 16 threads. Usage::

    python tests/bench/archive.py [--sessions 100000] [--flat 10000] [--original 100000]

Each contestant runs in a process of its own. ``cpu_us_per_session`` is this process only, the server's
not included. Two shares say what is spent outside SQLite reads, Arrow and Parquet encoding and the PUT
(content digests, claims, the release and everything else): ``outside_cpu`` of the archiver's CPU time,
``outside_elapsed`` of the time on the clock, that is while none of those was under way in any thread.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)]

import archive_input  # noqa: E402
from s3_servers import ENVIRONMENT, S3Server, seaweed_server  # noqa: E402

from archiver import segments, service  # noqa: E402
from archiver.batch import collect_rarely  # noqa: E402
from archiver.hot import HotStore, frozen  # noqa: E402
from archiver.objects import StoreFacts, open_store  # noqa: E402
from archiver.objects.s3 import S3Store  # noqa: E402
from archiver.settings import HotSettings, Settings, StorageSettings  # noqa: E402

FACTS = StoreFacts(creates_once=True, replaces_if_match=True, refuses_bad_checksum=True)
LATER_US = archive_input.START_US + 400 * 86_400_000_000


class Clock:
    """CPU time of the calling threads and intervals on the clock, by phase."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._intervals: list[tuple[float, float]] = []
        self._digests = threading.local()

    def busy_seconds(self) -> float:
        """Time on the clock during which at least one phase was under way."""
        total, upto = 0.0, 0.0
        for start, end in sorted(self._intervals):
            total += max(0.0, end - max(start, upto))
            upto = max(upto, end)
        return total

    def note(self, phase: str, cpu_started: float, started: float) -> None:
        """Enter one stretch of work. Digests are made while reading, and are not counted as that."""
        cpu, now = time.thread_time() - cpu_started, time.perf_counter()
        self.seconds[phase] += cpu
        inside = self._digests.__dict__.setdefault("found", [])
        if phase == "digest":
            inside.append((started, now, cpu))
            return
        for start, end, spent in inside:
            self._intervals.append((started, start))
            self.seconds[phase] -= spent
            started = end
        inside.clear()
        self._intervals.append((started, now))

    def around(self, owner: Any, name: str, phase: str) -> None:
        """Count the time inside one function."""
        function = getattr(owner, name)

        @functools.wraps(function)
        def timed(*arguments: Any, **values: Any) -> Any:
            started = time.thread_time(), time.perf_counter()
            try:
                return function(*arguments, **values)
            finally:
                self.note(phase, *started)

        setattr(owner, name, timed)

    def between(self, owner: Any, name: str, phase: str) -> None:
        """Count the time a generator takes for its items."""
        function: Callable[..., Iterator[Any]] = getattr(owner, name)

        def timed(*arguments: Any, **values: Any) -> Iterator[Any]:
            items = function(*arguments, **values)
            while True:
                started = time.thread_time(), time.perf_counter()
                item = next(items, None)
                self.note(phase, *started)
                if item is None:
                    return
                yield item

        setattr(owner, name, timed)


def ours(hot_directory: Path, storage: StorageSettings) -> dict[str, Any]:
    """Sweep everything; returns figures."""
    import pyarrow.parquet as pq

    collect_rarely()  # as the command does
    segments.records_to_batch([])  # first-use imports of pyarrow are no work of the archiver
    clock = Clock()
    clock.between(frozen, "claimed_rows", "read")
    clock.around(segments, "rows_to_batch", "arrow")
    clock.around(frozen, "content_digest", "digest")
    clock.around(pq.ParquetWriter, "write_batch", "parquet")
    clock.around(S3Store, "create", "put")
    settings = Settings(storage=storage, hot=HotSettings(path=hot_directory))
    before = _cpu_seconds()
    started = time.perf_counter()
    with HotStore.from_settings(settings.hot) as hot:
        report = service.sweep(hot, open_store(storage), settings, now_us=LATER_US, facts=FACTS)
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - before
    assert report.ok, report.failures
    named = sum(clock.seconds[phase] for phase in ("read", "arrow", "parquet", "put"))
    n = report.sessions_released
    return {
        "contestant": "sessionlake",
        "sessions": n,
        "seconds": round(wall, 2),
        "sessions_per_s": round(n / wall),
        "cpu_us_per_session": round(cpu / n * 1e6),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "puts_per_1000": round((report.segments + 1) / n * 1000, 3),
        "archived_mb": round(report.bytes / 1e6, 1),
        "outside_cpu": round(1 - named / cpu, 3),
        "outside_elapsed": round(1 - clock.busy_seconds() / wall, 3),
        "cpu_us_by_phase": {phase: round(seconds / n * 1e6) for phase, seconds in clock.seconds.items()},
    }


def original(sources: Path, storage: StorageSettings) -> dict[str, Any]:
    """One JSON file per session, read and put as the original archived it, 16 at a time."""
    import boto3
    from botocore.config import Config

    bucket, _, prefix = storage.url.removeprefix("s3://").partition("/")
    client = boto3.client(
        "s3",
        endpoint_url=storage.endpoint_url,
        region_name="us-east-1",
        config=Config(max_pool_connections=16, s3={"addressing_style": "path"}),
    )
    paths = sorted(sources.glob("*.json"))

    def archive(path: Path) -> None:
        session = json.loads(path.read_text("utf-8"))
        body = json.dumps(session, indent=2, ensure_ascii=False).encode()
        client.put_object(Bucket=bucket, Key=f"{prefix}/sessions/{path.name}", Body=body)
        path.unlink()

    before, started = _cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(archive, paths))
    wall, cpu = time.perf_counter() - started, _cpu_seconds() - before
    return {
        "contestant": "one JSON object per session, boto3, 16 threads",
        "sessions": len(paths),
        "seconds": round(wall, 2),
        "sessions_per_s": round(len(paths) / wall),
        "cpu_us_per_session": round(cpu / len(paths) * 1e6),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "puts_per_1000": 1000,
    }


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _in_process(server: S3Server, who: str, directory: Path) -> dict[str, Any]:
    command = [
        sys.executable,
        __file__,
        "--contestant",
        who,
        "--directory",
        str(directory),
        "--endpoint",
        server.endpoint_url,
    ]
    run = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True, check=False)
    if run.returncode:
        raise RuntimeError(run.stderr[-2000:])
    found: dict[str, Any] = json.loads(run.stdout)
    print(json.dumps(found), flush=True)
    return found


def compare(sessions: int, flat: int, of_original: int) -> dict[str, Any]:
    """Run all contestants against one server; returns the figures and what follows from them."""
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        (directory / "weed").mkdir()
        os.environ.update(ENVIRONMENT)
        with seaweed_server(directory / "weed") as server:
            archive_input.fill_json(directory / "before", of_original // 2)
            archive_input.fill_json(directory / "after", of_original // 2)
            archive_input.fill_hot(directory / "small", flat)
            archive_input.fill_hot(directory / "large", sessions)
            os.sync()
            before = _in_process(server, "original", directory / "before")
            small = _in_process(server, "ours", directory / "small")
            large = _in_process(server, "ours", directory / "large")
            after = _in_process(server, "original", directory / "after")
    their_us = (before["cpu_us_per_session"] + after["cpu_us_per_session"]) / 2
    return {
        "results": [large, small, before, after],
        "times_faster": round(large["sessions_per_s"] * (before["seconds"] + after["seconds"]) / of_original, 1),
        "times_less_cpu": round(their_us / large["cpu_us_per_session"], 1),
        "peak_growth": round(large["peak_mb"] / small["peak_mb"], 2),
    }


def main() -> None:
    """Run the comparison, or one contestant of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=100_000)
    parser.add_argument("--flat", type=int, default=10_000, help="the smaller run that peak memory is compared with")
    parser.add_argument("--original", type=int, help="sessions of the original's way; as many as --sessions")
    parser.add_argument("--quick", action="store_true", help="a fiftieth of everything")
    parser.add_argument("--contestant", choices=["ours", "original"])
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--endpoint")
    arguments = parser.parse_args()
    if arguments.contestant is None:
        counts = (arguments.sessions, arguments.flat, arguments.original or arguments.sessions)
        sizes = [n // 50 if arguments.quick else n for n in counts]
        print(json.dumps(compare(*sizes), indent=2))
        return
    storage = S3Server("seaweed", arguments.endpoint).settings()
    run = ours if arguments.contestant == "ours" else original
    print(json.dumps(run(arguments.directory, storage)))


if __name__ == "__main__":
    main()
