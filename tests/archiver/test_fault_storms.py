"""The network and the server misbehave in every way there is: each session still gets into the archive once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from archived import session
from faultproxy import Fault, FaultProxy
from live import NOW_US, archived_records, contents, fill, settings
from s3_servers import S3Server

from archiver import service
from archiver.events import SessionRecord
from archiver.hot import HotStore
from archiver.objects import ObjectStore, open_store

SWEEPS = 200
SEGMENT = r"\.parquet"

STORMS: dict[str, list[dict[str, Any]]] = {
    "slow down": [{"fault": Fault.ANSWER, "code": "SlowDown", "probability": 0.3}],
    "internal errors": [{"fault": Fault.ANSWER, "code": "InternalError", "probability": 0.3}],
    "throttled": [{"fault": Fault.ANSWER, "code": "TooManyRequests", "probability": 0.3}],
    "conflicting conditions": [
        {"fault": Fault.ANSWER, "code": "ConditionalRequestConflict", "method": "PUT", "probability": 0.5}
    ],
    "connections refused": [{"fault": Fault.REFUSE, "probability": 0.3}],
    "reset in the body": [{"fault": Fault.RESET_MID_BODY, "method": "PUT", "probability": 0.6}],
    "answer lost after commit": [{"fault": Fault.LOSE_ANSWER, "method": "PUT|POST|DELETE", "probability": 0.6}],
    "error after commit": [
        {"fault": Fault.ANSWER_AFTER_COMMIT, "code": "InternalError", "method": "PUT|DELETE", "probability": 0.6}
    ],
    "hang after commit": [{"fault": Fault.HANG, "method": "PUT", "path": SEGMENT, "times": 3}],
    "answers truncated": [{"fault": Fault.TRUNCATE_ANSWER, "probability": 0.3}],
    "answers corrupted": [{"fault": Fault.CORRUPT_ANSWER, "probability": 0.3}],
    "segments corrupted on their way": [{"fault": Fault.CORRUPT_REQUEST, "path": SEGMENT, "method": "PUT", "times": 4}],
    "slow drip": [{"fault": Fault.SLOW_ANSWER, "seconds": 0.05}],
    "everything at once": [
        {"fault": Fault.ANSWER, "code": "SlowDown", "probability": 0.05},
        {"fault": Fault.LOSE_ANSWER, "method": "PUT", "probability": 0.15},
        {"fault": Fault.RESET_MID_BODY, "method": "PUT", "probability": 0.1},
        {"fault": Fault.REFUSE, "probability": 0.05},
        {"fault": Fault.TRUNCATE_ANSWER, "probability": 0.05},
        {"fault": Fault.DELAY, "seconds": 0.02, "probability": 0.1},
    ],
}

OUTAGES = ["ExpiredToken", "AccessDenied", "NoSuchBucket", "RequestTimeTooSkewed", "InvalidAccessKeyId", "SlowDown"]


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


@pytest.fixture
def sessions(hot: HotStore) -> list[SessionRecord]:
    return fill(hot, (session(n) for n in range(60)))


def _stores(proxied: tuple[S3Server, FaultProxy], **values: Any) -> tuple[ObjectStore, ObjectStore]:
    """The store through the proxy and the same one past it."""
    server, proxy = proxied
    through = server.settings(endpoint_url=proxy.url, read_timeout_seconds=0.7, **values)
    return open_store(through), open_store(server.settings(url=through.url))


def _rows(hot: HotStore) -> int:
    with hot.reader() as connection:
        return int(connection.execute("SELECT count(*) FROM session").fetchone()[0])


def _check_exactly_once(hot: HotStore, store: ObjectStore, sessions: list[SessionRecord]) -> None:
    assert contents(archived_records(store)) == contents(sessions)
    assert _rows(hot) == 0
    assert hot.spool.size_bytes() == 0
    assert list(store.list_staged("")) == []


@pytest.mark.slow
@pytest.mark.parametrize("storm", STORMS)
@pytest.mark.parametrize("attempts", [1, 2])
def test_a_storm_ends_with_every_session_archived_once(
    proxied: tuple[S3Server, FaultProxy], hot: HotStore, sessions: list[SessionRecord], storm: str, attempts: int
) -> None:
    through, past = _stores(proxied, max_attempts=attempts)
    rules = [proxied[1].add(**values) for values in STORMS[storm]]
    for _ in range(SWEEPS):
        report = service.sweep(hot, through, settings(segment_sessions=20), now_us=NOW_US)
        if report.ok:
            break
    assert report.ok, report.failures
    assert any(rule.fired for rule in rules)
    _check_exactly_once(hot, past, sessions)


@pytest.mark.slow
@pytest.mark.parametrize("code", OUTAGES)
def test_an_outage_keeps_everything_and_ends_by_itself(
    proxied: tuple[S3Server, FaultProxy], hot: HotStore, sessions: list[SessionRecord], code: str
) -> None:
    through, past = _stores(proxied, max_attempts=1)
    proxied[1].add(Fault.ANSWER, code=code)
    for _ in range(2):
        report = service.sweep(hot, through, settings(segment_sessions=20), now_us=NOW_US)
        assert [failure.kind for failure in report.failures] in (["storage"], ["outcome_unknown"])
        assert _rows(hot) == len(sessions)
    proxied[1].clear()
    assert service.sweep(hot, through, settings(segment_sessions=20), now_us=NOW_US).ok
    _check_exactly_once(hot, past, sessions)


def test_an_outage_in_the_middle_keeps_what_is_not_proven(
    proxied: tuple[S3Server, FaultProxy], hot: HotStore, sessions: list[SessionRecord]
) -> None:
    through, past = _stores(proxied, max_attempts=1)
    proxied[1].add(Fault.ANSWER, code="AccessDenied", method="PUT", path=r"000000000002\.parquet")
    report = service.sweep(hot, through, settings(segment_sessions=20), now_us=NOW_US)
    assert not report.ok
    assert _rows(hot) == 40
    proxied[1].clear()
    assert service.sweep(hot, through, settings(segment_sessions=20), now_us=NOW_US).ok
    _check_exactly_once(hot, past, sessions)
