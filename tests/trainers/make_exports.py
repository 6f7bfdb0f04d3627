"""Make the five exports that the trainers read: ``make_exports.py DIRECTORY [SESSIONS.jsonl.gz]``.

Without a file of sessions they are generated.
"""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

import archived
from replays import reasoning

from archiver import legacy
from archiver.events import SessionRecord
from archiver.objects import DirectoryStore
from archiver.settings import Settings
from pipelines import compaction, exports
from pipelines.schema import EXPORTS

NOW_US = 1_790_900_000_000_000


def sessions(path: Path | None) -> list[SessionRecord]:
    """Sessions of a file, or generated ones."""
    if path is None:
        return [reasoning(n) for n in range(400)]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [legacy.parse_record(json.loads(line)) for line in lines]


def main(directory: Path, path: Path | None) -> None:
    """Archive, compact, export."""
    store, settings = DirectoryStore(directory), Settings()
    archived.put(store, 1, sessions(path))
    compaction.compact(store, settings, now_us=NOW_US)
    for name in EXPORTS:
        report = exports.export(store, settings, name, now_us=NOW_US)
        link = directory / name
        link.symlink_to((directory / report.key).resolve(), target_is_directory=True)
        print(name, dict(report.rows))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
