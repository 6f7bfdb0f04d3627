"""Claimed sessions as a segment takes them: SQLite writes their events as JSON, and that is what the digest is over."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from archived import START_US, session
from live import NOW_US, fill, settings

from archiver import sealing
from archiver.errors import CorruptDataError, StorageError
from archiver.events import FeedbackCounts, Interaction, Message, SessionRow, content_sha256
from archiver.hot import HotStore, frozen

EVERY_CHARACTER = "".join(map(chr, [*range(0xD800), *range(0xE000, 0x110000)]))
CHUNK = 50_000


@pytest.fixture
def hot(tmp_path: Path) -> Iterator[HotStore]:
    with HotStore(tmp_path / "hot", durability="process") as store:
        yield store


def claimed(hot: HotStore, *, sessions: int = 128, size: int = 1 << 30) -> list[list[SessionRow]]:
    segment = sealing.claim(hot, settings(), now_us=NOW_US)
    assert segment is not None
    return list(hot.claims.rows(segment, group_sessions=sessions, group_bytes=size))


def change(hot: HotStore, statement: str) -> None:
    with hot.transaction() as connection:
        connection.execute(statement)


def test_every_character_comes_as_it_is_and_gives_the_documented_digest(hot: HotStore) -> None:
    texts = [EVERY_CHARACTER[i : i + CHUNK] for i in range(0, len(EVERY_CHARACTER), CHUNK)]
    record = session(
        1,
        messages=tuple(Message("user", text, START_US, text[:9] or None) for text in texts),
        interactions=tuple(Interaction(START_US, "edit", text[:9], text, None, "{}") for text in texts),
    )
    fill(hot, [record])
    [[row]] = claimed(hot)
    assert row.record().messages == record.messages
    assert row.record().interactions == record.interactions
    assert row.content_sha256 == content_sha256(record)


@pytest.mark.parametrize(
    "values",
    [
        {"messages": (), "interactions": ()},
        {"messages": (Message("user", None, -1, None), Message("user", "", 2**62, "")), "reported": None},
        {"interactions": (Interaction(-5, "x"), Interaction(0, "y", "", "", "odd", '{"a":[1.50,"\\u00e9"]}'))},
        {"reported": FeedbackCounts(1, 0, 2**40), "graph_state": None, "extra": '{"a":1}', "updated_at_us": None},
        {"user_id": None, "language": None, "tz_assumed": True, "metadata": '{"é":"\u2028"}'},
    ],
)
def test_values_of_every_kind_give_the_digest_of_the_record(hot: HotStore, values: dict[str, object]) -> None:
    record = session(1, **values)
    fill(hot, [record])
    [[row]] = claimed(hot)
    assert row.content_sha256 == content_sha256(record) == content_sha256(row.record())


def test_events_come_in_their_order_whatever_was_removed(hot: HotStore) -> None:
    record = session(1, messages=tuple(Message("user", f"{n}", START_US - n, None) for n in range(3000)))
    fill(hot, [record])
    change(hot, "DELETE FROM event WHERE kind = 0 AND seq % 7 = 3")
    [[row]] = claimed(hot)
    expected = [m.content for seq, m in enumerate(record.messages) if seq % 7 != 3]
    assert [m[1] for m in row.messages] == expected


def test_groups_are_sorted_whole_and_end_where_their_text_is_enough(hot: HotStore) -> None:
    records = fill(hot, (session(n, messages=(Message("user", "x" * 1000, START_US, None),)) for n in range(300)))
    groups = claimed(hot, sessions=40, size=20_000)
    assert {len(group) for group in groups[:-1]} <= set(range(10, 21))
    uids = [row.session_uid for group in groups for row in group]
    assert uids == sorted(record.session_uid for record in records)


def test_a_session_that_goes_meanwhile_is_left_out_of_its_group(hot: HotStore) -> None:
    records = fill(hot, (session(n) for n in range(20)))
    segment = sealing.claim(hot, settings(), now_us=NOW_US)
    assert segment is not None
    rows = hot.claims.rows(segment, group_sessions=5, group_bytes=1 << 30)
    found = [row.session_uid for row in next(rows)]
    uids = sorted(record.session_uid for record in records)
    change(hot, f"DELETE FROM claim WHERE session_uid IN ('{uids[7]}', '{uids[9]}')")
    found += [row.session_uid for group in rows for row in group]
    assert found == [uid for uid in uids if uid not in (uids[7], uids[9])]


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE event SET content = CAST(x'61ff62' AS TEXT) WHERE seq = 0 AND sid = 2", "invalid unicode"),
        ("UPDATE session SET created_us = created_us + 1 WHERE sid = 2", "is stored under"),
        ("UPDATE session SET created_us = 1 << 62 WHERE sid = 2", "year"),
    ],
)
def test_a_session_that_cannot_be_read_is_named(hot: HotStore, statement: str, said: str) -> None:
    fill(hot, (session(n) for n in range(5)))
    change(hot, statement)
    with pytest.raises(CorruptDataError, match=said) as caught:
        claimed(hot)
    assert caught.value.key == "s1"
    assert "--quarantine" in caught.value.hint


def test_a_session_larger_than_sqlite_can_hold_is_named(hot: HotStore) -> None:
    long = tuple(Message("user", "x" * 9_000, START_US, None) for _ in range(5))
    fill(hot, [session(0), session(1, messages=long), session(2)])
    segment = sealing.claim(hot, settings(), now_us=NOW_US)
    assert segment is not None
    with hot.reader() as connection:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 20_000)
    with pytest.raises(CorruptDataError, match="too large for a segment: string or blob too big") as caught:
        list(hot.claims.rows(segment, group_sessions=128, group_bytes=1 << 30))
    assert caught.value.key == "s1"


def test_an_sqlite_that_writes_json_in_another_way_archives_nothing() -> None:
    with sqlite3.connect(":memory:") as connection:
        frozen._require_canonical_json(connection)
    with sqlite3.connect(":memory:") as connection:
        connection.create_function("json_array", 4, lambda *values: "[1, 2]")
        with pytest.raises(StorageError, match="writes JSON in another way"):
            frozen._require_canonical_json(connection)
