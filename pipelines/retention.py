"""How long the past stays: what superseded data files, uploads, log entries and plans may be removed.

It is decided by run numbers and by the times in our own plans, never by an object's modification time.
A run up to that of a version is in every table, so nobody can commit anything that carries its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from archiver.objects import ObjectStore
from pipelines import lake, runs
from pipelines.lake import LakeVersion
from pipelines.runs import RunPlan
from pipelines.schema import TABLES

_HOUR_US: Final = 3_600_000_000
_RUN_OF_FILE: Final = re.compile(r"/part-(\d{10})-[0-9a-f]+\.parquet$")
_RUN_OF_PLAN: Final = re.compile(r"/(\d{12})\.[^/]+$")
_LOG_ENTRY: Final = re.compile(r"/(\d{20})\.(json|checkpoint\.parquet)$")


def oldest_retained(store: ObjectStore, plan: RunPlan, retention_hours: float, now_us: int) -> LakeVersion | None:
    """The last lake version known to have been committed ``retention_hours`` ago; None if no run is that old.

    A run was committed before its successor was planned; ``plan`` is the latest.
    """
    cutoff_us = now_us - int(retention_hours * _HOUR_US)
    successor: RunPlan | None = plan
    while successor is not None and successor.created_us > cutoff_us:
        successor = runs.read_plan(store, successor.run - 1) if successor.run > 1 else None
    return None if successor is None else lake.at_version(store, successor.base["sessions"])


def remove_files(store: ObjectStore, run: int, versions: Iterable[LakeVersion]) -> int:
    """Remove the data files of runs up to ``run`` that none of the versions holds; returns how many."""
    held = {
        file.key
        for version in versions
        for table in TABLES
        for file in lake.data_files(store, table, version.tables[table])
    }
    dead = [
        info.key
        for table in TABLES
        for info in store.list(f"{lake.PREFIX}/{table}/data/")
        if info.key not in held and _number(_RUN_OF_FILE, info.key) <= run
    ]
    return _remove(store, dead)


def discard_uploads(store: ObjectStore, run: int) -> int:
    """Discard what runs up to ``run`` staged and never published; returns how many."""
    stale = [s for s in store.list_staged(f"{lake.PREFIX}/") if _number(_RUN_OF_FILE, s.key) <= run]
    for upload in stale:
        store.discard(upload.key, upload.token)
    return len(stale)


def shorten_logs(store: ObjectStore, oldest: LakeVersion) -> int:
    """Remove the log entries and plans that neither ``oldest`` nor a later version needs; returns how many.

    A table's log then begins with a checkpoint, so that opening the table and finding a lake version
    cost the same after any number of runs.
    """
    dead = [key for table in TABLES for key in _needless(store, table, oldest.tables[table])]
    plans = [info.key for info in store.list(f"{runs.PREFIX}/") if _number(_RUN_OF_PLAN, info.key) <= oldest.run]
    return _remove(store, [*dead, *plans])


def _needless(store: ObjectStore, table: str, version: int) -> list[str]:
    """Entries before the last checkpoint from which ``version`` can be read; the commit it condenses stays."""
    entries = [
        (m, info.key) for info in store.list(f"{lake.PREFIX}/{table}/_delta_log/") if (m := _LOG_ENTRY.search(info.key))
    ]
    checkpoints = [int(m[1]) for m, _ in entries if m[2] != "json" and int(m[1]) <= version]
    return [key for m, key in entries if checkpoints and int(m[1]) < max(checkpoints)]


def _remove(store: ObjectStore, keys: list[str]) -> int:
    for key in keys:
        store.delete_versions(key)
    return len(keys)


def _number(pattern: re.Pattern[str], key: str) -> int:
    """The run in a name; higher than any where there is none."""
    match = pattern.search(key)
    return int(match[1]) if match else 2**63
