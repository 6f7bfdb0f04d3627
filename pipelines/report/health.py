"""What the report says of the archive and the tables: sizes, versions, gaps. Listings only, no data is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from archiver import archive
from archiver.objects import ObjectStore
from pipelines import lake
from pipelines.schema import COMMIT_ORDER

_VOID_SUFFIX: Final = ".void.json"
MAX_GAPS: Final = 20
"""Runs of missing sequence numbers that are named; the rest is counted."""


@dataclass(slots=True)
class _Listing:
    """What one archiver's prefix holds."""

    sequences: set[int] = field(default_factory=set)
    voids: set[int] = field(default_factory=set)
    size_bytes: int = 0


def table_health(store: ObjectStore, version: lake.LakeVersion) -> list[dict[str, Any]]:
    """Version, files, rows and bytes of every table."""
    rows = []
    for name in COMMIT_ORDER:
        files = lake.data_files(store, name, version.tables[name])
        rows.append(
            {
                "table": name,
                "version": version.tables[name],
                "files": len(files),
                "rows": sum(file.n_rows for file in files),
                "bytes": sum(file.size_bytes for file in files),
            }
        )
    return rows


def archive_health(store: ObjectStore, watermarks: Mapping[str, int]) -> list[dict[str, Any]]:
    """Segments, bytes, gaps and what is not in the tables yet, of every archiver. One request per 1,000 segments."""
    return [
        _archiver(store, archiver_id, watermarks.get(archiver_id, 0)) for archiver_id in archive.list_archivers(store)
    ]


def _archiver(store: ObjectStore, archiver_id: str, consumed: int) -> dict[str, Any]:
    first = archive.first_sequence(store, archiver_id)
    found = _list(store, archiver_id)
    last = max(found.sequences | found.voids, default=first - 1)
    gaps = missing_runs(found.sequences | found.voids, first, last)
    return {
        "archiver": archiver_id,
        "segments": len(found.sequences),
        "bytes": found.size_bytes,
        "first": first,
        "last": last,
        "consumed": consumed,
        "waiting": sum(sequence > consumed for sequence in found.sequences),
        "voids": sorted(found.voids)[:MAX_GAPS],
        "gaps": gaps[:MAX_GAPS],
        "missing": sum(end - start + 1 for start, end in gaps),
    }


def _list(store: ObjectStore, archiver_id: str) -> _Listing:
    listing = _Listing()
    for info in store.list(f"{archive.PREFIX}/{archiver_id}/"):
        ref = archive.SegmentRef.from_key(info.key)
        if ref is not None:
            listing.sequences.add(ref.sequence)
            listing.size_bytes += info.size_bytes
        elif info.key.endswith(_VOID_SUFFIX):
            listing.voids.add(int(info.key.rpartition("/")[2].removesuffix(_VOID_SUFFIX)))
    return listing


def missing_runs(present: set[int], first: int, last: int) -> list[tuple[int, int]]:
    """Runs of numbers from ``first`` to ``last`` that are absent, as (start, end), both included."""
    runs = []
    expected = first
    for number in [*sorted(n for n in present if first <= n <= last), last + 1]:
        if number > expected:
            runs.append((expected, number - 1))
        expected = number + 1
    return runs
