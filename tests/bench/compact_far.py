"""Compaction over a store whose every request takes some milliseconds, as one across a network does: wall time.

    python tests/bench/compact_far.py [--sessions N] [--milliseconds N ...] [--workers N]

The store is a directory that waits before every request. A compaction of everything, then one of a segment
more, with late revisions.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE)]

from archiver.objects import DirectoryStore  # noqa: E402


class FarStore(DirectoryStore):
    """A directory that answers late: as many round trips as S3 takes for each call."""

    def __init__(self, root: Path, seconds: float) -> None:
        super().__init__(root)
        self._seconds = seconds

    def list(self, prefix: str, start_after: str | None = None) -> Iterator[Any]:
        """One round trip."""
        time.sleep(self._seconds)
        return super().list(prefix, start_after)


def _late(name: str, round_trips: int) -> Callable[..., Any]:
    plain = getattr(DirectoryStore, name)

    def late(self: FarStore, *arguments: Any, **named: Any) -> Any:
        time.sleep(round_trips * self._seconds)
        return plain(self, *arguments, **named)

    return late


for _name, _round_trips in {
    "create": 1, "replace": 1, "get": 1, "get_range": 1, "get_tail": 1, "head": 1, "delete_versions": 2, "stage": 2,
    "publish": 1, "discard": 1,
}.items():  # fmt: skip
    setattr(FarStore, _name, _late(_name, _round_trips))


def measure(
    source: Path, target: Path, seconds: float, workers: int, more: Callable[[Path], None]
) -> tuple[float, float]:
    """Wall seconds of compacting everything, and of what ``more`` archives after it."""
    from archiver.settings import Settings
    from pipelines import compaction
    from pipelines.runner import prepare_process

    if workers == 1:
        prepare_process()  # as the command does
    shutil.copytree(source / "archive", target / "archive", copy_function=os.link)
    settings = Settings(runner={"workers": workers})
    found = []
    for _ in range(2):
        started = time.monotonic()
        report = compaction.compact(FarStore(target, seconds), settings, now_us=time.time_ns() // 1000)
        found.append(time.monotonic() - started)
        if report.incomplete:
            raise SystemExit(f"incomplete: {report.problems[:3]}")
        more(target)
    return found[0], found[1]


def main() -> None:
    """Generate, compact, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=40_000)
    parser.add_argument("--milliseconds", type=float, nargs="+", default=[0, 10, 30])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/sessionlake-bench-compact"))
    options = parser.parse_args()
    import compact_input

    source = options.directory / f"input-{options.sessions}"
    facts = compact_input.generate(source, options.sessions)

    def more(target: Path) -> None:
        sessions = options.sessions + compact_input.SEGMENT_SESSIONS
        compact_input.write(compact_input.SegmentJob(target, facts["segments"], sessions, 7, 0.03))

    for milliseconds in options.milliseconds:
        with tempfile.TemporaryDirectory(dir=options.directory) as directory:
            full, incremental = measure(source, Path(directory), milliseconds / 1000, options.workers, more)
        print(f"{milliseconds:g} ms a request: {full:.2f} s, and {incremental:.2f} s for one segment more", flush=True)


if __name__ == "__main__":
    main()
