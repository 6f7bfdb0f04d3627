"""Does planning and committing slow down with the length of the log? The first runs beside those 2,000 commits later.

    python tests/bench/compact_commits.py [--commits 2000] [--upkeep HOURS]

One run an hour, each with a small file of messages; an upkeep a day, as operations do it (0: never).
Compared are medians of 100 runs, the upkeep not counted.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import pyarrow as pa

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent.parent), str(HERE.parent / "support")]

from archived import session  # noqa: E402
from reference import messages as message_rows  # noqa: E402

from archiver.events import format_time  # noqa: E402
from archiver.objects import DirectoryStore  # noqa: E402
from archiver.settings import Settings  # noqa: E402
from pipelines import datafiles, lake, maintenance, runs  # noqa: E402
from pipelines.schema import MESSAGES_TABLE  # noqa: E402

HOUR_US = 3_600_000_000
START_US = 1_790_000_000_000_000 // (24 * HOUR_US) * 24 * HOUR_US
MEDIAN_OF = 100
SETTINGS = Settings(runner={"workers": 1})


def messages(number: int) -> pa.Table:
    """A few rows, other ones for every run."""
    rows = message_rows(session(number, n_messages=6))
    return pa.Table.from_pylist(rows, schema=MESSAGES_TABLE.schema)


def plan_and_commit(store: DirectoryStore, number: int, now_us: int) -> tuple[float, float]:
    """One run; the CPU and wall seconds of all of it but writing its file."""
    dt, rows = format_time(now_us)[:10], messages(number)
    cpu, wall = time.process_time(), time.perf_counter()
    version = lake.current(store)
    base = runs.base_versions(store, version)
    if base is None:
        raise SystemExit("another process is at work here")
    plan = runs.announce(store, runs.RunPlan(version.run + 1, "maintain", now_us, "", base, {}, {}))
    planned = time.process_time() - cpu, time.perf_counter() - wall
    staged = datafiles.stage(store, MESSAGES_TABLE, dt, [rows], run=plan.run, task=str(number))
    changes = runs.Changes({"messages": runs.TableChange(add=(staged,))} if staged else {})
    runs.publish(store, plan, changes.staged)
    cpu, wall = time.process_time(), time.perf_counter()
    runs.commit(store, plan, changes)
    return planned[0] + time.process_time() - cpu, planned[1] + time.perf_counter() - wall


def main() -> None:
    """Runs until there are enough commits, then compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--commits", type=int, default=2_000)
    parser.add_argument("--upkeep", type=int, default=24, help="hours between two; 0: never")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        store = DirectoryStore(Path(root) / "lake")
        lake.create_tables(store)
        costs = []
        for hour in range(options.commits):
            now_us = START_US + hour * HOUR_US
            costs.append(plan_and_commit(store, hour, now_us))
            if options.upkeep and hour % options.upkeep == options.upkeep - 1:
                maintenance.maintain(store, SETTINGS, now_us=now_us)
    print(f"plan and commit of six tables, an upkeep every {options.upkeep} runs:")
    for i, name in enumerate(("CPU", "wall")):
        first, last = (statistics.median(c[i] for c in part) for part in (costs[:MEDIAN_OF], costs[-MEDIAN_OF:]))
        print(f"{name}: first {MEDIAN_OF} {first * 1000:.0f} ms, after {options.commits} commits", end=" ")
        print(f"{last * 1000:.0f} ms: {last / first:.2f} x (medians)")


if __name__ == "__main__":
    main()
