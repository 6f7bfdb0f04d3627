"""One test for every row of the promises: what the single-file module broke, and what holds here."""

from __future__ import annotations

import json
import multiprocessing
import string
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from live_sessions import HOUR_US, START_US, Clock, archived_ids, texts

from archiver import SessionManager, generate_session_id
from archiver.errors import InputError, InvalidFeedbackError, StorageError, UnknownSessionError
from archiver.events import content_sha256


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(tmp_path: Path, clock: Clock) -> Iterator[SessionManager]:
    with SessionManager(tmp_path / "sessions", clock=clock) as made:
        yield made


def reopened(manager: SessionManager, clock: Clock) -> SessionManager:
    """Another manager on the same store: another process, or the same after a restart."""
    return SessionManager(manager.sessions_dir, clock=clock)


def statements_of(manager: SessionManager, call: object) -> list[str]:
    seen: list[str] = []
    writer = manager.hot._open_database()._writer
    writer.set_trace_callback(seen.append)
    try:
        call()  # type: ignore[operator]
    finally:
        writer.set_trace_callback(None)
    return seen


@pytest.mark.parametrize("held", [False, True])
def test_an_append_does_the_same_work_at_message_10_and_10_000(manager: SessionManager, held: bool) -> None:
    session = manager.create_session("long")
    if not held:
        del session

    def append() -> None:
        manager.add_message("long", "user", "x" * 400)

    for _ in range(9):
        append()
    early = statements_of(manager, append)
    with manager.hot.transaction() as connection:
        rows = [(1, 100 + i, 0, START_US + i, "user", "y" * 40) for i in range(10_000)]
        connection.executemany(
            "INSERT INTO event(sid, seq, kind, created_us, tag, content) VALUES(?, ?, ?, ?, ?, ?)", rows
        )
        connection.execute("UPDATE session SET next_seq = 10100, n_messages = 10010, version = version + 1")
    assert manager.get_session("long") is not None
    late = statements_of(manager, append)
    assert len(late) == len(early)
    assert not any("SELECT" in statement and "event" in statement for statement in late)


def test_a_value_json_cannot_hold_is_an_error_and_damages_nothing(manager: SessionManager, clock: Clock) -> None:
    session = manager.create_session("s")
    session.add_message("user", "kept")
    manager.save_session("s")
    session.add_message("user", "pending")
    session.metadata["bad"] = object()
    with pytest.raises(InputError, match="metadata"):
        manager.save_session("s")
    other = reopened(manager, clock)
    assert texts(other.get_session("s")) == ["kept"]
    del session.metadata["bad"]
    manager.save_session("s")
    assert texts(other.get_session("s")) == ["kept", "pending"]
    other.close()


def append_fifty(directory: Path, name: str) -> None:
    with SessionManager(directory) as manager:
        session = manager.get_session("shared")
        assert session is not None
        for i in range(50):
            session.add_message("user", f"{name}:{i}")
            manager.save_session("shared")


def test_appends_of_several_processes_all_survive_in_commit_order(tmp_path: Path) -> None:
    directory = tmp_path / "sessions"
    with SessionManager(directory) as manager:
        session = manager.create_session("shared")
        context = multiprocessing.get_context("spawn")
        writers = [context.Process(target=append_fifty, args=(directory, f"w{i}")) for i in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert [writer.exitcode for writer in writers] == [0, 0, 0]
        assert manager.get_session("shared") is session
        found = texts(session)
        assert sorted(found) == sorted(f"w{w}:{i}" for w in range(3) for i in range(50))
        for w in range(3):
            assert [t for t in found if t.startswith(f"w{w}:")] == [f"w{w}:{i}" for i in range(50)]


def test_get_or_create_is_atomic_between_threads(manager: SessionManager) -> None:
    barrier = threading.Barrier(8)

    def one(i: int) -> None:
        barrier.wait()
        manager.get_or_create("new").add_message("user", f"m{i}")
        manager.save_session("new")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(one, range(8)))
    assert sorted(texts(manager.get_session("new"))) == [f"m{i}" for i in range(8)]
    assert manager.get_stats()["active_sessions"] == 1


def test_rows_are_deleted_only_after_the_archive_has_them(tmp_path: Path, clock: Clock) -> None:
    lake = tmp_path / "lake"
    lake.write_text("a file where the storage directory should be")
    with SessionManager(tmp_path / "sessions", clock=clock) as manager:
        manager.create_session("s").add_message("user", "precious")
        manager.save_session("s")
        clock.forward(25)
        report = manager.cleanup_stale_sessions()
        assert [failure.kind for failure in report.failures] == ["storage"]
        with manager.hot.reader() as connection:
            assert connection.execute("SELECT content FROM event").fetchall() == [("precious",)]
        lake.unlink()
        assert manager.cleanup_stale_sessions().ok
        assert archived_ids(manager) == ["s"]
        with manager.hot.reader() as connection:
            assert connection.execute("SELECT count(*) FROM event").fetchone() == (0,)


def test_the_same_id_twice_in_a_day_is_two_conversations_in_the_archive(manager: SessionManager, clock: Clock) -> None:
    for text in ("first", "second"):
        manager.create_session("s").add_message("user", text)
        manager.save_session("s")
        manager.delete_session("s")
    manager.cleanup_stale_sessions()
    with manager.hot.reader() as connection:
        rows = connection.execute("SELECT DISTINCT session_uid FROM archived WHERE session_id = 's'").fetchall()
    assert len(rows) == 2


def test_only_the_stored_last_activity_expires_a_session(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("active")
    manager.create_session("idle")
    clock.forward(23)
    manager.add_message("active", "user", "still here", timestamp="2001-01-01T00:00:00+00:00")
    clock.forward(2)
    manager.cleanup_stale_sessions()
    assert archived_ids(manager) == ["idle"]
    assert manager.get_session("active") is not None


def test_delete_with_archive_after_a_restart_archives_the_session(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s").add_message("user", "hello")
    manager.save_session("s")
    other = reopened(manager, clock)
    other.delete_session("s", archive=True)
    assert manager.get_session("s") is None
    assert manager.list_sessions() == []
    assert archived_ids(manager) == []
    manager.cleanup_stale_sessions()
    assert archived_ids(manager) == ["s"]
    other.close()


def test_unreadable_legacy_files_are_never_deleted(tmp_path: Path, clock: Clock) -> None:
    directory = tmp_path / "sessions"
    directory.mkdir()
    (directory / "torn.json").write_text('{"session_id": "torn", "chat_hi')
    with SessionManager(directory, clock=clock) as manager:
        clock.forward(100)
        manager.cleanup_stale_sessions()
        assert (directory / "torn.json").exists()
        with manager.hot.reader() as connection:
            ((name, error),) = connection.execute("SELECT name, error FROM adopted").fetchall()
    assert name == "torn.json"
    assert "JSON" in error


def test_expired_is_expired_in_every_process_until_it_is_restored(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s").add_message("user", "hello")
    manager.save_session("s")
    clock.forward(25)
    other = reopened(manager, clock)
    for _ in range(2):
        assert manager.get_session("s") is None
        assert other.get_session("s") is None
    manager.cleanup_stale_sessions()
    assert other.get_session("s") is None
    restored = other.get_session("s", restore=True)
    assert texts(restored) == ["hello"]
    assert texts(manager.get_session("s")) == ["hello"]
    other.close()


def test_every_interaction_and_language_change_is_stored_when_the_call_returns(
    manager: SessionManager, clock: Clock
) -> None:
    manager.create_session("s")
    manager.record_interaction("s", "click", node_id="n1", metadata={"x": 1}, actor="model:m", level="step")
    manager.update_language("s", "de")
    other = reopened(manager, clock)
    session = other.get_session("s")
    assert session is not None
    assert session.language == "de"
    (interaction,) = session.interactions
    assert interaction.action_type == "click"
    assert interaction.metadata == {"x": 1, "actor": "model:m", "level": "step"}
    other.close()


@pytest.mark.parametrize("verdict", ["Correct", "", "good", 1, None])
def test_an_unknown_verdict_is_an_error(manager: SessionManager, verdict: object) -> None:
    manager.create_session("s")
    with pytest.raises(InvalidFeedbackError) as caught:
        manager.add_feedback("s", "n", verdict)  # type: ignore[arg-type]
    assert isinstance(caught.value, ValueError)
    assert manager.get_stats()["total_interactions"] == 0


def test_feedback_for_an_unknown_session_is_an_error(manager: SessionManager) -> None:
    with pytest.raises(UnknownSessionError) as caught:
        manager.add_feedback("nobody", "n", "correct")
    assert isinstance(caught.value, KeyError)


def test_times_are_utc_and_naive_input_is_flagged(manager: SessionManager, clock: Clock) -> None:
    session = manager.create_session("s")
    assert datetime.fromisoformat(session.created_at).tzinfo == UTC
    manager.add_message("s", "user", "naive", timestamp="2026-03-01T10:00:00")
    manager.add_message("s", "user", "aware", timestamp="2026-03-01T10:00:00+02:00")
    fresh = reopened(manager, clock)
    stored = fresh.get_session("s")
    assert stored is not None
    assert [m.timestamp for m in stored.chat_history] == [
        "2026-03-01T10:00:00.000000+00:00",
        "2026-03-01T08:00:00.000000+00:00",
    ]
    with manager.hot.reader() as connection:
        assert connection.execute("SELECT tz_assumed FROM session").fetchone() == (1,)
    fresh.close()


@pytest.mark.parametrize("session_id", ["../victim", "a/b", "..", "CON", "x" * 512, "日本", "a b"])
def test_ids_are_data_never_paths(manager: SessionManager, tmp_path: Path, session_id: str) -> None:
    victim = tmp_path / "victim.json"
    victim.write_text("{}")
    manager.create_session(session_id).add_message("user", "hi")
    manager.save_session(session_id)
    before = sorted(path for path in tmp_path.rglob("*"))
    manager.delete_session(session_id, archive=False)
    assert manager.get_session(session_id) is None
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("session_id", ["", "x" * 513, "a\nb", "a\x00b", "\ud800", 7, None, "y" * 10_240])
def test_what_cannot_be_an_id_is_refused_by_every_call(manager: SessionManager, session_id: object) -> None:
    for call in (manager.get_session, manager.create_session, manager.get_or_create, manager.save_session):
        with pytest.raises(InputError, match="session_id"):
            call(session_id)  # type: ignore[operator]
    with pytest.raises(InputError, match="session_id"):
        manager.add_message(session_id, "user", "x")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="session_id"):
        manager.delete_session(session_id)  # type: ignore[arg-type]
    assert manager.get_stats()["active_sessions"] == 0


def test_generated_ids_have_128_random_bits_and_are_url_safe() -> None:
    ids = {generate_session_id() for _ in range(200)}
    assert len(ids) == 200
    assert {len(i) for i in ids} == {22}  # 22 base64 digits hold 132 bits
    assert set("".join(ids)) <= set(string.ascii_letters + string.digits + "-_")
    assert all(i[0].isalnum() for i in ids)  # never taken for an option of a command


def test_lists_stats_and_exports_cover_the_whole_store_after_a_restart(manager: SessionManager, clock: Clock) -> None:
    for i in range(30):
        session = manager.create_session(f"s{i:02}", user_id="even" if i % 2 == 0 else "odd")
        session.add_message("user", f"question {i} " + "x" * 40)
        session.add_interaction("feedback", "n", feedback="correct")
        manager.save_session(f"s{i:02}")
    other = reopened(manager, clock)
    listed = other.list_sessions(limit=5)
    assert [item["id"] for item in listed] == ["s29", "s28", "s27", "s26", "s25"]
    assert listed[0]["title"] == ("question 29 " + "x" * 40)[:35] + "..."
    assert set(listed[0]) == {"id", "title", "timestamp", "language"}
    assert [item["id"] for item in other.list_sessions(limit=2, user_id="odd")] == ["s29", "s27"]
    assert other.get_stats() == {"active_sessions": 30, "total_interactions": 30, "total_feedback": 30}
    exported = other.export_all_rlhf_data()
    assert isinstance(exported, list)
    assert sorted(record["session_id"] for record in exported) == [f"s{i:02}" for i in range(30)]
    assert next(iter(other.iter_rlhf_data()))["feedback_summary"]["correct"] == 1
    other.close()


def test_sessions_above_the_limit_are_evicted_and_come_back_by_themselves(tmp_path: Path, clock: Clock) -> None:
    with SessionManager(tmp_path / "sessions", max_sessions=5, clock=clock) as manager:
        for i in range(10):
            manager.create_session(f"s{i}").add_message("user", f"text {i}")
            manager.save_session(f"s{i}")
        clock.forward(1)
        manager.cleanup_stale_sessions()
        evicted = archived_ids(manager)
        assert "s0" in evicted
        assert "s9" not in evicted
        assert len(evicted) >= 5
        assert {item["id"] for item in manager.list_sessions(limit=20)} == {f"s{i}" for i in range(10)}
        assert texts(manager.get_session("s0")) == ["text 0"]
        manager.add_feedback("s1", "n", "partial")
        assert manager.get_session("s1").interactions[0].feedback == "partial"  # type: ignore[union-attr]
        assert manager.get_or_create("s2").chat_history[0].content == "text 2"


def test_an_evicted_session_is_never_replaced_while_the_storage_is_away(tmp_path: Path, clock: Clock) -> None:
    with SessionManager(tmp_path / "sessions", max_sessions=1, clock=clock) as manager:
        for name in ("a", "b"):
            manager.create_session(name)
        clock.forward(1)
        manager.cleanup_stale_sessions()
        evicted = archived_ids(manager)[0]
        lake = tmp_path / "lake"
        lake.rename(tmp_path / "gone")
        lake.write_text("not a directory")
        for call in (manager.get_session, manager.get_or_create):
            with pytest.raises(StorageError):
                call(evicted)
        lake.unlink()
        (tmp_path / "gone").rename(lake)
        assert manager.get_session(evicted) is not None


def test_the_archived_record_is_lossless(manager: SessionManager, clock: Clock) -> None:
    session = manager.create_session("s", user_id="u")
    session.add_message("user", "nul \x00 and \u2028 and 😀")
    session.add_interaction("rank", "n", "text", None, {"deep": [1, {"x": None}]})
    session.graph_state = {"nodes": [{"id": "n", "content": "text"}]}
    session.metadata["tenant"] = {"plan": "pro"}
    manager.save_session("s")
    manager.update_language("s", "fr")
    expected = session.to_dict()
    clock.forward(25)
    manager.cleanup_stale_sessions()
    found = manager.peek("s")
    assert found is not None
    assert found.to_dict() == expected


def test_a_record_of_a_live_session_is_what_the_archive_would_hold(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s", user_id="u")
    manager.add_message("s", "user", "hello", client_id="m-1")
    manager.update_graph_state("s", {"nodes": [{"id": "n"}]})
    manager.add_feedback("s", "n", "correct")
    manager.update_graph_state("s", {"nodes": []})
    live = manager.peek_record("s")
    clock.forward(25)
    manager.cleanup_stale_sessions()
    archived = manager.peek_record("s")
    assert live is not None
    assert archived is not None
    assert (live.revision, archived.revision) == (1, 1)
    assert "graph_snapshot" in [i.action_type for i in live.interactions]
    assert json.loads(live.extra or "{}") == {"messages": {"0": {"id": "m-1"}}}
    assert content_sha256(live) == content_sha256(archived)
    manager.get_session("s", restore=True)
    assert manager.peek_record("s").revision == 1  # type: ignore[union-attr]
    manager.add_message("s", "user", "again")
    assert manager.peek_record("s").revision == 2  # type: ignore[union-attr]
    assert manager.peek_record("nobody") is None


def test_listing_a_store_of_thousands_reads_no_events(manager: SessionManager) -> None:
    with manager.hot.reader() as connection:
        plans = connection.execute(
            "EXPLAIN QUERY PLAN SELECT session_id FROM session WHERE state = 0 AND claimed = 0 AND minute >= 1 "
            "ORDER BY minute DESC LIMIT 20"
        ).fetchall()
    assert any("session_due" in plan[3] for plan in plans)


def test_an_export_round_trips_through_json(manager: SessionManager) -> None:
    manager.create_session("s").add_message("user", "hi")
    manager.save_session("s")
    assert json.loads(json.dumps(manager.export_all_rlhf_data()))[0]["chat_history"][0]["content"] == "hi"


def test_a_clock_set_back_by_an_hour_neither_expires_nor_reorders(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s")
    manager.add_message("s", "user", "before")
    clock.now_us -= HOUR_US
    manager.add_message("s", "assistant", "after")
    session = manager.get_session("s")
    assert texts(session) == ["before", "after"]
    first, second = (m.timestamp for m in session.chat_history)  # type: ignore[union-attr]
    assert first <= second
