"""Sorted rows to the files of one split: sizes follow from the rows alone, so bytes do too."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Literal, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipelines.schema import Dataset

FileFormat = Literal["parquet", "jsonl"]

ROW_GROUP_ROWS: Final = 1024
ROW_GROUP_BYTES: Final = 8 * 1024**2
"""A row group ends at whichever comes first. `datasets` holds one row group at a time."""
_UNIT_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class WrittenFile:
    """A finished file: its name in the export, and where it lies until it is published."""

    name: str
    path: Path
    split: str
    n_rows: int
    size_bytes: int
    sha256: str


def write_split(
    dataset: Dataset,
    split: str,
    batches: Iterable[pa.RecordBatch],
    directory: Path,
    *,
    shard_bytes: int,
    file_format: FileFormat,
) -> list[WrittenFile]:
    """Write the rows of a split as ``{split}-NNNNN-of-NNNNN`` files of about ``shard_bytes``; no rows, no file."""
    shards: list[tuple[Path, int]] = []
    written = rows = 0
    writer: _ShardWriter | None = None
    for group in _groups(dataset.schema, batches):
        if writer is None:
            shards.append((directory / f"{split}-{len(shards):05d}.tmp", 0))
            writer = _open(shards[-1][0], dataset, file_format)
            written = rows = 0
        writer.write(group)
        written, rows = written + text_bytes(group), rows + group.num_rows
        shards[-1] = (shards[-1][0], rows)
        if written >= shard_bytes:
            writer.close()
            writer = None
    if writer is not None:
        writer.close()
    names = (f"{split}-{i:05d}-of-{len(shards):05d}.{file_format}" for i in range(len(shards)))
    return [finished(name, path, split, n) for name, (path, n) in zip(names, shards, strict=True)]


def finished(name: str, path: Path, split: str, n_rows: int) -> WrittenFile:
    """A file with its size and digest."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return WrittenFile(name, path, split, n_rows, path.stat().st_size, digest)


def _groups(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Rows in groups that become row groups. Where they are cut does not depend on how the batches were."""
    parts: list[pa.Table] = []
    size = 0
    for unit in _units(schema, batches):
        parts.append(unit)
        size += text_bytes(unit)
        if size >= ROW_GROUP_BYTES or len(parts) * _UNIT_ROWS >= ROW_GROUP_ROWS:
            yield pa.concat_tables(parts).combine_chunks()
            parts, size = [], 0
    if parts:
        yield pa.concat_tables(parts).combine_chunks()


def _units(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    rest = schema.empty_table()
    for batch in batches:
        rest = pa.concat_tables([rest, pa.Table.from_batches([batch]).cast(schema)])
        whole = rest.num_rows - rest.num_rows % _UNIT_ROWS
        for start in range(0, whole, _UNIT_ROWS):
            yield rest.slice(start, _UNIT_ROWS)
        rest = rest.slice(whole)
    if rest.num_rows:
        yield rest


def text_bytes(table: pa.Table) -> int:
    """Bytes of all texts in a table, nested ones too: the same however it is chunked."""
    return sum(_text_bytes(chunk) for column in table.columns for chunk in column.chunks)


def _text_bytes(array: pa.Array) -> int:
    if pa.types.is_list(array.type):
        return _text_bytes(array.flatten())
    if pa.types.is_struct(array.type):
        return sum(_text_bytes(child) for child in array.flatten())
    return (pc.sum(pc.binary_length(array)).as_py() or 0) if pa.types.is_string(array.type) else 0


class _ShardWriter(Protocol):
    def write(self, table: pa.Table) -> None: ...

    def close(self) -> None: ...


def _open(path: Path, dataset: Dataset, file_format: FileFormat) -> _ShardWriter:
    return _Lines(path) if file_format == "jsonl" else _Parquet(path, dataset)


class _Parquet:
    """One Parquet file; every group of rows becomes a row group."""

    def __init__(self, path: Path, dataset: Dataset) -> None:
        keys = [pq.SortingColumn(dataset.schema.names.index(name)) for name in dataset.sort_keys]
        self._writer = pq.ParquetWriter(
            path, dataset.schema, compression="zstd", compression_level=3, write_page_index=True,
            write_page_checksum=True, use_dictionary=_repetitive(dataset.schema), sorting_columns=keys,
            write_statistics=["row_id", "session_uid"],
        )  # fmt: skip

    def write(self, table: pa.Table) -> None:
        self._writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        self._writer.close()


def _repetitive(schema: pa.Schema) -> list[str]:
    """Columns with few distinct values, as the Parquet writer names them."""
    plain = [name for name in ("language", "pair_kind") if name in schema.names]
    return plain + [
        f"{f.name}.list.element.role"
        for f in schema
        if pa.types.is_list(f.type) and pa.types.is_struct(f.type.value_type)
    ]


class _Lines:
    """One file of JSON lines, in UTF-8."""

    def __init__(self, path: Path) -> None:
        self._file: IO[str] = path.open("w", encoding="utf-8", newline="\n")

    def write(self, table: pa.Table) -> None:
        self._file.writelines(f"{json_line(row)}\n" for row in table.to_pylist())

    def close(self) -> None:
        self._file.close()


def json_line(row: dict[str, Any]) -> str:
    """A row as one line; U+2028 and its like are escaped, because some readers end lines there."""
    text = json.dumps(row, ensure_ascii=False, separators=(",", ":"))
    return text.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("\x85", "\\u0085")
