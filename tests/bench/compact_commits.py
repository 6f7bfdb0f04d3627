"""Does planning and committing slow down with the length of the log? The first runs beside those 2,000 commits later.

python tests/bench/compact_commits.py [--commits 2000]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent / "support")]


def main() -> None:
    """Empty runs of all six tables until there are enough, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=2_000)
    options = parser.parse_args()
    from archiver.objects import DirectoryStore
    from pipelines import lake, runs

    with tempfile.TemporaryDirectory() as root:
        store = DirectoryStore(Path(root) / "lake")
        lake.create_tables(store)
        seconds = []
        for _ in range(options.commits):
            started = time.perf_counter()
            version = lake.current(store)
            base = runs.base_versions(store, version)
            if base is None:
                raise SystemExit("another process is at work here")
            plan = runs.RunPlan(version.run + 1, "maintain", 0, "", base, {}, {})
            runs.commit(store, runs.announce(store, plan), runs.Changes())
            seconds.append(time.perf_counter() - started)
    first, last = statistics.median(seconds[:100]), statistics.median(seconds[-100:])
    print(f"plan and commit of six tables: first 100 {first * 1000:.0f} ms, after {options.commits} commits", end=" ")
    print(f"{last * 1000:.0f} ms: {last / first:.2f} x (medians)")


if __name__ == "__main__":
    main()
