"""The six Delta tables: where they lie, what a lake version is, and the one way to commit to them.

A lake version is a version of the table ``sessions``: it is committed last in every run, and its
commit metadata names the versions of the other five that belong to it. Nothing here writes data
files, and the library's own writers (optimize, merge, delete, write_deltalake) are never used on
these tables: they write outside ``data/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.fs as pafs
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.schema import Field, Schema
from deltalake.transaction import AddAction, RemoveAction

from archiver.errors import ConflictError, InputError, ObjectNotFoundError, StorageError
from archiver.objects import ObjectStore
from pipelines.schema import COMMIT_ORDER, TABLES, table_with_partition

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow.dataset as pads  # at run time only where a dataset is made: it imports pandas where there is one

PREFIX: Final = "tables"
RUN_APP: Final = "run"
"""Application id of the app-transaction that carries the number of the run."""

_VECTOR: Final = "sessionlake"
_CONFIGURATION: Final = {"delta.checkpointInterval": "5", "delta.logRetentionDuration": "interval 3650 days"}
_STATISTICS: Final = ("session_uid", "created_at", "message_index", "interaction_index", "day")


@dataclass(frozen=True, slots=True)
class LakeVersion:
    """One consistent state of all six tables.

    Attributes:
        number: Version of ``sessions``; what ``--version`` names.
        run: Number of the last run it holds, 0 before the first.
        tables: Delta version of every table.
        watermarks: Last consumed sequence of every archiver.
    """

    number: int
    run: int
    tables: Mapping[str, int]
    watermarks: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class DataFile:
    """An active data file of a table, as its log describes it; ``path`` is relative to the table's root."""

    table: str
    path: str
    dt: str
    size_bytes: int
    n_rows: int
    min_uid: str | None
    max_uid: str | None

    @property
    def key(self) -> str:
        """The object key."""
        return f"{PREFIX}/{self.table}/{self.path}"

    def may_hold(self, uids: Sequence[str]) -> bool:
        """Whether one of the sorted ``uids`` can be in this file, by its statistics."""
        return (
            not uids
            or self.min_uid is None
            or self.max_uid is None
            or (uids[0] <= self.max_uid and uids[-1] >= self.min_uid)
        )


@dataclass(frozen=True, slots=True)
class Addition:
    """A published data file, ready to be committed: ``stats`` is the log's JSON."""

    path: str
    dt: str
    size_bytes: int
    stats: str


@dataclass(frozen=True, slots=True)
class Committed:
    """The version that holds a run, None if the table is past the run; and whether this call made it."""

    version: int | None
    by_us: bool


def table_url(store: ObjectStore, table: str) -> str:
    """The Delta root of a table, as other readers address it."""
    if table not in TABLES:
        raise InputError("no such table", operation="open table", key=table, hint=f"tables are {', '.join(TABLES)}")
    return f"{store.url}/{PREFIX}/{table}"


def exists(store: ObjectStore) -> bool:
    """Whether the tables were ever created."""
    # not DeltaTable.is_deltatable: it holds the interpreter lock while it waits for the network
    return next(store.list(f"{PREFIX}/sessions/_delta_log/"), None) is not None


def statistics_columns(table: str) -> list[str]:
    """Columns whose bounds go into the log: keys, indexes and times, never a user's text."""
    return [name for name in TABLES[table].schema.names if name in _STATISTICS]


def create_tables(store: ObjectStore) -> None:
    """Create what is missing of the six tables and of their columns; safe to race, idempotent."""
    for name in COMMIT_ORDER:
        schema = Schema.from_arrow(table_with_partition(TABLES[name]))
        with _translated("create table", name):
            table = DeltaTable.create(
                table_url(store, name),
                schema=schema,
                mode="ignore",
                partition_by=["dt"],
                description=TABLES[name].rows,
                configuration=_CONFIGURATION | _declared_statistics(name),
                storage_options=store.delta_options(),
            )
            _add_columns(table, schema)


def _declared_statistics(table: str) -> dict[str, str]:
    """Without it, delta-rs takes the bounds of every other column for null, and a filter on one finds nothing."""
    return {"delta.dataSkippingStatsColumns": ",".join(statistics_columns(table))}


def _add_columns(table: DeltaTable, wanted: Schema) -> None:
    """Columns of a newer release become nullable columns of the older table; its files read as null."""
    known = {field.name for field in table.schema().fields}
    missing = [Field(f.name, f.type, nullable=True, metadata=f.metadata) for f in wanted.fields if f.name not in known]
    if missing:
        table.alter.add_columns(missing)


def open_table(store: ObjectStore, table: str, version: int | None = None) -> DeltaTable:
    """A handle at ``version``, else at the latest; InputError if there is no such version."""
    try:
        with _translated("open table", table):
            return DeltaTable(table_url(store, table), version=version, storage_options=store.delta_options())
    except TableNotFoundError as error:
        raise InputError("no tables yet", operation="open table", key=table, hint="run sessionlake compact") from error


def current(store: ObjectStore) -> LakeVersion:
    """The latest lake version; InputError if the tables were never created. One open of ``sessions`` and one GET."""
    return at_version(store, open_table(store, "sessions").version())


def at_version(store: ObjectStore, number: int) -> LakeVersion:
    """The lake version ``number``; InputError if there is none.

    Where that commit only added columns, the run before it. The log is read directly: the library's
    ``history`` of an older handle lists newer commits under wrong numbers.
    """
    for version in range(number, -1, -1):
        vector = _vector(store, version)
        if vector is not None:
            tables = {**vector["tables"], "sessions": version}
            return LakeVersion(version, vector["run"], tables, vector["watermarks"])
    return LakeVersion(0, 0, dict.fromkeys(COMMIT_ORDER, 0), {})


def _vector(store: ObjectStore, version: int) -> dict[str, Any] | None:
    actions = _logged(store, "sessions", version)
    if actions is None:
        raise InputError(
            f"no lake version {version}",
            operation="open lake",
            key="sessions",
            hint="sessionlake status names the latest; maintain ends those older than tables.retention_hours",
        )
    for action in actions:
        info = action.get("commitInfo", {})
        if _VECTOR in info:
            vector: dict[str, Any] = json.loads(info[_VECTOR])
            return vector
    return None


def data_files(
    store: ObjectStore, table: str, version: int | None, *, dts: Iterable[str] | None = None
) -> list[DataFile]:
    """Active files of a table version (None: the latest), of all partitions or of ``dts``, in path order."""
    found = open_table(store, table, version).get_add_actions(flatten=True)
    actions = pa.RecordBatchReader.from_stream(found).read_all()
    rows = zip(
        actions.column("path").to_pylist(),
        pc.cast(_column(actions, "partition.dt"), pa.string()).to_pylist(),
        actions.column("size_bytes").to_pylist(),
        _column(actions, "num_records").to_pylist(),
        _column(actions, "min.session_uid").to_pylist(),
        _column(actions, "max.session_uid").to_pylist(),
        strict=True,
    )
    wanted = None if dts is None else set(dts)
    files = [DataFile(table, *row) for row in rows]
    return sorted((f for f in files if wanted is None or f.dt in wanted), key=lambda f: f.path)


def _column(actions: pa.Table, name: str) -> pa.ChunkedArray:
    if name in actions.column_names:
        return actions.column(name)
    return pa.nulls(actions.num_rows, pa.string())


@dataclass(frozen=True, slots=True)
class TableStatistics:
    """Size of a table at one version, from its log alone."""

    table: str
    version: int
    rows: int
    files: int
    size_bytes: int


def statistics(store: ObjectStore, version: LakeVersion | None = None) -> list[TableStatistics]:
    """Rows, files and bytes of every table at a lake version, by default the current one; reads no data file."""
    pinned = version or current(store)
    found = []
    for table in TABLES:
        number = pinned.tables[table]
        files = data_files(store, table, number)
        rows, size = sum(f.n_rows for f in files), sum(f.size_bytes for f in files)
        found.append(TableStatistics(table, number, rows, len(files), size))
    return found


def scan(
    store: ObjectStore,
    table: str,
    version: LakeVersion | None = None,
    *,
    columns: Sequence[str] | None = None,
    filter: pc.Expression | None = None,  # noqa: A002  pyarrow's own name for it
) -> pa.Table:
    """Rows of a table at a lake version (the current one by default), ``dt`` included; see :func:`dataset`."""
    return dataset(store, table, version).to_table(columns=columns, filter=filter)


def dataset(store: ObjectStore, table: str, version: LakeVersion | None = None) -> pads.Dataset:
    """A table at a lake version as a pyarrow dataset: exact, lazy, columns in the schema's order."""
    pinned = version or current(store)
    handle = open_table(store, table, pinned.tables[table])
    root = local_path(store, f"{PREFIX}/{table}")  # delta-rs's own file system copies every range through Python
    local = pafs.SubTreeFileSystem(str(root), pafs.LocalFileSystem()) if root else None
    declared = table_with_partition(TABLES[table])
    schema = pa.schema([field.with_nullable(True) for field in declared])  # older files lack newer columns
    with _translated("scan", table):
        return handle.to_pyarrow_dataset(filesystem=local).replace_schema(schema)


def run_of(store: ObjectStore, table: str) -> int:
    """Number of the last run that was committed to a table, 0 before the first."""
    return _run_in(open_table(store, table))


def _run_in(handle: DeltaTable) -> int:
    return handle.transaction_version(RUN_APP) or 0


def commit(
    store: ObjectStore,
    table: str,
    *,
    base: int,
    run: int,
    watermarks: Mapping[str, int],
    add: Sequence[Addition] = (),
    remove: Sequence[DataFile] = (),
    vector: Mapping[str, Any] | None = None,
    now_us: int,
) -> Committed:
    """Commit one run's changes to one table on version ``base``.

    The commit is made on a handle opened at ``base`` and carries the run and the watermarks as
    app-transactions: the library checks a commit against everything committed since its handle was
    opened, so a run, or a watermark, lands once. A handle opened later would let it land twice.
    ``vector`` goes with ``sessions`` only: it makes the commit a lake version.
    """
    transactions = [Transaction(RUN_APP, run), *(Transaction(a, s) for a, s in sorted(watermarks.items()))]
    metadata = {_VECTOR: json.dumps(vector, sort_keys=True)} if vector is not None else {}
    try:
        with _translated("commit", table):
            handle = open_table(store, table, _past_alterations(store, table, base))
            handle.create_write_transaction(
                _actions(add, remove, now_us // 1000),
                "append",
                handle.schema(),
                partition_by=["dt"],
                commit_properties=CommitProperties(custom_metadata=metadata, app_transactions=transactions),
                post_commithook_properties=PostCommitHookProperties(create_checkpoint=True, cleanup_expired_logs=False),
            )
            handle.update_incremental()  # it does not follow its own commit; half the requests of opening it again
            return Committed(handle.version() if _run_in(handle) == run else None, by_us=True)
    except CommitFailedError as error:
        if run_of(store, table) < run:
            raise ConflictError(
                f"run {run} met a commit that is no run: {error}", operation="commit", key=table,
                hint="only sessionlake may write these tables; run it again to plan anew",
            ) from error  # fmt: skip
    except StorageError:  # the answer may be all that is missing: ask
        if run_of(store, table) < run:
            raise
    latest = open_table(store, table)
    return Committed(latest.version() if _run_in(latest) == run else None, by_us=False)


def version_on(store: ObjectStore, table: str, base: int) -> int:
    """The version of the run that was committed on ``base``."""
    return _past_alterations(store, table, base) + 1


def _past_alterations(store: ObjectStore, table: str, version: int) -> int:
    """The last version from ``version`` on up to which only the table's columns changed.

    A newer release adds columns before it finishes an older one's run; such a commit touches no file
    and is no run, so nothing is unfenced by stepping over it.
    """
    while True:
        actions = _logged(store, table, version + 1)
        if actions is None or any(kind in action for action in actions for kind in ("add", "remove", "txn")):
            return version
        version += 1


def _logged(store: ObjectStore, table: str, version: int) -> list[dict[str, Any]] | None:
    """The actions of one commit; None if there is none of that number, or only a checkpoint has it now."""
    try:
        lines = store.get(f"{PREFIX}/{table}/_delta_log/{version:020d}.json").splitlines()
    except ObjectNotFoundError:
        return None
    return [json.loads(line) for line in lines]


def _actions(add: Sequence[Addition], remove: Sequence[DataFile], millis: int) -> list[AddAction | RemoveAction]:
    added = [AddAction(a.path, a.size_bytes, {"dt": a.dt}, millis, True, a.stats) for a in add]
    removed = [
        RemoveAction(
            path=f.path, data_change=True, deletion_timestamp=millis, partition_values={"dt": f.dt}, size=f.size_bytes
        )
        for f in remove
    ]
    return [*added, *removed]


def checkpoint(store: ObjectStore, table: str) -> None:
    """Condense a table's log, so that opening it reads one file instead of many."""
    with _translated("checkpoint", table):
        open_table(store, table).create_checkpoint()


@contextmanager
def _translated(operation: str, key: str) -> Iterator[None]:
    """Delta errors as ours; those that callers here tell apart pass."""
    try:
        yield
    except (CommitFailedError, TableNotFoundError):
        raise
    except (DeltaError, OSError) as error:
        raise StorageError(
            str(error), operation=operation, key=key, hint="check the storage and that the version exists"
        ) from error


def local_path(store: ObjectStore, key: str) -> Path | None:
    """The file that holds an object where the store is a local directory, else None."""
    if not store.url.startswith("file:"):
        return None
    path: str = pafs.FileSystem.from_uri(store.url)[1]
    return Path(path) / key
