"""The way from sessions to training rows, as the manifests of the latest exports tell it."""

from __future__ import annotations

import json
from typing import Any

from archiver.errors import CorruptDataError, ObjectNotFoundError
from archiver.objects import ObjectStore
from pipelines.schema import EXPORTS


def training_sets(store: ObjectStore) -> list[dict[str, Any]]:
    """What the latest export of every training set counted; ``exported`` is False where there is none."""
    return [{"set": name, "row": dataset.rows, **_latest(store, name)} for name, dataset in EXPORTS.items()]


def _latest(store: ObjectStore, name: str) -> dict[str, Any]:
    try:
        version = store.get(f"exports/{name}/latest").decode().strip()
    except ObjectNotFoundError:
        return {"exported": False}
    key = f"exports/{name}/{version}/manifest.json"
    try:
        manifest = json.loads(store.get(key))
        return {
            "exported": True,
            "version": version,
            "table_version": int(manifest["table_version"]),
            "sessions": int(manifest["sessions_in"]),
            "rows": int(manifest["rows_out"]),
            "splits": {str(split): int(rows) for split, rows in manifest["splits"].items()},
            "rejected": sorted(
                ((str(reason), int(n)) for reason, n in manifest["rejected"].items()), key=lambda r: (-r[1], r[0])
            ),
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError("is no manifest of an export", operation="report", key=key) from error
