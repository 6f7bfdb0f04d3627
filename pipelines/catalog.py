"""The tables as a catalog of the archive: where a session lies, without looking into any segment."""

from __future__ import annotations

import pyarrow.compute as pc

from archiver.archive import SegmentRef
from archiver.objects import ObjectStore
from pipelines import lake


def locate(store: ObjectStore, session_id: str) -> tuple[SegmentRef, str, int] | None:
    """Segment, session_uid and revision of the newest conversation of an id; None if the tables do not know it."""
    if not lake.exists(store):
        return None
    wanted = pc.field("session_id") == session_id
    columns = ["created_at", "revision", "session_uid", "archive_key"]
    found = lake.scan(store, "sessions", columns=columns, filter=wanted).sort_by(
        [("created_at", "descending"), ("revision", "descending")]
    )
    if found.num_rows == 0:
        return None
    newest = found.slice(0, 1).to_pylist()[0]
    ref = SegmentRef.from_key(newest["archive_key"])
    return (ref, newest["session_uid"], newest["revision"]) if ref else None
