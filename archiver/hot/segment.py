"""Segments as rows: the state of the archive protocol."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

SegmentKind = Literal["live", "import", "void"]
SegmentState = Literal["open", "closed", "verified", "released"]


@dataclass(frozen=True, slots=True)
class Segment:
    """One row of the protocol's state.

    Attributes:
        segment: Number within this store, across archiver ids.
        claimed_us: archived_at of all its sessions.
        membership_digest: Fixed when it closes; what the object in the archive must state.
        file_sha256: Digest of the spool file; a rebuild may change it, the membership digest never.
        note: Why it is void.
    """

    segment: int
    archiver_id: str
    sequence: int
    state: SegmentState
    kind: SegmentKind
    claimed_us: int
    n_sessions: int
    membership_digest: str | None
    file_sha256: str | None
    file_bytes: int | None
    released_us: int | None
    note: str | None
    last_error: str | None
    last_error_us: int | None


_COLUMNS = ", ".join(Segment.__slots__)


class Member(NamedTuple):
    """Where a segment's file has one session, and the digest of its content."""

    content_sha256: str
    row_group: int


class Sealed(NamedTuple):
    """What a closed segment is known by."""

    n_sessions: int
    membership_digest: str
    file_sha256: str
    file_bytes: int


def select(connection: sqlite3.Connection, where: str, values: Sequence[object] = ()) -> list[Segment]:
    """Segments under a condition."""
    return [Segment(*row) for row in connection.execute(f"SELECT {_COLUMNS} FROM segment WHERE {where}", values)]
