"""A search through every byte that exists: all files of hosts and lake, all versions of objects, Parquet unpacked."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
from s3_servers import S3Server

from archiver.hot import HotStore
from archiver.objects import ObjectStore


def places_of(text: bytes, store: ObjectStore, hosts: Iterable[HotStore], server: S3Server | None = None) -> list[str]:
    """Where a text still is."""
    return [name for name, data in stored_bytes(store, hosts, server) if text in data]


def stored_bytes(
    store: ObjectStore, hosts: Iterable[HotStore], server: S3Server | None = None
) -> Iterator[tuple[str, bytes]]:
    """Everything by name; Parquet as it lies there and once more decoded, since it is compressed."""
    directories = [hot.directory for hot in hosts]
    if server is None:
        directories.append(Path(store.url.removeprefix("file://")))
    for name, data in [*_files(directories), *(_versions(server, store.url) if server else [])]:
        yield name, data
        if data[:4] == b"PAR1":
            yield name, repr(pq.read_table(io.BytesIO(data)).to_pylist()).encode()


def _files(directories: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    for path in (path for directory in directories for path in directory.rglob("*")):
        if path.is_file():
            yield str(path), path.read_bytes()


def _versions(server: S3Server, url: str) -> Iterator[tuple[str, bytes]]:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    client = server.client()
    for page in client.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for version in page.get("Versions", []):
            where = {"Bucket": bucket, "Key": version["Key"], "VersionId": version["VersionId"]}
            yield f"{version['Key']}@{version['VersionId']}", client.get_object(**where)["Body"].read()
