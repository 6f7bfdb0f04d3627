"""configs/iam-policy.json allows what the program asks of S3, and nothing that it does not."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from archived import session
from faultproxy import FaultProxy, Seen
from live import NOW_US, fill, settings
from s3_servers import S3Server

from archiver import doctor, erasure, restore, service
from archiver.hot import HotStore
from archiver.objects import ObjectStore, open_store
from pipelines import compaction, exports, maintenance

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def policy() -> list[dict[str, Any]]:
    statements: list[dict[str, Any]] = json.loads((CONFIGS / "iam-policy.json").read_text())["Statement"]
    return statements


def _everything(store: ObjectStore, past: ObjectStore, directory: Path) -> None:
    """Each kind of request the program sends, by doing each thing it does."""
    config = settings(segment_sessions=20).model_copy(update={"hot": settings().hot})
    with HotStore(directory / "hot") as hot:
        records = fill(hot, (session(n, days=1) for n in range(40)))
        assert not doctor.examine(config, store, hot).failures
        assert service.sweep(hot, store, config, now_us=NOW_US).ok
        compaction.compact(store, config, now_us=NOW_US)
        past.stage("tables/messages/data/dt=2026-01-01/part-forgotten.parquet", b"x")
        exports.export(store, config, "sft", now_us=NOW_US)
        assert restore.restore_session(hot, store, records[0].session_id, now_us=NOW_US)
        restore.continue_session(store, hot.archiver_id, records[0].session_uid, revision=1)
        plan = erasure.plan_erasure(hot, store, user_id="u1", now_us=NOW_US)
        assert plan.segments
        erasure.erase(hot, store, plan, push=lambda: service.sweep(hot, store, config, now_us=NOW_US))
        maintenance.erase(store, config, now_us=NOW_US)
        maintenance.maintain(store, config, now_us=NOW_US * 2)


def _action(seen: Seen) -> str:
    url = urlsplit(seen.target)
    query = parse_qs(url.query, keep_blank_values=True)
    of_bucket = url.path.strip("/").count("/") == 0
    if "uploadId" in query or ("uploads" in query and not of_bucket):
        return {
            "GET": "s3:ListMultipartUploadParts",
            "PUT": "s3:PutObject",
            "POST": "s3:PutObject",
            "DELETE": "s3:AbortMultipartUpload",
        }[seen.method]
    if of_bucket:
        names = {
            "list-type": "s3:ListBucket",
            "versions": "s3:ListBucketVersions",
            "uploads": "s3:ListBucketMultipartUploads",
        }
        found = [action for name, action in names.items() if name in query]
        return found[0] if found else "s3:DeleteObjectVersion" if "delete" in query else f"? {seen.target}"
    return {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject"}[seen.method]


def _allowed(seen: Seen, policy: list[dict[str, Any]], prefix: str) -> bool:
    url = urlsplit(seen.target)
    bucket, _, key = unquote(url.path).strip("/").partition("/")
    asked = parse_qs(url.query).get("prefix", [""])[0]
    for statement in policy:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        if statement["Effect"] != "Allow" or _action(seen) not in actions:
            continue
        resource = statement["Resource"].replace("BUCKET", bucket).replace("PREFIX", prefix)
        wanted = statement.get("Condition", {}).get("StringLike", {}).get("s3:prefix", "*").replace("PREFIX", prefix)
        # a DeleteObjects request names its keys in the body
        named = f"arn:aws:s3:::{bucket}/{key or prefix + '/'}" if "/" in resource else f"arn:aws:s3:::{bucket}"
        if fnmatchcase(named, resource) and fnmatchcase(asked, wanted):
            return True
    return False


@pytest.mark.slow
def test_every_request_is_allowed_and_every_permission_is_used(
    moto_s3: S3Server, policy: list[dict[str, Any]], tmp_path: Path
) -> None:
    with FaultProxy(moto_s3.endpoint_url) as proxy:
        through = moto_s3.settings(bucket=moto_s3.versioned_bucket, endpoint_url=proxy.url)
        past = moto_s3.settings(url=through.url)
        _everything(open_store(through), open_store(past), tmp_path)
        seen = list(proxy.seen)
    prefix = through.url.rpartition("/")[2]
    assert [request for request in seen if not _allowed(request, policy, prefix)] == []
    granted = {
        action
        for statement in policy
        if statement["Effect"] == "Allow" and "kms" not in str(statement["Action"])
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert {_action(request) for request in seen} == granted


def test_the_lifecycle_is_one_that_servers_take(any_s3: S3Server) -> None:
    rules = json.loads((CONFIGS / "bucket-lifecycle.json").read_text().replace("PREFIX", "lake"))
    client = any_s3.client()
    client.create_bucket(Bucket="lifecycle")
    client.put_bucket_lifecycle_configuration(Bucket="lifecycle", LifecycleConfiguration=rules)
    found = client.get_bucket_lifecycle_configuration(Bucket="lifecycle")["Rules"]
    assert {rule["ID"] for rule in found} == {rule["ID"] for rule in rules["Rules"]}
    (uploads,) = [rule for rule in found if "AbortIncompleteMultipartUpload" in rule]
    assert uploads["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 2  # never a run that is under way
