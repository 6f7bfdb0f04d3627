"""docs/TABLES.md, written from the schemas so that it cannot differ from them."""

from __future__ import annotations

import pyarrow as pa

from pipelines.schema import EXPORTS, TABLES, Dataset

_HEAD = """# Tables and training sets

Generated from `pipelines/schema.py` by `sessionlake schema --markdown`; a test compares them.

Every table lies under `tables/{table}/` as Delta Lake, its files under `tables/{table}/data/dt=YYYY-MM-DD/`, where
`dt` is the UTC date of the session's `created_at`. Read through Delta and you see one exact version; a plain glob over
`tables/{table}/data/**/*.parquet` works in every reader, and is exact whenever nothing superseded lies there.
"""


def markdown() -> str:
    """The whole page."""
    tables = "\n".join(_section(t) for t in TABLES.values())
    exports = "\n".join(_section(t) for t in EXPORTS.values())
    return f"{_HEAD}\n# Tables\n\n{tables}\n# Training sets\n\n{exports}"


def _section(dataset: Dataset) -> str:
    rows = "\n".join(_row(field) for field in dataset.schema)
    return (
        f"## {dataset.name}\n\nOne row per {dataset.rows}. Sorted by {', '.join(dataset.sort_keys)}.\n\n"
        f"| column | type | null | meaning |\n|---|---|---|---|\n{rows}\n"
    )


def _row(field: pa.Field) -> str:
    meaning = field.metadata[b"description"].decode().replace("|", "\\|")
    return f"| {field.name} | {type_name(field.type)} | {'yes' if field.nullable else ''} | {meaning} |"


def type_name(type_: pa.DataType) -> str:
    """An Arrow type as people write it."""
    if pa.types.is_list(type_):
        return f"list<{type_name(type_.value_type)}>"
    if pa.types.is_struct(type_):
        return f"struct<{', '.join(f'{f.name}: {type_name(f.type)}' for f in type_)}>"
    return {"timestamp[us, tz=UTC]": "timestamp[us, UTC]", "double": "float64", "float": "float32"}.get(
        str(type_), str(type_)
    )
