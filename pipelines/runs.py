"""A run: planned in one object, published all at once, committed table by table, sessions last.

::

    tables/_runs/{run:012d}.json                  the plan; created once, so two planners meet here
    tables/_runs/{run:012d}.outcome.json          commit or abandon; created once before the first commit
    tables/_runs/{run:012d}.files-{digest}.json   names an attempt is about to publish

A run whose plan exists and whose ``sessions`` commit does not is unfinished. Whoever comes next
finishes it before planning anything else. A compaction is finished by its own plan; every other kind
changes no row's meaning, so it is finished by committing nothing in its remaining tables.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from itertools import chain
from typing import Any, Final, Literal

from archiver.errors import ConflictError, CorruptDataError, ObjectNotFoundError, OutcomeUnknownError, StorageError
from archiver.objects import ObjectStore
from pipelines import lake
from pipelines.ahead import ahead
from pipelines.datafiles import StagedFile
from pipelines.lake import DataFile, LakeVersion
from pipelines.schema import COMMIT_ORDER

PREFIX: Final = f"{lake.PREFIX}/_runs"
FORMAT: Final = 1
_REQUESTS: Final = 8

RunKind = Literal["compact", "maintain", "erase"]
Outcome = Literal["commit", "abandon"]


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What one run does, complete enough for another process to finish it.

    Attributes:
        base: Version of every table the run builds on; its commits are made on exactly these.
        watermarks: Sequence consumed per archiver once the run is committed, all archivers.
        body: What only this kind of run needs.
    """

    run: int
    kind: RunKind
    created_us: int
    code_version: str
    base: Mapping[str, int]
    watermarks: Mapping[str, int]
    body: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The object key."""
        return f"{PREFIX}/{self.run:012d}.json"

    def to_json(self) -> bytes:
        """The object's bytes."""
        value = {
            "format": FORMAT, "run": self.run, "kind": self.kind, "created_us": self.created_us,
            "code_version": self.code_version, "base": dict(self.base), "watermarks": dict(self.watermarks),
            "body": dict(self.body),
        }  # fmt: skip
        return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True)
class TableChange:
    """What a run does to one table."""

    add: tuple[StagedFile, ...] = ()
    remove: tuple[DataFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Changes:
    """What a run does to the tables; a table without an entry gets an empty commit."""

    tables: Mapping[str, TableChange] = field(default_factory=dict)

    def of(self, table: str) -> TableChange:
        """The change of one table."""
        return self.tables.get(table, TableChange())

    @property
    def rows_added(self) -> dict[str, int]:
        """Rows added less rows removed, per table."""
        return {
            table: sum(f.n_rows for f in self.of(table).add) - sum(f.n_rows for f in self.of(table).remove)
            for table in COMMIT_ORDER
        }

    @property
    def staged(self) -> list[StagedFile]:
        """Every file to publish."""
        return [file for name in COMMIT_ORDER for file in self.of(name).add]


def code_version() -> str:
    """Version of this distribution, for the record."""
    try:
        return metadata.version("sessionlake")
    except metadata.PackageNotFoundError:
        return "unknown"


def base_versions(store: ObjectStore, version: LakeVersion) -> dict[str, int] | None:
    """The latest version of every table, to plan the run after ``version`` on; None if a table is past that."""
    base = {}
    for table in COMMIT_ORDER:
        handle = lake.open_table(store, table)
        if (handle.transaction_version(lake.RUN_APP) or 0) != version.run:
            return None
        base[table] = handle.version()
    return base


def read_plan(store: ObjectStore, run: int) -> RunPlan | None:
    """The plan of a run, None if it was never planned."""
    key = f"{PREFIX}/{run:012d}.json"
    try:
        value = json.loads(store.get(key))
        found = value.pop("format")
        plan = RunPlan(**value)
    except ObjectNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptDataError(f"is no run plan: {error}", operation="read plan", key=key) from error
    if found != FORMAT:
        raise CorruptDataError(f"has format {found}", operation="read plan", key=key, hint="update sessionlake")
    return plan


def unfinished(store: ObjectStore, version: LakeVersion) -> RunPlan | None:
    """The run that was planned on top of ``version`` and is not committed to the end."""
    return read_plan(store, version.run + 1)


def announce(store: ObjectStore, plan: RunPlan) -> RunPlan:
    """Write the plan; if another process planned this run first, return that plan instead."""
    _create(store, plan.key, plan.to_json())
    found = read_plan(store, plan.run)
    if found is None:
        raise OutcomeUnknownError("the plan was written and is not there", operation="plan", key=plan.key)
    return found


def decide(store: ObjectStore, plan: RunPlan, outcome: Outcome) -> Outcome:
    """Settle, for every process that works on it, whether a compaction commits or is abandoned."""
    key = f"{PREFIX}/{plan.run:012d}.outcome.json"
    _create(store, key, json.dumps({"outcome": outcome}).encode())
    settled: Outcome = json.loads(store.get(key))["outcome"]
    return settled


def publish(store: ObjectStore, plan: RunPlan, staged: Sequence[StagedFile]) -> None:
    """Make all staged files visible, their names on record first, and prove that each is there.

    StorageError if one is missing afterwards: nothing may be committed then.
    """
    if not staged:
        return
    names = json.dumps(sorted(f.key for f in staged)).encode()
    _create(store, f"{PREFIX}/{plan.run:012d}.files-{hashlib.sha256(names).hexdigest()[:16]}.json", names)
    for _ in ahead(lambda file: store.publish(file.key, file.token), staged, most=_REQUESTS):
        pass
    listings = ahead(lambda prefix: _sizes(store, prefix), _prefixes(plan, staged), most=_REQUESTS)
    found = dict(chain.from_iterable(listings))
    for file in staged:
        if found.get(file.key) != file.addition.size_bytes:
            raise StorageError(
                f"has {found.get(file.key)} of {file.addition.size_bytes} bytes after its upload", operation="publish",
                key=file.key, hint="run again; nothing was committed",
            )  # fmt: skip


def _prefixes(plan: RunPlan, staged: Iterable[StagedFile]) -> list[str]:
    """One listing for each partition: it costs less than one request per file."""
    return sorted({f"{f.key.rsplit('/', 1)[0]}/part-{plan.run:010d}-" for f in staged})


def _sizes(store: ObjectStore, prefix: str) -> list[tuple[str, int]]:
    return [(info.key, info.size_bytes) for info in store.list(prefix)]


def commit(store: ObjectStore, plan: RunPlan, changes: Changes) -> bool:
    """Commit the run to every table that does not hold it yet, sessions last; safe to race and to repeat.

    Returns whether every table now holds exactly these changes. What this or another attempt published
    and nobody committed is deleted: nobody can any more.
    """
    versions: dict[str, int] = {}
    rivals = False
    for table in COMMIT_ORDER:
        change = changes.of(table)
        vector = None
        if table == "sessions":
            vector = {"run": plan.run, "tables": versions, "watermarks": dict(plan.watermarks)}
        committed = lake.commit(
            store,
            table,
            base=plan.base[table],
            run=plan.run,
            watermarks=plan.watermarks,
            add=[f.addition for f in change.add],
            remove=change.remove,
            vector=vector,
            now_us=plan.created_us,
        )
        rivals |= not committed.by_us
        if committed.version is None:  # others finished this run and went on
            break
        versions[table] = committed.version
    names = _recorded(store, plan)
    mine = {f.key for f in changes.staged}
    if not rivals and names <= mine:
        return True
    dead = _dead(store, plan, names)
    for name in sorted(dead):
        store.delete_versions(name)
    return not mine & dead


def finish_empty(store: ObjectStore, plan: RunPlan) -> None:
    """End a run by committing nothing, watermarks unmoved, in the tables that do not hold it yet."""
    before = lake.at_version(store, plan.base["sessions"])
    commit(store, replace(plan, watermarks=before.watermarks), Changes())


def _recorded(store: ObjectStore, plan: RunPlan) -> set[str]:
    """Every name that any attempt at the run was about to publish."""
    records = [info.key for info in store.list(f"{PREFIX}/{plan.run:012d}.files-")]
    return {name for key in records for name in json.loads(store.get(key))}


def _dead(store: ObjectStore, plan: RunPlan, names: set[str]) -> set[str]:
    """Those of the names that the run's own commits do not hold; the run must be in every table.

    A later run may have replaced one that readers of this run's version still need: that is no dead one.
    """
    tables = {name.split("/")[1] for name in names}
    versions = {table: lake.version_on(store, table, plan.base[table]) for table in tables}
    return names - {file.key for table in tables for file in lake.data_files(store, table, versions[table])}


def _create(store: ObjectStore, key: str, data: bytes) -> bool:
    """Create, asking again while nobody knows whether it landed."""
    for _ in range(3):
        try:
            return store.create(key, data)
        except OutcomeUnknownError:
            if store.head(key) is not None:
                return False
    raise ConflictError("could not be written", operation="plan", key=key, hint="run again")
