"""SIGKILL before, in and after every durable step of the archiver: every session is archived exactly once."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from archived import session
from live import IDLE_US, NOW_US, archived_records, contents, fill, live_count, settings
from mortal import Mortals
from s3_servers import ENVIRONMENT, S3Server

from archiver import archive, sealing, service
from archiver.events import SessionRecord, content_sha256
from archiver.hot import HotStore
from archiver.objects import open_store
from archiver.settings import Settings, StorageSettings

SESSIONS = 5


@pytest.fixture(scope="module")
def mortals() -> Iterator[Mortals]:
    with Mortals(ENVIRONMENT) as warm:
        yield warm


Fresh = Callable[[], StorageSettings]


@pytest.fixture
def fresh_directory(tmp_path: Path) -> Fresh:
    """Settings of an empty archive in a directory, another at every call."""
    numbers = count()
    return lambda: StorageSettings(url=f"file:{tmp_path}/lake-{next(numbers)}")


@pytest.fixture(params=["directory", "moto", pytest.param("seaweed", marks=pytest.mark.s3)])
def fresh_storage(request: pytest.FixtureRequest) -> Fresh:
    """Settings of an empty archive on every kind of store, another at every call."""
    if request.param == "directory":
        fresh: Fresh = request.getfixturevalue("fresh_directory")
        return fresh
    server: S3Server = request.getfixturevalue(f"{request.param}_s3")
    return server.settings


def template(directory: Path) -> list[SessionRecord]:
    """A closed hot store with expired sessions for two segments, one of them restored and not continued."""
    with HotStore(directory, durability="process") as hot:
        records = fill(hot, (session(n, n_messages=3) for n in range(SESSIONS)))
        lent = session(50)
        hot.insert_record(lent, last_activity_us=IDLE_US, restored_us=IDLE_US, archived_sha256=content_sha256(lent))
        fill(hot, [session(60)], last_activity_us=NOW_US)
        hot.checkpoint()
    return records


def with_storage(storage: StorageSettings, segment_sessions: int = 3) -> Settings:
    return settings(segment_sessions=segment_sessions).model_copy(update={"storage": storage})


def finish(hot_directory: Path, limits: Settings) -> None:
    with HotStore(hot_directory, durability="process") as hot:
        report = service.sweep(hot, open_store(limits.storage), limits, now_us=NOW_US)
        assert report.ok, report.failures


def assert_exactly_once(hot_directory: Path, limits: Settings, expected: Counter[tuple[str, int, str]]) -> None:
    store = open_store(limits.storage)
    with HotStore(hot_directory, durability="process") as hot:
        assert contents(archived_records(store)) == expected
        assert live_count(hot) == 1, "the one that has not expired"
        assert hot.claims.unreleased() == []
        assert [p.name for p in hot.spool.directory.iterdir()] == [".lock"]
        with hot.reader() as connection:
            indexed = connection.execute("SELECT session_uid, revision, content_sha256 FROM archived").fetchall()
        assert set(expected) <= set(indexed)
    assert archive.verify(store, deep=True).ok


def kill_at_steps(mortals: Mortals, tmp_path: Path, fresh: Fresh, *, every: int) -> None:
    """Kill a sweep at each ``every``-th step, finish, and find each session archived once."""
    records = template(tmp_path / "template")
    whole = copied(tmp_path, "whole")
    steps = mortals.sweep(whole, with_storage(fresh()), now_us=NOW_US, kill_at=None).steps
    assert {"before create", "before commit", "spool written, not linked", "after spool remove"} <= set(steps)
    for kill_at in range(1, len(steps) + 1, every):
        hot, limits = copied(tmp_path, f"hot-{kill_at}"), with_storage(fresh())
        assert mortals.sweep(hot, limits, now_us=NOW_US, kill_at=kill_at).failures == (), steps[kill_at - 1]
        finish(hot, limits)
        assert_exactly_once(hot, limits, contents(records))
        shutil.rmtree(hot)


def copied(tmp_path: Path, name: str) -> Path:
    """A copy of the closed template: nobody has it open, so copying by path is safe."""
    return Path(shutil.copytree(tmp_path / "template", tmp_path / name))


def test_killed_at_some_steps_every_session_is_archived_exactly_once(
    mortals: Mortals, tmp_path: Path, fresh_directory: Fresh
) -> None:
    kill_at_steps(mortals, tmp_path, fresh_directory, every=15)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_every_step_every_session_is_archived_exactly_once(
    mortals: Mortals, tmp_path: Path, fresh_storage: Fresh
) -> None:
    kill_at_steps(mortals, tmp_path, fresh_storage, every=1)


WRITES = (
    "INSERT INTO event(sid, seq, kind, created_us, tag, content) VALUES(1, 900, 0, 5, 'user', 'later')",
    "UPDATE session SET next_seq = 901, updated_us = 9, n_messages = n_messages + 1 WHERE sid = 1",
    "UPDATE session SET metadata = '{\"later\":1}' WHERE sid = 2",
    "INSERT OR REPLACE INTO graph_state(sid, state) VALUES(3, '{\"later\":1}')",
    "UPDATE session SET language = 'zz' WHERE sid = 4",
)


@pytest.mark.slow
@pytest.mark.parametrize("written_when", ["open", "closed"])
def test_write_of_every_kind_to_a_claimed_session_survives_a_kill_at_every_step(
    mortals: Mortals, tmp_path: Path, fresh_directory: Fresh, written_when: str
) -> None:
    originals = template(tmp_path / "template")
    with HotStore(tmp_path / "template", durability="process") as hot:
        if written_when == "open":
            hot.claims.claim(sealing.claim_limits(settings()), now_us=NOW_US)
        else:
            sealing.seal(hot, settings(), now_us=NOW_US)
        with hot.transaction() as connection:
            for write in WRITES:
                connection.execute(write)
        hot.checkpoint()
    shutil.rmtree(tmp_path / "template" / "spool", ignore_errors=True)
    whole, limits = copied(tmp_path, "whole"), with_storage(fresh_directory(), segment_sessions=100)
    steps = mortals.sweep(whole, limits, now_us=NOW_US, kill_at=None).steps
    expected = contents(archived_records(open_store(limits.storage)))
    first = Counter({key: n for key, n in expected.items() if key[1] == 1})
    assert first == contents(originals), "the claim's view, whatever was written since"
    assert len(expected) == len(originals) + 4, "four sessions were continued"
    for kill_at in range(1, len(steps) + 1):
        hot_directory, limits = (
            copied(tmp_path, f"hot-{kill_at}"),
            with_storage(fresh_directory(), segment_sessions=100),
        )
        assert mortals.sweep(hot_directory, limits, now_us=NOW_US, kill_at=kill_at).failures == ()
        finish(hot_directory, limits)
        assert_exactly_once(hot_directory, limits, expected)
        shutil.rmtree(hot_directory)


def test_copied_store_is_refused_and_a_new_archiver_id_heals_it_killed_at_every_step(
    mortals: Mortals, tmp_path: Path, fresh_directory: Fresh
) -> None:
    """Two stores with one archiver id: the second to push is refused, both copies stay whole."""
    shared = template(tmp_path / "template")
    limits = with_storage(fresh_directory(), segment_sessions=100)
    first, second = copied(tmp_path, "first"), copied(tmp_path, "second")
    with HotStore(second, durability="process") as hot:
        [own] = fill(hot, [session(70)])
    finish(first, limits)
    before = contents(archived_records(open_store(limits.storage)))
    refused = mortals.sweep(second, limits, now_us=NOW_US, kill_at=None)
    assert "doctor --new-archiver" in refused.failures[0]
    assert contents(archived_records(open_store(limits.storage))) == before
    healing = copied_from(second, tmp_path / "healing")
    steps = mortals.sweep(healing, limits, now_us=NOW_US, kill_at=None, action="new_archiver").steps
    for kill_at in range(1, len(steps) + 1):
        store = copied_from(second, tmp_path / f"second-{kill_at}")
        lake = copied_lake(limits, tmp_path / f"healed-{kill_at}")
        assert mortals.sweep(store, lake, now_us=NOW_US, kill_at=kill_at, action="new_archiver").killed
        mortals.sweep(store, lake, now_us=NOW_US, kill_at=None, action="new_archiver")
        finish(store, lake)
        assert_exactly_once(store, lake, contents([*shared, *shared, own]))


def copied_from(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


def copied_lake(limits: Settings, target: Path) -> Settings:
    shutil.copytree(limits.storage.url.removeprefix("file:"), target)
    return limits.model_copy(update={"storage": StorageSettings(url=f"file:{target}")})
