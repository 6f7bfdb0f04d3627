"""Erased sessions leave the exports: every version whose files name one of them is deleted whole."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator, Set

import pyarrow as pa
import pyarrow.parquet as pq

from archiver.archive import Ledger
from archiver.errors import StorageError
from archiver.objects import ObjectStore
from pipelines.exports.driver import MANIFEST, PREFIX


def erase(store: ObjectStore, ledger: Ledger, also: Set[str] = frozenset()) -> tuple[str, ...]:
    """Delete every export version that holds an erased session; returns their keys, for the receipt.

    Erased are the sessions the ledger names and those in ``also``. An export is never rewritten: its
    name stands for its inputs and its bytes. The manifest goes first, so that no half export looks
    whole; all object versions go. Idempotent.
    """
    if not ledger and not also:
        return ()

    def erased(session_uid: str) -> bool:
        return session_uid in also or ledger.names_session(session_uid)

    affected = tuple(key for key in _versions(store) if _holds(store, key, erased))
    for key in affected:
        store.delete_versions(f"{key}/{MANIFEST}")
        for info in list(store.list(f"{key}/")):
            store.delete_versions(info.key)
    for set_prefix in sorted({key.rsplit("/", 1)[0] for key in affected}):
        _repoint(store, set_prefix)
    return affected


def _versions(store: ObjectStore) -> list[str]:
    """``exports/{set}/{version}`` of everything there, unfinished versions too."""
    keys = (info.key.split("/") for info in store.list(f"{PREFIX}/"))
    return sorted({"/".join(parts[:3]) for parts in keys if len(parts) > 3})


def _holds(store: ObjectStore, version: str, erased: Callable[[str], bool]) -> bool:
    found = (uids for info in store.list(f"{version}/") for uids in _sessions(store, info.key))
    return any(erased(uid) for uids in found for uid in uids)


def _sessions(store: ObjectStore, key: str) -> Iterator[set[str]]:
    """The session_uids a file names, in portions."""
    if key.endswith(".parquet"):
        file = pq.ParquetFile(pa.BufferReader(store.get(key)))
        for batch in file.iter_batches(columns=["session_uid"]):
            yield set(batch.column(0).to_pylist())
    elif key.endswith((".jsonl", ".jsonl.gz")):
        data = store.get(key)
        lines = gzip.decompress(data) if key.endswith(".gz") else data
        yield {json.loads(line)["session_uid"] for line in lines.splitlines()}


def _repoint(store: ObjectStore, set_prefix: str) -> None:
    """Let ``latest`` name the newest finished version that is left, or nothing."""
    pointer = f"{set_prefix}/latest.json"
    known = store.head(pointer)
    if known is None:
        return
    left = [info.key.split("/")[2] for info in store.list(f"{set_prefix}/") if info.key.endswith(f"/{MANIFEST}")]
    current = json.loads(store.get(pointer))
    if current["version"] in left:
        return
    if not left:
        store.delete_versions(pointer)
        return
    version = max(left)
    body = json.dumps({**current, "version": version, "key": f"{set_prefix}/{version}"}).encode()
    if not store.replace(pointer, body, if_match=known.etag):
        raise StorageError("changed under us", operation="erase", key=pointer, hint="run the erasure again")
