"""Storms of network and server faults: the archiver comes through each of them with every session archived once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archived import session
from faultproxy import Fault, FaultProxy
from live import NOW_US, archived_records, contents, fill, live_count, settings
from s3_servers import S3Server

from archiver import archive, service
from archiver.hot import HotStore
from archiver.objects import StoreFacts, open_store

ROUNDS = 200
FACTS = StoreFacts(creates_once=True, replaces_if_match=True, refuses_bad_checksum=False)
STORMS: dict[str, list[dict[str, Any]]] = {
    "a third slow down": [{"fault": Fault.ANSWER, "code": "SlowDown", "probability": 0.3}],
    "a third internal errors": [{"fault": Fault.ANSWER, "code": "InternalError", "probability": 0.3}],
    "errors after the commit": [{"fault": Fault.ANSWER_AFTER_COMMIT, "code": "InternalError", "probability": 0.4}],
    "answers lost after the commit": [{"fault": Fault.LOSE_ANSWER, "probability": 0.4}],
    "resets in mid-body": [{"fault": Fault.RESET_MID_BODY, "method": "PUT", "probability": 0.5}],
    "refused connections": [{"fault": Fault.REFUSE, "probability": 0.3}],
    "conflicting requests": [
        {"fault": Fault.ANSWER, "code": "ConditionalRequestConflict", "method": "PUT", "probability": 0.5}
    ],
    "answers withheld": [{"fault": Fault.HANG, "method": "PUT", "times": 2}],
    "truncated answers": [{"fault": Fault.TRUNCATE_ANSWER, "probability": 0.3}],
    "corrupted answers": [{"fault": Fault.CORRUPT_ANSWER, "path": r"\.parquet", "probability": 0.5}],
    "corrupted requests": [{"fault": Fault.CORRUPT_REQUEST, "method": "PUT", "probability": 0.3}],
    "slow drip": [{"fault": Fault.SLOW_ANSWER, "seconds": 0.3, "probability": 0.5}],
    "expired credentials, then new ones": [{"fault": Fault.ANSWER, "code": "ExpiredToken", "times": 6}],
    "denied, then allowed": [{"fault": Fault.ANSWER, "code": "AccessDenied", "times": 6}],
    "bucket missing, then made": [{"fault": Fault.ANSWER, "code": "NoSuchBucket", "times": 6}],
    "clock skewed, then set": [{"fault": Fault.ANSWER, "code": "RequestTimeTooSkewed", "times": 6}],
    "everything at once": [
        {"fault": Fault.LOSE_ANSWER, "method": "PUT", "probability": 0.2},
        {"fault": Fault.ANSWER, "code": "SlowDown", "probability": 0.2},
        {"fault": Fault.RESET_MID_BODY, "method": "PUT", "probability": 0.1},
        {"fault": Fault.REFUSE, "probability": 0.1},
    ],
}


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


@pytest.mark.slow
@pytest.mark.parametrize("storm", STORMS)
def test_storm_ends_with_every_session_archived_once(
    hot: HotStore, proxied: tuple[S3Server, FaultProxy], storm: str
) -> None:
    server, proxy = proxied
    within = server.settings(endpoint_url=proxy.url, max_attempts=1, read_timeout_seconds=1.5)
    store = open_store(within)
    records = fill(hot, (session(n, n_messages=3) for n in range(60)))
    for rule in STORMS[storm]:
        proxy.add(**rule)
    limits = settings(segment_sessions=10)
    sweeps = 0
    while not (report := service.sweep(hot, store, limits, now_us=NOW_US, facts=FACTS)).ok or report.backlog:
        kinds = {failure.kind for failure in report.failures}
        assert kinds <= {"storage", "outcome_unknown", "corrupt_data"}, report.failures
        sweeps += 1
        assert sweeps < ROUNDS, report.failures
    proxy.clear()
    assert contents(archived_records(store)) == contents(records)
    assert live_count(hot) == 0
    assert [p.name for p in hot.spool.directory.iterdir()] == [".lock"]
    assert archive.verify(store, deep=True).ok
