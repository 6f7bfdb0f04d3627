"""Parquet data files of the tables: how they are written, staged and read.

A file's name is made from its run, its task and its bytes, so a repeated task stages the same names
and two that differ can never meet under one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from archiver.errors import CorruptDataError
from archiver.objects import ObjectStore, RangeFile
from pipelines.ahead import ahead
from pipelines.lake import PREFIX, Addition, DataFile, statistics_columns
from pipelines.schema import TABLES, Dataset

ROW_GROUP_BYTES: Final = 16 * 1024**2
"""Uncompressed size of a row group: large enough to compress, small enough to prune and to hold."""

REQUEST_BYTES: Final = 1024**2
"""A range request fetches at least so much: what is not needed of it takes less time than another request."""

_DICTIONARY: Final = frozenset(
    {
        "session_uid", "session_id", "user_id", "role", "language", "action_type", "feedback", "actor", "actor_kind",
        "graph_format", "split", "consent", "archive_key", "archive_sha256", "status", "label", "level", "author",
        "annotator", "node_status", "grain", "day",
    }
)  # fmt: skip
_TEXT: Final = frozenset({"content", "graph_state", "metadata", "title", "feedback_reported", "context", "parent_ids"})
_BLOOM: Final = ("session_uid", "user_id")


@dataclass(frozen=True, slots=True)
class EncodedFile:
    """A data file in memory."""

    table: str
    addition: Addition
    n_rows: int
    data: bytes


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A data file brought to the store but not visible yet: ``path`` is relative to the table's root."""

    table: str
    path: str
    token: str
    addition: Addition
    n_rows: int

    @property
    def key(self) -> str:
        """The object key it will have."""
        return f"{PREFIX}/{self.table}/{self.path}"


def stage(
    store: ObjectStore, dataset: Dataset, dt: str, rows: Iterable[pa.Table], *, run: int, task: str
) -> StagedFile | None:
    """Write rows, already in the table's order, as one file of partition ``dt`` and stage it; None for no rows."""
    file = encode(dataset, dt, rows, run=run, task=task)
    return None if file is None else stage_encoded(store, file)


def encode(dataset: Dataset, dt: str, rows: Iterable[pa.Table], *, run: int, task: str) -> EncodedFile | None:
    """Write rows, already in the table's order, as one file of partition ``dt``; None for no rows."""
    data, n_rows, stats = _encode(dataset, rows)
    if not n_rows:
        return None
    digest = hashlib.sha256(task.encode() + b"\x1f")
    digest.update(data)
    path = f"data/dt={dt}/part-{run:010d}-{digest.hexdigest()[:24]}.parquet"
    return EncodedFile(dataset.name, Addition(path, dt, len(data), json.dumps(stats)), n_rows, data)


def stage_each(store: ObjectStore, files: Iterable[EncodedFile]) -> Iterator[StagedFile]:
    """Bring files to the store, in order, while the next ones are encoded."""
    return ahead(lambda file: stage_encoded(store, file), files)


def stage_encoded(store: ObjectStore, file: EncodedFile) -> StagedFile:
    """Bring one file to the store."""
    path = file.addition.path
    token = store.stage(f"{PREFIX}/{file.table}/{path}", file.data)
    return StagedFile(file.table, path, token, file.addition, file.n_rows)


def _encode(dataset: Dataset, rows: Iterable[pa.Table]) -> tuple[bytes, int, dict[str, Any]]:
    sink = pa.BufferOutputStream()
    statistics = _Statistics(dataset)
    parts = (part for table in rows if table.num_rows for part in _row_groups(table))
    first = next(parts, None)
    if first is None:
        return b"", 0, {}
    schema = _file_schema(dataset, first)
    with pq.ParquetWriter(sink, schema, **_writer_options(dataset)) as writer:
        for part in chain([first], parts):
            writer.write_table(pa.Table.from_arrays(part.columns, schema=schema), row_group_size=part.num_rows)
            statistics.add(part)
    return sink.getvalue().to_pybytes(), statistics.n_rows, statistics.as_log()


def _file_schema(dataset: Dataset, rows: pa.Table) -> pa.Schema:
    """The table's schema; a key column that comes as a dictionary stays one, which Parquet stores without decoding."""
    pairs = zip(dataset.schema, rows.schema, strict=True)
    return pa.schema([f.with_type(r.type) if pa.types.is_dictionary(r.type) else f for f, r in pairs])


def _row_groups(table: pa.Table) -> Iterator[pa.Table]:
    n_groups = max(1, round(table.nbytes / ROW_GROUP_BYTES))
    size = max(1, -(-table.num_rows // n_groups))
    for start in range(0, table.num_rows, size):
        yield table.slice(start, size)


def _writer_options(dataset: Dataset) -> dict[str, Any]:
    names = dataset.schema.names
    return {
        "compression": "zstd",
        "compression_level": 3,
        "write_page_index": True,
        "write_page_checksum": True,
        "use_dictionary": [n for n in names if n in _DICTIONARY],
        "write_statistics": [n for n in names if n not in _TEXT],
        "bloom_filter_options": {n: {"ndv": 20_000, "fpp": 0.01} for n in _BLOOM if n in names},
        "sorting_columns": [pq.SortingColumn(names.index(k)) for k in dataset.sort_keys],
        "store_schema": False,
    }


class _Statistics:
    """Row count and bounds of keys, indexes and times for the log; never of a user's text."""

    def __init__(self, dataset: Dataset) -> None:
        self.n_rows = 0
        self._bounds: dict[str, list[Any]] = {name: [] for name in statistics_columns(dataset.name)}

    def add(self, part: pa.Table) -> None:
        self.n_rows += part.num_rows
        for name, bounds in self._bounds.items():
            if name == "session_uid":  # sorted
                bounds += [part[name][0].as_py(), part[name][-1].as_py()]
                continue
            column = part[name].cast(pa.int64()) if name == "created_at" else part[name]
            found = pc.min_max(column)
            bounds += [found["min"].as_py(), found["max"].as_py()]

    def as_log(self) -> dict[str, Any]:
        low = {name: min(bounds) for name, bounds in self._bounds.items()}
        high = {name: max(bounds) for name, bounds in self._bounds.items()}
        if "created_at" in low:  # the log keeps milliseconds: round outwards
            low["created_at"] = _iso_millis(low["created_at"] // 1000)
            high["created_at"] = _iso_millis(-(-high["created_at"] // 1000))
        return {"numRecords": self.n_rows, "minValues": low, "maxValues": high}


def _iso_millis(millis: int) -> str:
    text: str = pc.strftime(pa.scalar(millis, pa.timestamp("ms", "UTC")), "%Y-%m-%dT%H:%M:%SZ").as_py()
    return text


def fetch(store: ObjectStore, file: DataFile) -> RangeFile:
    """A data file to read from: one request brings its end, which is all of a small one."""
    return RangeFile(store, file.key, tail_bytes=REQUEST_BYTES, request_bytes=REQUEST_BYTES)


def read(source: RangeFile, file: DataFile, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """A data file's row groups in the table's schema, the wanted columns, one at a time; those it lacks are null."""
    schema = TABLES[file.table].schema
    wanted = [f for f in schema if columns is None or f.name in columns]
    try:
        parquet = pq.ParquetFile(source, pre_buffer=True, page_checksum_verification=True)
        present = [f.name for f in wanted if f.name in parquet.schema_arrow.names]
        for i in range(parquet.num_row_groups):
            yield _conform(parquet.read_row_group(i, columns=present, use_threads=False), wanted)
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(f"damaged: {error}", operation="read data file", key=file.key) from error


def read_each(
    store: ObjectStore, files: Sequence[DataFile], columns: Sequence[str]
) -> Iterator[tuple[DataFile, pa.Table]]:
    """Some columns of many files, row group by row group, in order; the next few files are fetched meanwhile."""
    for file, source in zip(files, ahead(lambda file: fetch(store, file), files), strict=True):
        for table in read(source, file, columns):
            yield file, table


def _conform(table: pa.Table, fields: Sequence[pa.Field]) -> pa.Table:
    columns = [table[f.name] if f.name in table.column_names else pa.nulls(table.num_rows, f.type) for f in fields]
    return pa.Table.from_arrays(columns, schema=pa.schema([f.with_nullable(True) for f in fields]))
