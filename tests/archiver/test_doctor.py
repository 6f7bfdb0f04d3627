from __future__ import annotations

from pathlib import Path

import pytest
from faultproxy import Fault, FaultProxy
from s3_servers import S3Server

from archiver import doctor
from archiver.errors import StorageError
from archiver.hot import HotStore
from archiver.objects import DirectoryStore, ObjectStore, open_store
from archiver.settings import Settings, load_settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings(flags={"hot.path": str(tmp_path / "sessions")})


def _levels(report: doctor.DoctorReport) -> dict[str, str]:
    return {finding.check: finding.level for finding in report.findings}


def test_a_good_store_has_no_failures_and_keeps_nothing(any_store: ObjectStore, settings: Settings) -> None:
    report = doctor.examine(settings, any_store)
    assert report.failures == ()
    assert report.facts is not None
    assert report.facts.creates_once
    assert list(any_store.list("")) == []
    assert list(any_store.list_staged("")) == []
    assert doctor.require_safe_store(any_store) == report.facts


@pytest.mark.s3
def test_a_real_server_refuses_wrong_checksums_and_proves_by_checksum(
    seaweed_store: ObjectStore, settings: Settings
) -> None:
    report = doctor.examine(settings, seaweed_store)
    assert report.facts is not None
    assert report.facts.refuses_bad_checksum
    assert report.verify_by == "checksum"


def test_a_server_that_ignores_conditions_is_refused(moto_s3: S3Server, settings: Settings) -> None:
    # moto does not mind that the proxy removes signed headers
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        proxy.add(Fault.DROP_CONDITIONS, method="PUT")
        store = open_store(moto_s3.settings(endpoint_url=proxy.url))
        report = doctor.examine(settings, store)
        with pytest.raises(StorageError, match="second create overwrites"):
            doctor.require_safe_store(store)
    assert [finding.check for finding in report.failures] == ["storage: If-None-Match"]
    assert "conditional writes" in report.failures[0].remedy
    assert _levels(report)["storage: If-Match"] == "warning"


def test_a_server_that_accepts_wrong_checksums_is_safe_by_other_proof(
    moto_store: ObjectStore, settings: Settings
) -> None:
    report = doctor.examine(settings, moto_store)
    assert report.failures == ()
    assert report.facts is not None
    assert not report.facts.refuses_bad_checksum
    assert report.verify_by == "etag"


@pytest.mark.parametrize(
    ("method", "path", "check"),
    [
        ("PUT", "_doctor", "storage: create"),
        ("GET", "_doctor/[0-9a-f]+$", "storage: read"),
        ("GET", "list-type=2", "storage: list"),
        ("POST", "uploads", "storage: stage"),
        ("HEAD", "_doctor", "storage: head"),
        ("GET", "versions", "storage: delete"),
    ],
)
def test_a_denied_permission_is_named(
    proxied: tuple[S3Server, FaultProxy], settings: Settings, method: str, path: str, check: str
) -> None:
    server, proxy = proxied
    proxy.add(Fault.ANSWER, code="AccessDenied", method=method, path=path)
    report = doctor.examine(settings, open_store(server.settings(endpoint_url=proxy.url)))
    failed = {finding.check: finding for finding in report.failures}
    assert check in failed
    assert "403" in failed[check].detail
    assert "iam-policy" in failed[check].remedy
    assert report.facts is None


def test_a_missing_bucket_is_named(any_s3: S3Server, settings: Settings) -> None:
    report = doctor.examine(settings, open_store(any_s3.settings(url="s3://no-such-bucket/lake")))
    assert [(f.check, f.remedy) for f in report.failures] == [
        ("storage: create", "create the bucket or correct storage.url")
    ]


def test_an_unreachable_server_is_named(s3_credentials: None, settings: Settings) -> None:
    storage = {"url": "s3://bucket/lake", "endpoint_url": "http://127.0.0.1:9", "max_attempts": 1}
    report = doctor.examine(settings, open_store(settings.storage.model_copy(update=storage)))
    assert report.failures[0].check == "storage: create"
    assert "storage.endpoint_url" in report.failures[0].remedy


@pytest.mark.parametrize(("skew", "level"), [(2.0, "ok"), (-90.0, "warning"), (3600.0, "failure")])
def test_a_wrong_clock_is_named(tmp_path: Path, settings: Settings, skew: float, level: str) -> None:
    class Skewed(DirectoryStore):
        def clock_skew_seconds(self) -> float:
            return skew

    assert _levels(doctor.examine(settings, Skewed(tmp_path / "lake")))["clock"] == level


def test_the_local_side_is_looked_at(tmp_path: Path, directory_store: DirectoryStore, settings: Settings) -> None:
    settings.hot.path.mkdir(mode=0o755)
    settings.hot.path.chmod(0o755)
    greedy = settings.model_copy(update={"archive": settings.archive.model_copy(update={"min_free_bytes": 1 << 60})})
    levels = _levels(doctor.examine(greedy, directory_store))
    assert levels["disk space"] == "warning"
    assert levels["hot store: directory"] == "warning"
    assert levels["package pyarrow"] == "ok"
    with HotStore(tmp_path / "sessions") as hot:
        levels = _levels(doctor.examine(settings, directory_store, hot))
    assert levels["sqlite"] == "ok"
    assert levels["disk space"] == "ok"


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("3.40.1", True), ("3.44.5", True), ("3.44.6", False), ("3.45.0", True), ("3.50.6", True),
        ("3.50.7", False), ("3.51.2", True), ("3.51.3", False), ("3.52.0", False), ("4.0.0", False),
    ],
)  # fmt: skip
def test_the_versions_whose_wal_reset_bug_the_gate_covers_are_known(version: str, affected: bool) -> None:
    assert doctor._resets_badly(version) is affected
