"""Taking over the original's files: each ``*.json`` in the store's directory becomes a live session, once."""

from __future__ import annotations

import logging
from datetime import tzinfo
from pathlib import Path

from archiver import legacy
from archiver.errors import SessionLakeError
from archiver.events import SessionRecord
from archiver.hot import HotStore, lifecycle
from archiver.telemetry import fields

log = logging.getLogger(__name__)


def adopt_files(hot: HotStore, assume_tz: tzinfo, now_us: int) -> int:
    """Insert every file not looked at before as a live session; returns how many were.

    An unreadable file is reported once and noted; all files stay where they are.
    """
    paths = sorted(hot.directory.glob("*.json"))
    if not paths:
        return 0
    with hot.reader() as connection:
        seen = {name for (name,) in connection.execute("SELECT name FROM adopted")}
    return sum(_adopt(hot, path, assume_tz, now_us) for path in paths if path.name not in seen)


def _adopt(hot: HotStore, path: Path, assume_tz: tzinfo, now_us: int) -> bool:
    error: str | None = None
    try:
        record = legacy.parse_record(legacy.parse_json(path.read_bytes()), assume_tz=assume_tz)
    except (SessionLakeError, OSError) as problem:
        error = str(problem)
        log.warning("legacy_file_not_adopted", extra=fields(file=str(path), error=error))
        record = None
    with hot.transaction() as connection:
        if record is not None and not lifecycle.seen(connection, record.session_id, record.created_at_us):
            lifecycle.insert_record(
                connection, record, last_activity_us=_last_activity_us(record), restored_us=None, archived_sha256=None
            )
        connection.execute(
            "INSERT OR IGNORE INTO adopted(name, at_us, error) VALUES(?, ?, ?)", (path.name, now_us, error)
        )
    return record is not None


def _last_activity_us(record: SessionRecord) -> int:
    """updated_at, else the last event, else created_at: never the time of the adoption."""
    if record.updated_at_us is not None:
        return record.updated_at_us
    turns = [message.created_at_us for message in record.messages]
    acts = [interaction.created_at_us for interaction in record.interactions]
    return max([record.created_at_us, *turns, *acts])
