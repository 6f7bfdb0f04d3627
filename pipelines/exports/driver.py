"""One export from beginning to end: slices to workers, decisions over all rows, files, manifest, pointer."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as distribution_version
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from archiver.errors import ConflictError, InputError, StorageError
from archiver.objects import ObjectStore
from archiver.settings import Settings
from pipelines import dedup, lake, near
from pipelines.exports import card, work
from pipelines.exports.filters import ExportFilters
from pipelines.exports.source import LakeSource, Source, accepted_gaps
from pipelines.exports.writer import FileFormat, WrittenFile, finished, json_line, write_split
from pipelines.redact import NoRedactor, Redactor, RuleRedactor, identifier_key
from pipelines.runner import open_runner
from pipelines.schema import EXPORTS, SCHEMA_VERSION, Dataset
from pipelines.splits import SPLITS

PREFIX: Final = "exports"
MANIFEST: Final = "manifest.json"
_OPERATION: Final = "export"
_JUDGED: Final = frozenset({"preferences", "unpaired", "stepwise"})

Progress = Callable[[int, int], None]
"""Called with slices done and slices in all."""


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What an export holds and where it lies.

    Attributes:
        key: Prefix of its objects, ``exports/{set}/{version}``; empty if it has no rows, then nothing was written.
        rows: Rows by split.
        rejected: Sessions and candidates that gave no row, by reason.
        dropped: Rows held back as contradiction, duplicate or leakage.
        existed: The same export was there already, whole.
    """

    set_name: str
    version: str
    key: str
    url: str
    rows: Mapping[str, int]
    rejected: Mapping[str, int]
    filtered: Mapping[str, int]
    dropped: Mapping[str, int]
    redactions: Mapping[str, int]
    rows_on_default_consent: int
    files: tuple[str, ...]
    existed: bool
    seconds: float

    @property
    def n_rows(self) -> int:
        """Rows of all splits."""
        return sum(self.rows.values())


def export(
    store: ObjectStore,
    settings: Settings,
    set_name: str,
    *,
    version: int | None = None,
    filters: ExportFilters | None = None,
    now_us: int,
    progress: Progress | None = None,
    file_format: FileFormat = "parquet",
    target: ObjectStore | None = None,
    redactor: Redactor | None = None,
) -> ExportReport:
    """Write one training set of a table version (absent: the current one) to ``exports/{set}/{version}/``.

    The same tables, settings and filters give the same name and the same bytes; an export that is
    there already is not made again. The manifest is written last but for the pointer ``latest``.
    ``target`` writes to another store than the tables'. ``redactor`` replaces the built-in rules.
    """
    if set_name not in EXPORTS:
        raise InputError("no such set", operation=_OPERATION, key=set_name, hint=f"sets are {', '.join(EXPORTS)}")
    pinned = lake.current(store) if version is None else lake.at_version(store, version)
    plan = Plan(
        source=LakeSource(store, pinned),
        table_version=pinned.number,
        accepted_gaps=accepted_gaps(store, pinned),
        settings=settings,
        dataset=EXPORTS[set_name],
        filters=filters or ExportFilters(),
        redactor=redactor or (RuleRedactor() if settings.exports.redact else NoRedactor()),
        file_format=file_format,
    )
    return make(plan, target or store, now_us=now_us, progress=progress)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything an export's bytes depend on."""

    source: Source
    table_version: int
    accepted_gaps: tuple[str, ...]
    settings: Settings
    dataset: Dataset
    filters: ExportFilters
    redactor: Redactor
    file_format: FileFormat = "parquet"

    @property
    def identity(self) -> dict[str, Any]:
        """What the manifest says of them; the version's name is made from it."""
        exports = self.settings.exports
        return {
            "set": self.dataset.name,
            "table_version": self.table_version,
            "schema_version": SCHEMA_VERSION,
            "schema_fingerprint": hashlib.sha256(str(self.dataset.schema).encode()).hexdigest(),
            "code_version": distribution_version("sessionlake"),
            "pyarrow_version": pa.__version__,
            "settings": {
                "consent_default": exports.consent_default,
                "split_salt_sha256": hashlib.sha256(exports.split_salt.encode()).hexdigest(),
                "shard_bytes": exports.shard_bytes,
                "redactor": self.redactor.name,
                "near_duplicates": near.engine(),
                "file_format": self.file_format,
            },
            "filters": self.filters.as_json(),
        }

    @property
    def version(self) -> str:
        """``v{table version}-{digest of what the bytes depend on}``."""
        text = json.dumps(self.identity, sort_keys=True)
        return f"v{self.table_version:06d}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"

    @property
    def key(self) -> str:
        """Prefix of the export's objects."""
        return f"{PREFIX}/{self.dataset.name}/{self.version}"


def make(plan: Plan, store: ObjectStore, *, now_us: int, progress: Progress | None = None) -> ExportReport:
    """Make the export of a plan unless it is there already."""
    started = time.monotonic()
    existing = store.head(f"{plan.key}/{MANIFEST}")
    if existing is not None:
        manifest = json.loads(store.get(f"{plan.key}/{MANIFEST}"))
        if store.head(f"{PREFIX}/{plan.dataset.name}/latest.json") is None:  # cut short between manifest and pointer
            _point(store, plan, now_us)
        return _report(plan, store, manifest, existed=True, started=started)
    with tempfile.TemporaryDirectory(prefix="sessionlake-export-") as scratch:
        manifest, files = _build(plan, Path(scratch), progress)
        if files:
            _publish(plan, store, manifest, files, now_us=now_us)
    return _report(plan, store, manifest, existed=False, started=started)


def _build(plan: Plan, scratch: Path, progress: Progress | None) -> tuple[dict[str, Any], list[WrittenFile]]:
    counts = _work(plan, scratch, progress)
    with _database(scratch, plan.settings.tables.memory_limit // 2) as connection:
        dedup.decide(connection, _sources(scratch))
        files = [file for split in SPLITS for file in _write(plan, connection, split, scratch)]
        manifest = _manifest(plan, connection, counts, files)
        if files:
            files += _companions(plan, connection, manifest, scratch)
    return manifest, files


def _work(plan: Plan, scratch: Path, progress: Progress | None) -> work.Counts:
    exports = plan.settings.exports
    job = work.Job(
        plan.source, plan.dataset.name, plan.filters, exports.consent_default, plan.redactor,
        identifier_key(exports.split_salt), scratch,
    )  # fmt: skip
    tasks = [work.Task(job, part, number) for number, part in enumerate(plan.source.slices())]
    total, done = work.Counts(), 0

    def on_done(_: work.Task, counts: work.Counts) -> None:
        nonlocal done
        done += 1
        total.add(counts)
        if progress is not None:
            progress(done, len(tasks))

    with open_runner(plan.settings.runner.model_copy(update={"kind": "local"})) as runner:
        runner.run(work.run, tasks, on_done)  # local: workers and this process share the scratch directory
    return total


def _sources(scratch: Path) -> dedup.Sources:
    return dedup.Sources(*(tuple(sorted(scratch.glob(f"{kind}-*.parquet"))) for kind in ("rows", "evaluation")))


@contextmanager
def _database(scratch: Path, memory_bytes: int) -> Iterator[duckdb.DuckDBPyConnection]:
    config: dict[str, Any] = {
        "memory_limit": f"{memory_bytes // 2**20}MiB",
        "temp_directory": str(scratch / "duckdb"),
        "threads": "2",
    }
    with duckdb.connect(config=config) as connection:
        yield connection


def _write(plan: Plan, connection: duckdb.DuckDBPyConnection, split: str, scratch: Path) -> list[WrittenFile]:
    rows = dedup.kept_rows(connection, plan.dataset.schema.names, split)
    return write_split(
        plan.dataset, split, rows, scratch, shard_bytes=plan.settings.exports.shard_bytes, file_format=plan.file_format
    )


def _manifest(
    plan: Plan, connection: duckdb.DuckDBPyConnection, counts: work.Counts, files: list[WrittenFile]
) -> dict[str, Any]:
    def count_by(expression: str) -> dict[str, int]:
        query = f"SELECT {expression} AS k, count(*) FROM rows_ ANTI JOIN dropped USING (row_id) GROUP BY k ORDER BY k"  # noqa: S608
        return dict(connection.execute(query).fetchall())

    has_pairs = bool(files) and "pair_kind" in plan.dataset.schema.names
    dropped = connection.execute("SELECT reason, count(*) FROM dropped GROUP BY reason ORDER BY reason").fetchall()
    sessions = counts.sessions
    return plan.identity | {
        "accepted_gaps": list(plan.accepted_gaps),
        "splits": {
            split: {"rows": sum(f.n_rows for f in files if f.split == split)}
            for split in SPLITS
            if any(f.split == split for f in files)
        },
        "rows_by_language": count_by("coalesce(language, 'und')") if files else {},
        "rows_by_judge": count_by("judges_") if files and plan.dataset.name in _JUDGED else {},
        "rows_by_pair_kind": count_by("pair_kind") if has_pairs else {},
        "rows_on_default_consent": count_by("by_default_::VARCHAR").get("true", 0) if files else 0,
        "sessions": {name: sessions[name] for name in ("read", "with_rows", "without_rows")},
        "filtered_sessions": {name: n for name, n in sorted(sessions.items()) if name.startswith("filter_")},
        "rejected": dict(sorted(counts.rejects.items())),
        "filtered_rows": dict(sorted(counts.filtered_rows.items())),
        "dropped_rows": dict(dropped),
        "redactions": dict(sorted(counts.redactions.items())),
        "files": [_entry(file) for file in files],
    }


def _entry(file: WrittenFile) -> dict[str, Any]:
    return {"name": file.name, "rows": file.n_rows, "bytes": file.size_bytes, "sha256": file.sha256}


def _companions(
    plan: Plan, connection: duckdb.DuckDBPyConnection, manifest: dict[str, Any], scratch: Path
) -> list[WrittenFile]:
    """The rejects file and the card; their entries go into the manifest."""
    rejects, n_rejects = _write_rejects(connection, scratch)
    readme = scratch / "README.md"
    readme.write_text(card.card(plan.dataset, manifest), "utf-8")
    files = [finished("rejects.jsonl.gz", rejects, "", n_rejects), finished("README.md", readme, "", 0)]
    manifest["companions"] = [_entry(file) for file in files]
    return files


def _write_rejects(connection: duckdb.DuckDBPyConnection, scratch: Path) -> tuple[Path, int]:
    parts = sorted(scratch.glob("rejects-*.parquet"))
    dropped = "SELECT session_uid, reason, NULL AS detail, row_id FROM dropped JOIN rows_ USING (row_id)"
    if parts:
        connection.read_parquet([str(part) for part in parts]).create_view("rejects_")
        dropped += " UNION ALL SELECT session_uid, reason, detail, row_id FROM rejects_"
    path, n_rejects = scratch / "rejects.jsonl.gz", 0
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed,
        io.TextIOWrapper(packed, "utf-8") as lines,
    ):
        batches: Any = connection.sql(f"{dropped} ORDER BY ALL").to_arrow_reader(4096)
        for batch in batches:
            n_rejects += batch.num_rows
            for row in batch.to_pylist():
                lines.write(json_line({name: value for name, value in row.items() if value}) + "\n")
    return path, n_rejects


def _publish(
    plan: Plan, store: ObjectStore, manifest: dict[str, Any], files: list[WrittenFile], *, now_us: int
) -> None:
    for file in files:
        _create(
            store,
            f"{plan.key}/{file.name}",
            file.path.read_bytes() if file.size_bytes < 2**20 else file.path,
            file.sha256,
        )
    body = card.manifest_text(manifest).encode()
    _create(store, f"{plan.key}/{MANIFEST}", body, hashlib.sha256(body).hexdigest())
    _point(store, plan, now_us)


def _create(store: ObjectStore, key: str, data: bytes | Path, sha256: str) -> None:
    """Create an object; one that is there already must hold the same bytes, left by a run that was cut short."""
    if not store.create(key, data) and hashlib.sha256(store.get(key)).hexdigest() != sha256:
        raise ConflictError(
            "another export of the same inputs and settings has other bytes", operation=_OPERATION, key=key,
            hint="was it made with other library versions? delete its prefix and export again",
        )  # fmt: skip


def _point(store: ObjectStore, plan: Plan, now_us: int) -> None:
    """Let ``latest`` name this version."""
    key = f"{PREFIX}/{plan.dataset.name}/latest.json"
    body = json.dumps({"version": plan.version, "key": plan.key, "exported_at_us": now_us}).encode()
    for _ in range(5):
        known = store.head(key)
        if store.replace(key, body, if_match=known.etag) if known else store.create(key, body):
            return
    raise StorageError("kept changing under us", operation=_OPERATION, key=key, hint="run the export again")


def _report(
    plan: Plan, store: ObjectStore, manifest: Mapping[str, Any], *, existed: bool, started: float
) -> ExportReport:
    files = tuple(file["name"] for file in manifest["files"])
    key = plan.key if files else ""
    return ExportReport(
        set_name=plan.dataset.name,
        version=plan.version,
        key=key,
        url=f"{store.url}/{key}" if key else "",
        rows={split: info["rows"] for split, info in manifest["splits"].items()},
        rejected=manifest["rejected"],
        filtered=manifest["filtered_sessions"] | manifest["filtered_rows"],
        dropped=manifest["dropped_rows"],
        redactions=manifest["redactions"],
        rows_on_default_consent=manifest["rows_on_default_consent"],
        files=files,
        existed=existed,
        seconds=time.monotonic() - started,
    )
