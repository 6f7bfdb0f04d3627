"""Prints the names of all files that a compaction and an export write: run it over memory of different garbage.

MALLOC_PERTURB_=85 ARROW_DEFAULT_MEMORY_POOL=system python tests/support/poisoned.py DIRECTORY
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parent)]

from archived import OTHER_ARCHIVER, continued, put, session  # noqa: E402

from archiver.objects import DirectoryStore  # noqa: E402
from archiver.settings import Settings  # noqa: E402
from pipelines import compaction, exports  # noqa: E402

NOW_US = 1_790_900_000_000_000


def write_all(root: Path) -> None:
    """Three runs with revisions, duplicates and shared users; then two training sets."""
    store, settings = DirectoryStore(root), Settings(runner={"workers": 1})
    for number in range(3):
        fresh = [session(n, days=2) for n in range(number * 8, number * 8 + 8)]
        older = [continued(session(n, days=2)) for n in range(max(0, number - 1) * 8, number * 8, 3)]
        put(store, number + 1, fresh + older)
        put(store, number + 1, [session(1000 + number), *fresh[:2]], OTHER_ARCHIVER)
        compaction.compact(store, settings, now_us=NOW_US + number)
    for name in ("sft", "prompts"):
        exports.export(store, settings, name, now_us=NOW_US)


def digests(root: Path) -> list[str]:
    """Path and SHA-256 of every Parquet file."""
    files = sorted(p for p in root.rglob("*.parquet") if "_delta_log" not in p.parts)
    return [f"{p.relative_to(root)} {hashlib.sha256(p.read_bytes()).hexdigest()}" for p in files]


if __name__ == "__main__":
    write_all(Path(sys.argv[1]))
    sys.stdout.write("\n".join(digests(Path(sys.argv[1]))))
    sys.stdout.flush()
    os._exit(0)  # Arrow's threads may abort an interpreter that shuts down
