"""Session objects are live: programs written for the single-file module, word for word, and what merges."""

from __future__ import annotations

import copy
import gc
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_sessions import Clock, archived_texts, original_module, texts

import archiver
from archiver import ChatMessage, Session, SessionManager, UserInteraction
from archiver.errors import InputError, SessionConflictError, UnknownSessionError
from archiver.sessions.registry import CAPACITY


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def manager(tmp_path: Path, clock: Clock) -> Iterator[SessionManager]:
    with SessionManager(tmp_path / "sessions", clock=clock) as made:
        yield made


@pytest.fixture
def other(manager: SessionManager, clock: Clock) -> Iterator[SessionManager]:
    """Another process, as far as objects go: the same store, nothing shared in memory."""
    with SessionManager(manager.sessions_dir, clock=clock) as made:
        yield made


# ------------------------------------------------------------------ programs of the original, verbatim


def streaming(module: Any, manager: Any) -> None:
    session = manager.get_or_create("s")
    session.add_message("user", "tell me")
    session.add_message("assistant", "")
    for token in ("one ", "two ", "three"):
        session.chat_history[-1].content += token
        manager.save_session("s")


def regenerate(module: Any, manager: Any) -> None:
    session = manager.get_or_create("s")
    session.add_message("user", "question")
    session.add_message("assistant", "bad answer")
    manager.save_session("s")
    session.chat_history.pop()
    session.add_message("assistant", "good answer")
    manager.save_session("s")


def clear(module: Any, manager: Any) -> None:
    session = manager.get_or_create("s")
    session.add_message("user", "old")
    manager.save_session("s")
    session.chat_history = []
    session.interactions = []
    session.graph_state = None
    manager.save_session("s")
    session.add_message("user", "new")
    manager.save_session("s")


def dropped_reference(module: Any, manager: Any) -> None:
    manager.get_or_create("s").add_message("user", "first")
    manager.get_or_create("s").chat_history.append(module.ChatMessage("assistant", "second"))
    manager.get_or_create("s").metadata["topic"] = {"deep": [1]}
    manager.get_or_create("s").metadata["topic"]["deep"].append(2)
    gc.collect()
    manager.save_session("s")


def trimming(module: Any, manager: Any) -> None:
    session = manager.get_or_create("s")
    for i in range(10):
        session.add_message("user", f"m{i}")
    manager.save_session("s")
    session.chat_history = session.chat_history[-3:]
    manager.save_session("s")
    session.chat_history.insert(0, module.ChatMessage("system", "be brief"))
    session.chat_history[1], session.chat_history[2] = session.chat_history[2], session.chat_history[1]
    manager.save_session("s")


def callbacks(module: Any, manager: Any) -> None:
    manager.update_graph_state("s", {"nodes": [{"id": "a", "content": "x"}]})
    manager.record_interaction("s", "prune", node_id="a", content="why", metadata={"k": "v"})
    manager.add_feedback("s", "a", "incorrect", context="wrong")
    session = manager.get_session("s")
    session.interactions[0].metadata["later"] = True
    session.graph_state["nodes"].append({"id": "b", "content": "y"})
    session.language = "es"
    manager.save_session("s")


def from_dict_and_back(module: Any, manager: Any) -> None:
    session = module.Session.from_dict(manager.get_or_create("t").to_dict())
    session.add_message("user", "elsewhere")
    mine = manager.get_or_create("s")
    mine.chat_history.extend(session.chat_history)
    mine.interactions = [module.UserInteraction(timestamp="2026-01-01T00:00:00", action_type="click")]
    manager.save_session("s")


PROGRAMS = [streaming, regenerate, clear, dropped_reference, trimming, callbacks, from_dict_and_back]


def outcome(module: Any, program: Callable[[Any, Any], None], directory: Path) -> dict[str, Any]:
    """What a fresh process reads after the program."""
    program(module, module.SessionManager(directory))
    found = module.SessionManager(directory).get_session("s").to_dict()
    for name in ("created_at", "updated_at"):
        del found[name]
    for event in [*found["chat_history"], *found["interactions"]]:
        del event["timestamp"]
    return json.loads(json.dumps(found))  # type: ignore[no-any-return]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_of_the_original_ends_in_the_same_state(program: Callable[[Any, Any], None], tmp_path: Path) -> None:
    original = original_module()
    if original is None:
        pytest.skip("the original module is not at hand (../shared/original)")
    assert outcome(archiver, program, tmp_path / "ours") == outcome(original, program, tmp_path / "theirs")


# ------------------------------------------------------------------ what a save finds


def test_the_same_object_is_handed_to_all_threads(manager: SessionManager) -> None:
    manager.create_session("s")
    seen: list[Session | None] = []
    threads = [threading.Thread(target=lambda: seen.append(manager.get_session("s"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({id(session) for session in seen}) == 1


def test_every_call_stores_pending_changes_first_and_in_order(manager: SessionManager, other: SessionManager) -> None:
    session = manager.create_session("s")
    session.add_message("user", "1")
    manager.add_message("s", "user", "2")
    session.add_message("user", "3")
    manager.record_interaction("s", "click")
    session.add_message("user", "4")
    manager.update_language("s", "de")
    session.add_message("user", "5")
    manager.update_metadata("s", {"k": 1})
    session.add_message("user", "6")
    manager.update_graph_state("s", {"nodes": []})
    assert texts(other.get_session("s")) == ["1", "2", "3", "4", "5", "6"]
    assert texts(session) == ["1", "2", "3", "4", "5", "6"]


def test_nothing_changed_means_no_event_and_no_column_is_written(
    manager: SessionManager, other: SessionManager
) -> None:
    session = manager.create_session("s")
    session.add_message("user", "hi")
    session.metadata["a"] = 1
    manager.save_session("s")
    other.update_metadata("s", {"b": 2})
    other.update_language("s", "pt")
    manager.save_session("s")
    assert session.metadata == {"a": 1, "b": 2}
    assert session.language == "pt"
    assert other.get_session("s").to_dict()["metadata"] == {"a": 1, "b": 2}  # type: ignore[union-attr]


def test_appends_of_two_holders_merge_in_commit_order(manager: SessionManager, other: SessionManager) -> None:
    mine = manager.create_session("s")
    theirs = other.get_session("s")
    assert theirs is not None
    mine.add_message("user", "mine, unsaved")
    theirs.add_message("user", "theirs, first")
    other.save_session("s")
    manager.save_session("s")
    assert texts(mine) == ["theirs, first", "mine, unsaved"]
    assert texts(other.get_session("s")) == texts(mine)


def test_metadata_merges_by_key_and_other_fields_take_the_last_commit(
    manager: SessionManager, other: SessionManager
) -> None:
    mine = manager.create_session("s")
    mine.metadata.update(shared=0, gone=1)
    manager.save_session("s")
    theirs = other.get_session("s")
    assert theirs is not None
    mine.metadata["mine"] = 1
    theirs.metadata["theirs"] = 2
    theirs.metadata["shared"] = "theirs"
    del theirs.metadata["gone"]
    theirs.language, mine.language = "it", "fr"
    other.save_session("s")
    manager.save_session("s")
    assert mine.metadata == {"shared": "theirs", "mine": 1, "theirs": 2}
    assert other.get_session("s").language == "fr"  # type: ignore[union-attr]


def test_an_edit_is_a_conflict_only_if_another_holder_committed(manager: SessionManager, other: SessionManager) -> None:
    mine = manager.create_session("s")
    mine.add_message("user", "hello")
    manager.save_session("s")
    mine.chat_history[0].content = "edited"
    other.add_message("s", "user", "meanwhile")
    with pytest.raises(SessionConflictError):
        manager.save_session("s")
    with pytest.raises(SessionConflictError):
        manager.save_session("s")
    assert texts(other.get_session("s")) == ["hello", "meanwhile"]
    mine.chat_history[0].content = "hello"
    manager.save_session("s")
    assert texts(mine) == ["hello", "meanwhile"]


def test_editing_an_archived_message_is_a_conflict(manager: SessionManager, clock: Clock) -> None:
    manager.create_session("s").add_message("user", "archived")
    manager.save_session("s")
    clock.forward(25)
    manager.cleanup_stale_sessions()
    session = manager.get_session("s", restore=True)
    assert session is not None
    session.chat_history[0].content = "rewritten"
    with pytest.raises(SessionConflictError, match="archived"):
        manager.save_session("s")
    session.chat_history[0].content = "archived"
    session.add_message("user", "new")
    manager.save_session("s")
    session.chat_history[1].content = "new, edited"
    manager.save_session("s")
    assert texts(manager.peek("s")) == ["archived", "new, edited"]


def test_an_object_that_outlived_its_archiving_becomes_the_next_revision(manager: SessionManager, clock: Clock) -> None:
    session = manager.create_session("s")
    session.add_message("user", "one")
    manager.save_session("s")
    clock.forward(25)
    manager.cleanup_stale_sessions()
    session.add_message("user", "two")
    manager.save_session("s")
    assert texts(manager.get_session("s")) == ["one", "two"]
    clock.forward(25)
    manager.cleanup_stale_sessions()
    assert archived_texts(manager) == [["one"], ["one", "two"]]


def test_an_object_whose_conversation_ended_does_not_write_into_the_next_one(
    manager: SessionManager, other: SessionManager
) -> None:
    mine = manager.create_session("s")
    other.create_session("s")
    mine.add_message("user", "late")
    with pytest.raises(SessionConflictError):
        manager.save_session("s")
    assert texts(other.get_session("s")) == []


def test_unsaved_changes_of_an_expired_object_are_archived_with_it(manager: SessionManager, clock: Clock) -> None:
    session = manager.create_session("s")
    session.add_message("user", "unsaved")
    clock.forward(25)
    fresh = manager.get_or_create("s")
    assert fresh is not session
    assert texts(fresh) == []
    manager.cleanup_stale_sessions()
    manager.delete_session("s", archive=False)
    assert archived_texts(manager) == [["unsaved"]]


def test_a_failed_save_keeps_every_pending_change(manager: SessionManager, other: SessionManager) -> None:
    session = manager.create_session("s")
    session.add_message("user", "stored")
    manager.save_session("s")
    session.chat_history[0].content = "edited"
    session.add_message("user", "\ud800 cut inside an emoji")
    with pytest.raises(InputError, match="surrogate"):
        manager.save_session("s")
    session.chat_history[1].content = "whole"
    manager.save_session("s")
    assert texts(other.get_session("s")) == ["edited", "whole"]


def test_refreshing_reads_only_what_the_object_lacks(manager: SessionManager, other: SessionManager) -> None:
    session = manager.create_session("s")
    for i in range(50):
        session.add_message("user", f"m{i}")
    manager.save_session("s")
    first = session.chat_history[0]
    other.add_message("s", "user", "theirs")
    read: list[str] = []
    with manager.hot.reader() as connection:
        connection.set_trace_callback(read.append)
    assert texts(manager.get_session("s"))[-1] == "theirs"
    with manager.hot.reader() as connection:
        connection.set_trace_callback(None)
    assert [s for s in read if "FROM event" in s and "seq >= 50" in s]
    assert session.chat_history[0] is first


def test_objects_beyond_the_capacity_go_but_never_held_or_changed_ones(manager: SessionManager) -> None:
    held = manager.create_session("held")
    manager.create_session("changed").metadata["unsaved"] = True
    for i in range(CAPACITY + 20):
        manager.create_session(f"s{i}", durability="process")
    assert len(manager._keeper._objects._objects) <= CAPACITY + 2
    assert manager.get_session("held") is held
    manager.save_session("changed")
    assert manager.peek("changed").metadata == {"unsaved": True}  # type: ignore[union-attr]


def test_identity_cannot_be_changed_and_saving_the_unknown_is_an_error(manager: SessionManager) -> None:
    session = manager.create_session("s")
    session.created_at = "2020-01-01T00:00:00+00:00"
    with pytest.raises(InputError, match="identity"):
        manager.save_session("s")
    with pytest.raises(UnknownSessionError):
        manager.save_session("nobody")


def test_copies_and_pickles_of_live_objects_are_plain_values(manager: SessionManager) -> None:
    session = manager.create_session("s")
    manager.add_message("s", "user", "hi")
    manager.record_interaction("s", "click", metadata={"a": [1]})
    manager.update_graph_state("s", {"nodes": []})
    for clone in (copy.deepcopy(session), pickle.loads(pickle.dumps(session)), copy.copy(session)):
        assert clone.to_dict() == session.to_dict()
        assert clone == session
    clone = copy.deepcopy(session)
    clone.chat_history.pop()
    clone.interactions[0].metadata["a"].append(2)
    manager.save_session("s")
    assert texts(session) == ["hi"]
    assert session.interactions[0].metadata == {"a": [1]}


def test_a_retried_call_with_its_client_id_adds_nothing(
    manager: SessionManager, other: SessionManager, clock: Clock
) -> None:
    session = manager.create_session("s")
    for owner in (manager, manager, other):
        owner.add_message("s", "user", "once", client_id="c-1")
    manager.add_message("s", "user", "twice", client_id="c-2")
    assert texts(manager.get_session("s")) == texts(session) == ["once", "twice"]
    clock.forward(25)
    manager.cleanup_stale_sessions()
    manager.add_message("s", "user", "once", client_id="c-1")
    assert texts(manager.get_session("s")) == ["once", "twice"]


def test_messages_reads_a_page_of_a_long_history(manager: SessionManager) -> None:
    manager.create_session("s")
    for i in range(20):
        manager.add_message("s", "user", f"m{i}")
        manager.record_interaction("s", "click", durability="process")
    contents = lambda page: [m.content for m in page]  # noqa: E731
    assert contents(manager.messages("s", last=3)) == ["m17", "m18", "m19"]
    assert contents(manager.messages("s", after=16)) == ["m17", "m18", "m19"]
    assert contents(manager.messages("s", after=16, last=2)) == ["m18", "m19"]
    assert contents(manager.messages("s", after=19)) == []
    assert len(manager.messages("s")) == 20
    with pytest.raises(UnknownSessionError):
        manager.messages("nobody")


@pytest.mark.parametrize("content", ["nul \x00 in", "line\u2028separator", "😀🏳️‍🌈", "", "x" * 1_000_000, None])
def test_any_text_round_trips(manager: SessionManager, other: SessionManager, content: str | None) -> None:
    session = manager.create_session("s")
    manager.add_message("s", "user", content)
    session.chat_history.append(ChatMessage("tool", content))
    manager.save_session("s")
    assert texts(other.get_session("s")) == [content, content]


def test_events_of_another_type_are_refused(manager: SessionManager) -> None:
    session = manager.create_session("s")
    session.chat_history.append({"role": "user", "content": "a dict"})  # type: ignore[arg-type]
    with pytest.raises(InputError, match="ChatMessage"):
        manager.save_session("s")
    session.chat_history.clear()
    session.interactions.append(UserInteraction("not a time", "click"))
    with pytest.raises(InputError, match="timestamp"):
        manager.save_session("s")


def test_many_threads_on_one_object_lose_nothing(manager: SessionManager, other: SessionManager) -> None:
    session = manager.create_session("s")

    def work(name: int) -> None:
        for i in range(25):
            if i % 2:
                session.add_message("user", f"{name}:{i}")
                manager.save_session("s")
            else:
                manager.add_message("s", "user", f"{name}:{i}")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = sorted(f"{n}:{i}" for n in range(6) for i in range(25))
    assert sorted(texts(session)) == expected
    assert texts(other.get_session("s")) == texts(session)
