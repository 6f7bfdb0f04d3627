"""Identity, time, endings, graphs over time, defaults: the rules of the live side beyond the promises."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from live_sessions import Clock, archived_ids, texts

import archiver
from archiver import SessionManager, get_session_manager
from archiver.errors import InputError, SessionConflictError, SettingsError, StorageError, UnknownSessionError
from archiver.events import parse_time, session_uid
from archiver.settings import load_settings


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(tmp_path: Path, clock: Clock) -> Iterator[SessionManager]:
    with SessionManager(tmp_path / "sessions", clock=clock) as made:
        yield made


def column(manager: SessionManager, query: str) -> list[object]:
    with manager.hot.reader() as connection:
        return [row[0] for row in connection.execute(query)]


# ------------------------------------------------------------------ identity


def test_the_uid_is_the_digest_of_id_and_created_at(manager: SessionManager) -> None:
    session = manager.create_session("s")
    created_us, _ = parse_time(session.created_at, field="created_at")
    assert column(manager, "SELECT session_uid FROM session") == [session_uid("s", created_us)]


def test_creating_on_a_live_id_closes_it_and_starts_strictly_later(tmp_path: Path) -> None:
    standing = lambda: 1_790_000_000_000_000  # noqa: E731  a clock that never moves
    with SessionManager(tmp_path / "s", clock=standing) as manager:
        old = manager.create_session("s")
        old.add_message("user", "unsaved")
        new = manager.create_session("s")
        assert new is not old
        assert new.created_at > old.created_at
        assert texts(manager.get_session("s")) == []
        assert column(manager, "SELECT n_messages FROM session WHERE state = 1 AND close_reason = 'closed'") == [1]


def test_the_user_comes_from_the_argument_else_from_metadata_and_stays(manager: SessionManager) -> None:
    manager.create_session("a", user_id="u1")
    manager.create_session("b").metadata["user_id"] = "u2"
    manager.save_session("b")
    assert column(manager, "SELECT user_id FROM session ORDER BY session_id") == ["u1", "u2"]
    assert manager.get_or_create("a", user_id="u1").user_id == "u1"
    with pytest.raises(InputError, match="belongs to user"):
        manager.get_or_create("a", user_id="someone else")
    with pytest.raises(InputError, match="belongs to user"):
        manager.update_metadata("b", user_id="someone else")
    assert [item["id"] for item in manager.list_sessions(user_id="u2")] == ["b"]


def test_feedback_of_named_actors_carries_who_and_on_what_level(manager: SessionManager) -> None:
    manager.create_session("s")
    manager.add_feedback("s", "n", "partial", context="c", actor="human:ann", level="answer", annotator="ann")
    (act,) = manager.get_session("s").interactions  # type: ignore[union-attr]
    assert act.metadata == {"context": "c", "actor": "human:ann", "level": "answer", "annotator": "ann"}


# ------------------------------------------------------------------ time


def test_zero_hours_expire_at_once_and_fractions_count(tmp_path: Path, clock: Clock) -> None:
    with SessionManager(tmp_path / "a", session_max_age_hours=0, clock=clock) as manager:
        manager.create_session("s")
        assert manager.get_session("s") is None
    with SessionManager(tmp_path / "b", session_max_age_hours=0.5, clock=clock) as manager:
        manager.create_session("s")
        clock.forward(0.4)
        assert manager.get_session("s") is not None
        clock.forward(0.2)
        assert manager.get_session("s") is None


def test_naive_times_are_read_in_the_configured_zone(tmp_path: Path) -> None:
    settings = load_settings(flags={"time.assume_tz": "America/New_York", "hot.path": tmp_path / "s"})
    with SessionManager.from_settings(settings) as manager:
        manager.create_session("s")
        manager.add_message("s", "user", "x", timestamp="2026-07-01T08:00:00")
        assert manager.messages("s")[0].timestamp == "2026-07-01T12:00:00.000000+00:00"


def test_saving_counts_as_activity(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s")
    clock.forward(23)
    manager.save_session("s")
    clock.forward(23)
    assert manager.get_session("s") is not None


# ------------------------------------------------------------------ endings


def test_an_expired_session_that_gets_feedback_lives_again(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s").add_message("user", "hi")
    manager.save_session("s")
    clock.forward(30)
    assert manager.get_session("s") is None
    manager.add_feedback("s", "n", "correct")
    assert texts(manager.get_session("s")) == ["hi"]


def test_feedback_for_an_archived_session_becomes_its_next_revision(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s").add_message("user", "hi")
    manager.save_session("s")
    clock.forward(30)
    manager.cleanup_stale_sessions()
    assert column(manager, "SELECT count(*) FROM session") == [0]
    manager.add_feedback("s", "n", "correct")
    assert texts(manager.get_session("s")) == ["hi"]
    clock.forward(30)
    manager.cleanup_stale_sessions()
    assert column(manager, "SELECT revision FROM archived ORDER BY 1") == [1, 2]


def test_a_closed_session_takes_no_more_feedback(manager: SessionManager) -> None:
    manager.create_session("s")
    manager.delete_session("s")
    for _ in range(2):
        with pytest.raises(UnknownSessionError):
            manager.add_feedback("s", "n", "correct")
        manager.cleanup_stale_sessions()
    assert archived_ids(manager) == ["s"]
    assert manager.get_session("s") is None


def test_get_or_create_on_an_expired_id_starts_a_new_conversation(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s").add_message("user", "old")
    manager.save_session("s")
    clock.forward(30)
    new = manager.get_or_create("s")
    assert texts(new) == []
    manager.cleanup_stale_sessions()
    assert archived_ids(manager) == ["s"]
    assert manager.get_session("s") is new


def test_delete_without_archive_removes_the_rows_and_says_what_remains(
    manager: SessionManager, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    manager.create_session("s").add_message("user", "hi")
    manager.save_session("s")
    clock.forward(30)
    manager.cleanup_stale_sessions()
    manager.add_message("s", "user", "again")
    manager.delete_session("s", archive=False)
    assert column(manager, "SELECT count(*) FROM event") == [0]
    assert "archived_revisions_remain" in caplog.messages
    assert manager.get_session("s") is None
    with pytest.raises(UnknownSessionError):
        manager.add_message("s", "user", "once more")
    manager.delete_session("never seen")


def test_continuing_what_another_host_continues_is_a_conflict(tmp_path: Path, clock: Clock) -> None:
    settings = {"storage.url": f"file:{tmp_path / 'lake'}"}
    hosts = [
        SessionManager(settings=load_settings(flags={**settings, "hot.path": tmp_path / name}), clock=clock)
        for name in ("host1", "host2")
    ]
    first, second = hosts
    first.create_session("s").add_message("user", "hi")
    first.save_session("s")
    clock.forward(30)
    first.cleanup_stale_sessions()
    for host in hosts:
        assert texts(host.get_session("s", restore=True)) == ["hi"]
    second.add_message("s", "user", "continued on host 2")
    with pytest.raises(SessionConflictError):
        first.add_message("s", "user", "continued on host 1 too")
    assert texts(second.get_session("s")) == ["hi", "continued on host 2"]
    for host in hosts:
        host.close()


def test_a_restored_session_nobody_continued_is_dropped_not_archived_again(
    manager: SessionManager, clock: Clock
) -> None:
    manager.create_session("s").add_message("user", "hi")
    manager.save_session("s")
    clock.forward(30)
    manager.cleanup_stale_sessions()
    assert manager.get_session("s", restore=True) is not None
    clock.forward(30)
    manager.cleanup_stale_sessions()
    assert column(manager, "SELECT count(*) FROM session") == [0]
    assert column(manager, "SELECT revision FROM archived") == [1]


# ------------------------------------------------------------------ claimed sessions


def claim_all(manager: SessionManager) -> None:
    """What a sweep in another process does first: every live session belongs to an unreleased segment now."""
    with manager.hot.transaction() as connection:
        connection.execute(
            "INSERT INTO claim(segment, session_uid, sid, revision, last_seq, reason) "
            "SELECT 1, session_uid, sid, 1, next_seq - 1, 'expired' FROM session"
        )
        connection.execute("UPDATE session SET claimed = 1")


FROZEN = "SELECT frozen, user_id, updated_us, tz_assumed, language, metadata, graph_state FROM claim"


@pytest.mark.parametrize("change", ["message", "language", "metadata", "graph", "new_graph", "user", "save"])
def test_the_first_write_to_a_claimed_session_keeps_the_claimed_values(manager: SessionManager, change: str) -> None:
    session = manager.create_session("s")
    session.metadata["k"] = "claimed"
    if change != "new_graph":
        session.graph_state = {"nodes": ["claimed"]}
    manager.save_session("s")
    values = "user_id, updated_us, tz_assumed, language, metadata"
    with manager.hot.reader() as connection:
        (before,) = connection.execute(f"SELECT {values} FROM session").fetchall()
        graph = connection.execute("SELECT state FROM graph_state").fetchone()
    claim_all(manager)
    for _ in range(2):
        {
            "message": lambda: manager.add_message("s", "user", "x", timestamp="2026-01-01T00:00:00"),
            "language": lambda: manager.update_language("s", "ja"),
            "metadata": lambda: manager.update_metadata("s", k="later"),
            "graph": lambda: manager.update_graph_state("s", {"nodes": ["later"]}),
            "new_graph": lambda: manager.update_graph_state("s", {"nodes": ["later"]}),
            "user": lambda: manager.get_or_create("s", user_id="u"),
            "save": lambda: manager.save_session("s"),
        }[change]()
    with manager.hot.reader() as connection:
        (claim,) = connection.execute(FROZEN).fetchall()
    assert claim == (1, *before, graph[0] if graph else None)


def test_claimed_messages_are_immutable_and_deletion_waits_for_the_release(manager: SessionManager) -> None:
    session = manager.create_session("s")
    session.add_message("user", "claimed")
    manager.save_session("s")
    claim_all(manager)
    session.add_message("user", "later")
    manager.save_session("s")
    session.chat_history[1].content = "later, edited"
    manager.save_session("s")
    session.chat_history[0].content = "edited"
    with pytest.raises(SessionConflictError, match="archived"):
        manager.save_session("s")
    manager.delete_session("s", archive=False)
    assert manager.get_session("s") is None
    assert column(manager, "SELECT drop_rows FROM claim") == [1]
    assert column(manager, "SELECT count(*) FROM event") == [2]


# ------------------------------------------------------------------ graphs over time


def snapshots(manager: SessionManager) -> list[str]:
    return [str(c) for c in column(manager, "SELECT content FROM event WHERE kind = 2 ORDER BY seq")]


def test_a_replaced_graph_is_kept_if_an_event_names_a_node_only_it_has(manager: SessionManager) -> None:
    first = {"nodes": [{"id": "a", "content": "x"}, {"id": "b", "content": "y"}]}
    manager.update_graph_state("s", first)
    manager.record_interaction("s", "prune", "a")
    manager.update_graph_state("s", {"nodes": [{"id": "a", "content": "x"}]})
    assert snapshots(manager) == []
    manager.update_graph_state("s", {"nodes": [{"id": "c", "content": "z"}]})
    assert [json.loads(s) for s in snapshots(manager)] == [{"nodes": [{"id": "a", "content": "x"}]}]
    assert [act.action_type for act in manager.get_session("s").interactions] == ["prune"]  # type: ignore[union-attr]
    assert manager.get_stats()["total_interactions"] == 1


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ({"nodes": [{"id": "a", "text": "x"}]}, {"nodes": [{"id": "a", "text": "other"}]}, True),
        ({"nodes": [{"id": "a", "text": "x", "score": 1}]}, {"nodes": [{"id": "a", "text": "x", "score": 2}]}, False),
        ({"a": {"content": "x"}}, {"a": {"content": "y"}}, True),
        ({"elements": {"nodes": [{"data": {"id": "a", "label": "x"}}]}}, {"elements": {"nodes": []}}, True),
        ({"nodes": [{"id": "a", "data": {"label": "x"}}]}, {"nodes": [{"id": "a", "data": {"label": "y"}}]}, True),
        ({"id": "root", "children": [{"id": "a", "content": "x"}]}, {"id": "root", "children": []}, True),
        ({"nodes": [{"id": "z", "content": "x"}]}, {"nodes": []}, False),
    ],
)
def test_graph_shapes_that_lose_a_named_node(manager: SessionManager, old: object, new: object, kept: bool) -> None:
    manager.update_graph_state("s", old)  # type: ignore[arg-type]
    manager.record_interaction("s", "feedback", "a", feedback="correct")
    manager.update_graph_state("s", new)  # type: ignore[arg-type]
    assert bool(snapshots(manager)) is kept


def test_the_snapshot_is_archived_at_its_place(manager: SessionManager, clock: Clock) -> None:
    manager.update_graph_state("s", {"nodes": [{"id": "a", "content": "x"}]})
    manager.record_interaction("s", "prune", "a")
    manager.update_graph_state("s", {"nodes": []})
    manager.record_interaction("s", "click")
    clock.forward(30)
    manager.cleanup_stale_sessions()
    record = manager._archive.find("s")
    assert record is not None
    assert [i.action_type for i in record.interactions] == ["prune", "graph_snapshot", "click"]


# ------------------------------------------------------------------ defaults meet


def test_without_arguments_the_manager_reads_the_command_s_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with SessionManager() as manager:
        assert manager.settings == load_settings()
        assert manager.sessions_dir == Path("data/sessions")
    monkeypatch.setenv("SESSIONLAKE_HOT__MAX_SESSIONS", "7")
    monkeypatch.setenv("SESSIONLAKE_HOT__PATH", str(tmp_path / "elsewhere"))
    with SessionManager() as manager:
        assert (manager.max_sessions, manager.sessions_dir) == (7, tmp_path / "elsewhere")
    with SessionManager(tmp_path / "a" / "sessions", 3, 0.5, durability="power") as manager:
        hot = manager.settings.hot
        assert (hot.max_sessions, hot.session_max_age_hours, hot.durability) == (3, 0.5, "power")
        assert manager.settings.storage.url == (tmp_path / "a" / "lake").as_uri()
    with SessionManager(tmp_path / "p%20q" / "sessions") as manager:
        assert manager.settings.storage.url.endswith("/p%2520q/lake")
    monkeypatch.setenv("SESSIONLAKE_STORAGE__URL", "s3://bucket/prefix")
    with SessionManager(tmp_path / "a" / "sessions") as manager:
        assert manager.settings.storage.url == "s3://bucket/prefix"
    with pytest.raises(SettingsError):
        SessionManager(tmp_path / "b", durability="strong")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="both"):
        SessionManager(tmp_path / "b", settings=load_settings())


def test_an_unknown_durability_of_a_call_is_refused_before_anything_is_written(manager: SessionManager) -> None:
    session = manager.create_session("s")
    for call in (manager.save_session, manager.get_or_create):
        with pytest.raises(InputError, match="durability"):
            call("s", durability="strong")  # type: ignore[call-arg]
    with pytest.raises(InputError, match="durability"):
        manager.add_message("s", "user", "x", durability="strong")  # type: ignore[arg-type]
    assert texts(session) == []


def test_the_shared_manager_is_one_for_all_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = get_session_manager()
    try:
        assert get_session_manager() is first
    finally:
        archiver.sessions.singleton._shared.clear()
        first.close()


def test_files_of_the_original_are_adopted_once_as_live_sessions(tmp_path: Path) -> None:
    directory = tmp_path / "sessions"
    directory.mkdir()
    written = {
        "session_id": "old", "created_at": "2026-05-01T10:00:00", "updated_at": "2026-05-01T11:00:00", "language": "en",
        "chat_history": [{"role": "user", "content": "hi", "timestamp": "2026-05-01T10:30:00", "language": "en"}],
        "interactions": [], "graph_state": None, "metadata": {"k": 1},
        "feedback_summary": {"correct": 0, "incorrect": 0, "partial": 0},
    }  # fmt: skip
    (directory / "old.json").write_text(json.dumps(written))
    clock = Clock(parse_time("2026-05-01T12:00:00", field="now")[0])
    with SessionManager(directory, clock=clock) as manager:
        session = manager.get_session("old")
        assert texts(session) == ["hi"]
        assert session.metadata == {"k": 1}  # type: ignore[union-attr]
        manager.add_message("old", "user", "more")
    with SessionManager(directory, clock=clock) as manager:
        assert texts(manager.get_session("old")) == ["hi", "more"]
        clock.forward(24)
        manager.cleanup_stale_sessions()
        assert archived_ids(manager) == ["old"]
    with SessionManager(directory, clock=clock) as manager:
        assert manager.get_session("old") is None
    assert (directory / "old.json").exists()


def test_unknown_fields_and_ids_of_adopted_messages_follow_them_through_a_regenerate(tmp_path: Path) -> None:
    directory = tmp_path / "sessions"
    directory.mkdir()
    turns = [{"role": "user", "content": str(i), "id": f"m{i}", "model": f"x{i}"} for i in range(4)]
    written = {"session_id": "old", "created_at": "2026-05-01T10:00:00+00:00", "chat_history": turns}
    (directory / "old.json").write_text(json.dumps(written))
    clock = Clock(parse_time("2026-05-01T11:00:00+00:00", field="now")[0])
    with SessionManager(directory, clock=clock) as manager:
        session = manager.get_session("old")
        assert session is not None
        session.chat_history.pop()
        session.add_message("assistant", "regenerated")
        manager.save_session("old")
        clock.forward(30)
        manager.cleanup_stale_sessions()
        record = manager._archive.find("old")
    assert record is not None
    assert [m.content for m in record.messages] == ["0", "1", "2", "regenerated"]
    fields = json.loads(record.extra or "{}")["messages"]
    assert fields == {str(i): {"id": f"m{i}", "model": f"x{i}"} for i in range(3)}


def test_files_are_private_and_nothing_but_the_store_is_made(manager: SessionManager) -> None:
    manager.create_session("s")
    directory = manager.sessions_dir
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    names = {path.name for path in directory.iterdir()}
    assert names == {"hot.db", "hot.db-wal", "hot.db-shm", "hot.lock"}
    assert {stat.S_IMODE((directory / name).stat().st_mode) for name in names} == {0o600}


def test_a_closed_manager_says_so(manager: SessionManager) -> None:
    manager.close()
    manager.close()
    with pytest.raises(StorageError, match="closed"):
        manager.get_session("s")
    with pytest.raises(StorageError, match="closed"):
        manager.add_message("s", "user", "x")


def test_a_program_that_ends_right_after_a_restore_ends_well(tmp_path: Path) -> None:
    script = f"""
from archiver import SessionManager
manager = SessionManager({str(tmp_path / "s")!r}, session_max_age_hours=0)
manager.create_session("s").add_message("user", "hello")
manager.save_session("s")
manager.cleanup_stale_sessions()
print(len(manager.get_session("s", restore=True).chat_history))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr
