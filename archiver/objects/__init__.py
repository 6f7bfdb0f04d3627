"""Bytes by key, in a directory or an S3 bucket; the only place that imports boto3."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from archiver.objects.base import ObjectInfo, ObjectStore, Staged, StoreFacts, Tail
from archiver.objects.directory import DirectoryStore
from archiver.objects.ranges import RangeFile
from archiver.settings import StorageSettings

__all__ = ["DirectoryStore", "ObjectInfo", "ObjectStore", "RangeFile", "Staged", "StoreFacts", "Tail", "open_store"]


def open_store(settings: StorageSettings) -> ObjectStore:
    """The store that ``storage.url`` names; no request, and a relative ``file:`` path is of this directory."""
    if settings.url.startswith("file:"):
        path = settings.url.removeprefix("file:")
        return DirectoryStore(Path(unquote("/" + path.lstrip("/") if path.startswith("/") else path)))
    from archiver.objects.s3 import S3Store  # noqa: PLC0415  boto3 costs 0.2 s, a directory needs none of it

    return S3Store(settings)
