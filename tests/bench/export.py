"""All five training sets from one lake: rows a second, CPU, peak memory of the process tree; redaction MB/s.

    python tests/bench/export.py [--quick] [--sessions N] [--workers N] [--directory DIR]

Sessions are generated: a question, a tree of seven nodes, two to nine acts. Every set is exported in a
process of its own. ``--profile SET`` prints where the time of one set goes, in one process.
"""

from __future__ import annotations

import argparse
import cProfile
import gzip
import json
import os
import platform
import pstats
import shutil
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent / "support"), str(HERE)]

import archived  # noqa: E402
from compact import measure  # noqa: E402
from replays import reasoning  # noqa: E402

from archiver.objects import DirectoryStore  # noqa: E402
from archiver.settings import Settings  # noqa: E402
from pipelines import compaction, exports  # noqa: E402
from pipelines.redact import RuleRedactor  # noqa: E402
from pipelines.schema import EXPORTS  # noqa: E402

NOW_US = 1_790_900_000_000_000
SEGMENT_SESSIONS = 10_000


def prepare(directory: Path, n_sessions: int) -> DirectoryStore:
    """A lake of generated sessions."""
    store = DirectoryStore(directory)
    for number, start in enumerate(range(0, n_sessions, SEGMENT_SESSIONS), 1):
        stop = min(start + SEGMENT_SESSIONS, n_sessions)
        archived.put(store, number, [reasoning(n, days=30) for n in range(start, stop)])
    compaction.compact(store, Settings(), now_us=NOW_US)
    return store


def job(directory: Path, name: str, workers: int) -> None:
    """Export one set and print what it cost this process and its children."""
    settings = Settings(runner={"workers": workers})  # type: ignore[arg-type]
    report = exports.export(DirectoryStore(directory), settings, name, now_us=NOW_US)
    times = os.times()
    print(report.n_rows, "CPU", times.user + times.system + times.children_user + times.children_system)


def profile(directory: Path, name: str) -> None:
    """Print the functions that one set spends its time in."""
    profiler = cProfile.Profile()
    profiler.runcall(job, directory, name, 1)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


def redaction() -> str:
    """Speed of the built-in rules on real messages where they are at hand, else on generated ones, in CPU time."""
    path = HERE.parents[2] / "shared" / "data" / "sessions.jsonl.gz"
    if path.exists():
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            texts = [m["content"] for line in lines for m in json.loads(line)["chat_history"]]
    else:
        texts = [m.content or "" for n in range(10_000) for m in reasoning(n).messages]
    redactor, size = RuleRedactor(), sum(len(text.encode()) for text in texts)
    started = time.process_time()
    flagged = sum(1 for text in texts if redactor.find(text))
    rate = size / 1e6 / (time.process_time() - started)
    origin = "real" if path.exists() else "generated"
    return f"{rate:.0f} MB/s of CPU time over {len(texts)} {origin} texts, {flagged} of them flagged"


def compare(directory: Path, n_sessions: int, workers: int) -> None:
    """Export every set in a process of its own and print a table."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, {n_sessions} sessions, {workers} workers")
    print(f"{'set':12} {'wall s':>7} {'CPU s':>7} {'sessions/s':>11} {'peak MiB':>9}")
    for name in EXPORTS:
        shutil.rmtree(directory / "exports" / name, ignore_errors=True)
        found = measure(
            [sys.executable, __file__, "--job", name, "--directory", str(directory), "--workers", str(workers)]
        )
        rate = n_sessions / found.wall_seconds
        print(
            f"{name:12} {found.wall_seconds:7.1f} {found.cpu_seconds:7.1f} {rate:11.0f} {found.peak_mib:9}", flush=True
        )
    print(f"redaction, one core: {redaction()}")


def main() -> None:
    """Parse, prepare, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--sessions", type=int)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--job", choices=tuple(EXPORTS))
    parser.add_argument("--profile", choices=tuple(EXPORTS))
    arguments = parser.parse_args()
    if arguments.job:
        job(arguments.directory, arguments.job, arguments.workers)
        return
    n_sessions = arguments.sessions or (5_000 if arguments.quick else 200_000)
    with tempfile.TemporaryDirectory() as temporary:
        directory = arguments.directory or Path(temporary)
        if not (directory / "tables").exists():
            prepare(directory, n_sessions)
        if arguments.profile:
            profile(directory, arguments.profile)
        else:
            compare(directory, n_sessions, arguments.workers)


if __name__ == "__main__":
    main()
