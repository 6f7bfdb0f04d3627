"""The store's name in the archive."""

from __future__ import annotations

from archiver import archive, sealing
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
