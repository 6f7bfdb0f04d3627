"""Names in the archive: a new one for a copied store, and an end for one that is gone."""

from __future__ import annotations

from archiver import archive, sealing
from archiver.errors import InputError
from archiver.hot import HotStore
from archiver.objects import ObjectStore


def new_archiver(hot: HotStore, store: ObjectStore, *, now_us: int) -> str:
    """Archive from now on under a new id, and register it: what heals a copied or rolled-back hot store.

    Returns the new id. If the storage cannot be reached the id is new nevertheless, and the next push
    registers it.
    """
    archiver_id = sealing.new_archiver(hot, now_us=now_us)
    archive.register_archiver(store, archiver_id, hot.claims.first_sequence())
    return archiver_id


def retire_archiver(hot: HotStore, store: ObjectStore, archiver_id: str) -> None:
    """Let erasures wait no longer for an archiver whose host, and hot store, are gone for good.

    Its segments stay, and if it comes back after all it obeys every tombstone before it archives.
    InputError for this host's own archiver and for one that the archive does not know.
    """
    if archiver_id == hot.claims.archiver_id:
        raise InputError("is this host's own archiver", operation="retire archiver", key=archiver_id)
    if archiver_id not in archive.list_archivers(store):
        raise InputError(
            "is not registered in this archive", operation="retire archiver", key=archiver_id,
            hint="sessionlake status names those that have not acknowledged",
        )  # fmt: skip
    archive.retire_archiver(store, archiver_id)
