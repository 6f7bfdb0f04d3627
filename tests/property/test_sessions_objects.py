"""Whatever is done to a live object, a save makes a fresh process see exactly the object."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from archiver import ChatMessage, Session, SessionManager, UserInteraction

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
INDEX = st.integers(0, 6)
TURN_STEPS = ["append", "insert", "edit", "replace", "pop", "delete", "swap", "reverse", "trim", "copy"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([*TURN_STEPS, "call", "save"]), INDEX, TEXT),
        st.tuples(st.sampled_from(["metadata", "act"]), TEXT, JSON),
        st.tuples(st.sampled_from(["act_edit", "graph"]), INDEX, JSON),
    ),
    max_size=25,
)


def apply(manager: SessionManager, session: Session, step: tuple[str, object, object]) -> None:
    """One change of the object, as an application might make it."""
    name, where, what = step
    if name in TURN_STEPS:
        change_turns(session, name, where if isinstance(where, int) else 0, str(what))
    elif name == "call":
        manager.add_message("s", "assistant", str(what))
    elif name == "metadata":
        session.metadata[str(where)] = what
    elif name == "act":
        session.add_interaction("note", node_id=str(where) or None, metadata={"value": what})
    elif name == "act_edit" and isinstance(where, int) and where < len(session.interactions):
        session.interactions[where].metadata["later"] = what
    elif name == "graph":
        session.graph_state = what if isinstance(what, dict) and what else None
    elif name == "save":
        manager.save_session("s")


def change_turns(session: Session, name: str, i: int, text: str) -> None:
    """One change of the list of messages or of a message."""
    turns = session.chat_history
    match name:
        case "append":
            session.add_message("user", text)
        case "insert":
            turns.insert(i, ChatMessage("system", text))
        case "edit" if i < len(turns):
            turns[i].content = (turns[i].content or "") + text
        case "replace" if i < len(turns):
            turns[i] = ChatMessage("tool", text)
        case "pop" if turns:
            turns.pop()
        case "delete" if i < len(turns):
            del turns[i]
        case "swap" if i < len(turns):
            turns[0], turns[i] = turns[i], turns[0]
        case "reverse":
            turns.reverse()
        case "trim":
            session.chat_history = turns[-i:]
        case "copy":
            session.chat_history = list(turns)


def visible(session: Session) -> dict[str, object]:
    """What has to be equal: everything but the time of the last save."""
    values = session.to_dict()
    del values["updated_at"]
    return values


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps=STEPS)
def test_a_fresh_process_sees_exactly_the_saved_object(steps: list[tuple[str, object, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory, SessionManager(Path(directory) / "s") as manager:
        manager.create_session("s")
        for step in steps:
            session = manager.get_session("s")
            assert session is not None
            apply(manager, session, step)
        session = manager.get_session("s")
        assert session is not None
        manager.save_session("s")
        with SessionManager(manager.sessions_dir) as other:
            stored = other.get_session("s")
            assert stored is not None
            assert visible(stored) == visible(session)
        with manager.hot.reader() as connection:
            counted = connection.execute(
                "SELECT n_messages, n_interactions, next_seq FROM session UNION ALL "
                "SELECT coalesce(sum(kind = 0), 0), coalesce(sum(kind = 1), 0), coalesce(max(seq), -1) + 1 FROM event"
            ).fetchall()
        assert counted[0][:2] == counted[1][:2]
        assert counted[0][2] >= counted[1][2]


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(st.tuples(st.booleans(), st.sampled_from(["object", "call", "save", "look"])), max_size=25))
def test_two_holders_that_only_append_always_merge(steps: list[tuple[bool, str]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "s"
        with SessionManager(path) as one, SessionManager(path) as two:
            one.create_session("s")
            sessions = {holder: holder.get_session("s") for holder in (one, two)}
            expected = []
            for number, (first, action) in enumerate(steps):
                holder = one if first else two
                session = sessions[holder]
                assert session is not None
                if action == "object":
                    session.chat_history.append(ChatMessage("user", f"m{number}"))
                    session.interactions.append(UserInteraction("2026-01-01T00:00:00+00:00", "note", f"n{number}"))
                    expected.append(f"m{number}")
                elif action == "call":
                    holder.add_message("s", "user", f"m{number}")
                    expected.append(f"m{number}")
                elif action == "save":
                    holder.save_session("s")
                else:
                    holder.get_session("s")
            for holder in (one, two):
                holder.save_session("s")
            seen = [[m.content for m in h.get_session("s").chat_history] for h in (one, two)]  # type: ignore[union-attr]
            assert sorted(seen[0]) == sorted(expected)
            assert seen[0] == seen[1]
            assert len(one.get_session("s").interactions) == sum(a == "object" for _, a in steps)  # type: ignore[union-attr]
