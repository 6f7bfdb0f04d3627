"""The way from sessions to training rows, as the manifests of the latest exports tell it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from archiver.errors import CorruptDataError, ObjectNotFoundError
from archiver.events import format_time
from archiver.objects import ObjectStore
from pipelines.schema import EXPORTS

_PREFIX: Final = "exports"
_STAGES: Final = {
    "filtered_sessions": "session",
    "rejected": "candidate",
    "filtered_rows": "row",
    "dropped_rows": "row",
}
"""Groups of counts in a manifest, in the order in which an export leaves things out, and what is left out there."""


def training_sets(store: ObjectStore) -> list[dict[str, Any]]:
    """What the latest export of every training set counted; ``exported`` is False where there is none.

    Two requests for every exported set. CorruptDataError names a manifest that is none.
    """
    return [{"set": name, "row": dataset.rows, **_latest(store, name)} for name, dataset in EXPORTS.items()]


def _latest(store: ObjectStore, name: str) -> dict[str, Any]:
    key = f"{_PREFIX}/{name}/latest.json"
    try:
        pointer = json.loads(store.get(key))
        key = f"{pointer['key']}/manifest.json"
        counts = _counts(json.loads(store.get(key)))
        made = format_time(pointer["exported_at_us"])[:16].replace("T", " ")
        return {"exported": True, "version": str(pointer["version"]), "made": made, **counts}
    except ObjectNotFoundError:
        return {"exported": False}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptDataError(
            "is not what an export writes", operation="report", key=key, hint="export the set again"
        ) from error


def _counts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    left_out = [
        (what, str(reason), int(count))
        for group, what in _STAGES.items()
        for reason, count in manifest[group].items()
        if count
    ]
    sessions = manifest["sessions"]
    return {
        "table_version": int(manifest["table_version"]),
        "sessions_read": int(sessions["read"]),
        "sessions_used": int(sessions["with_rows"]),
        "splits": {str(split): int(info["rows"]) for split, info in manifest["splits"].items()},
        "rows_left_out": sum(n for what, _, n in left_out if what == "row"),
        "left_out": sorted(left_out, key=lambda item: (-item[2], item[1])),
        "redactions": sum(int(n) for n in manifest["redactions"].values()),
    }
