"""What happens to a held object when its session was archived, replaced, erased or changed by others meanwhile."""

import pytest
from live_sessions import archived_texts

from archiver import SessionManager, archive
from archiver.errors import SessionConflictError
from archiver.objects import open_store

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US


class Clock:
    """A clock that only the test moves."""

    def __init__(self) -> None:
        self.us = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.us


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def open_manager(tmp_path, clock):
    opened = []

    def open_(**options):
        manager = SessionManager(
            tmp_path / "s", clock=clock, **{"max_sessions": 10, "session_max_age_hours": 1, **options}
        )
        opened.append(manager)
        return manager

    yield open_
    for manager in opened:
        manager.close()


def contents(manager, session_id):
    return [m.content for m in manager.peek(session_id).chat_history]


def archive_all(manager, clock):
    clock.us += 2 * HOUR_US
    assert manager.cleanup_stale_sessions().sessions_released > 0


def test_a_write_to_an_archived_session_never_lands_in_anothers(open_manager, clock):
    manager = open_manager()
    manager.get_or_create("a", user_id="alice")
    manager.add_message("a", "user", "alice 1")
    archive_all(manager, clock)
    manager.get_or_create("b", user_id="bob")
    manager.add_message("b", "user", "bob 1")
    manager.add_message("a", "user", "alice 2")
    manager.add_feedback("a", "n", "correct")
    assert contents(manager, "b") == ["bob 1"]
    assert manager.peek("b").interactions == []
    assert contents(manager, "a") == ["alice 1", "alice 2"]


def test_an_edit_of_a_message_archived_meanwhile_is_an_error_and_the_id_stays_usable(open_manager, clock):
    manager = open_manager()
    session = manager.get_or_create("a")
    manager.add_message("a", "assistant", "part")
    archive_all(manager, clock)
    session.chat_history[0].content += " and the rest"
    with pytest.raises(SessionConflictError, match="archived meanwhile"):
        manager.save_session("a")
    assert session.chat_history[0].content == "part and the rest"
    manager.add_message("a", "assistant", "again")
    assert contents(manager, "a") == ["part", "again"]


def test_after_a_conflict_the_id_has_a_fresh_object(open_manager):
    manager, other = open_manager(), open_manager()
    session = manager.get_or_create("a")
    manager.add_message("a", "user", "one")
    session.chat_history.pop()
    other.add_message("a", "user", "theirs")
    with pytest.raises(SessionConflictError):
        manager.save_session("a")
    again = manager.get_session("a")
    assert again is not session
    assert [m.content for m in again.chat_history] == ["one", "theirs"]
    manager.add_message("a", "user", "two")
    manager.delete_session("a")


def test_unsaved_messages_of_an_archived_session_are_saved_before_the_next_conversation_begins(open_manager, clock):
    manager = open_manager()
    session = manager.get_or_create("a")
    manager.add_message("a", "user", "one")
    archive_all(manager, clock)
    session.add_message("user", "unsaved")
    fresh = manager.create_session("a")
    assert fresh.chat_history == []
    manager.delete_session("a")
    manager.cleanup_stale_sessions()
    assert ["one", "unsaved"] in archived_texts(manager)


def test_an_evicted_session_that_was_erased_elsewhere_starts_anew(open_manager, clock):
    manager = open_manager(max_sessions=1, session_max_age_hours=24)
    manager.get_or_create("a", user_id="u")
    manager.add_message("a", "user", "one")
    clock.us += MINUTE_US
    manager.get_or_create("b")
    clock.us += 20 * MINUTE_US
    manager.add_message("b", "user", "x")
    assert manager.cleanup_stale_sessions().sessions_released == 1
    store = open_store(manager.settings.storage)
    archive.put_tombstone(store, archive.Tombstone.of("user", "u", clock.us))
    assert manager.get_or_create("a").chat_history == []


def test_a_session_evicted_twice_is_listed_once(open_manager, clock):
    manager = open_manager(max_sessions=1, session_max_age_hours=24)
    for session_id in ("a", "b"):
        manager.get_or_create(session_id)
        manager.add_message(session_id, "user", "one")
        clock.us += MINUTE_US
    for minutes in (20, 70):
        clock.us += minutes * MINUTE_US
        manager.add_message("b", "user", "x")
        assert manager.cleanup_stale_sessions().sessions_released == 1
        clock.us += MINUTE_US
        if minutes == 20:
            manager.add_message("a", "user", "two")
    assert [s["id"] for s in manager.list_sessions()] == ["b", "a"]
