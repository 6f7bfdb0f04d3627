"""The archive: its names, its ledger of the erased, and the walk that checks all of it.

::

    archive/v1/{archiver_id}/{sequence:012d}.parquet       segments; listing after a sequence finds what is new
    archive/v1/{archiver_id}/{sequence:012d}.void.json     a person accepted that this segment is lost
    archive/v1/_archivers/{archiver_id}.json               registry: who may have written segments
    archive/v1/_tombstones/{kind}-{digest}-{time}.json     erased sessions and users
    archive/v1/_acks/{archiver_id}/{tombstone}             tombstones an archiver has carried out
    archive/v1/_retired/{archiver_id}.json                 an archiver that is gone for good: nobody waits for it
    archive/v1/_restored/{session_uid}-{revision}          who continues a restored session
"""

from archiver.archive.keys import (
    PREFIX,
    SegmentRef,
    archiver_key,
    first_sequence,
    list_archivers,
    list_segments,
    open_bytes,
    open_remote,
    open_source,
    register_archiver,
    retire_archiver,
    retired_archivers,
)
from archiver.archive.tombstones import (
    ErasedSegment,
    Ledger,
    Tombstone,
    acknowledge,
    acknowledged,
    erase_from_segment,
    put_tombstone,
    tombstones,
    tombstones_of_id,
)
from archiver.archive.verifying import Finding, FindingKind, VerifyReport, verify

__all__ = [
    "PREFIX",
    "ErasedSegment",
    "Finding",
    "FindingKind",
    "Ledger",
    "SegmentRef",
    "Tombstone",
    "VerifyReport",
    "acknowledge",
    "acknowledged",
    "archiver_key",
    "erase_from_segment",
    "first_sequence",
    "list_archivers",
    "list_segments",
    "open_bytes",
    "open_remote",
    "open_source",
    "put_tombstone",
    "register_archiver",
    "retire_archiver",
    "retired_archivers",
    "tombstones",
    "tombstones_of_id",
    "verify",
]
