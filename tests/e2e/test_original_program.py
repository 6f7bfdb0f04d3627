"""A program written for the single-file session manager: one import line changed, everything else as it was."""

import json
import subprocess
import sys
import textwrap

PROGRAM = textwrap.dedent(
    """
    import json, sys
    from archiver import SessionManager, generate_session_id   # was: from session_manager import …

    manager = SessionManager(sessions_dir=sys.argv[1], max_sessions=100, session_max_age_hours=24)
    step = sys.argv[2]
    if step == "write":
        session = manager.get_or_create("chat-1")
        session.add_message("user", "What is 6*7?", language="en")
        session.add_message("assistant", "It is 42.")
        session.metadata["user_id"] = "ada"
        manager.save_session("chat-1")
        manager.update_graph_state("chat-1", {"nodes": {"q": {"content": "What is 6*7?"},
            "a": {"content": "It is 42.", "parent": "q"}, "b": {"content": "It is 36.", "parent": "q"}}})
        manager.update_language("chat-1", "de")
        manager.record_interaction("chat-1", "click", node_id="a")
        manager.record_interaction("chat-1", "prune", node_id="b", metadata={"over": "a"})
        manager.add_feedback("chat-1", "a", "correct", context="checked")
        assert len(generate_session_id()) >= 12
    session = manager.get_session("chat-1")
    print(json.dumps({
        "session": session.to_dict(), "title": session.get_title(), "list": manager.list_sessions(limit=5),
        "stats": manager.get_stats(), "rlhf": manager.export_all_rlhf_data(), "one": session.export_rlhf_data(),
    }))
    """
)


def run(directory, step):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(directory), step], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_runs_and_its_session_survives_a_restart(tmp_path):
    wrote, read = run(tmp_path / "sessions", "write"), run(tmp_path / "sessions", "read")
    session = read["session"]
    assert [m["content"] for m in session["chat_history"]] == ["What is 6*7?", "It is 42."]
    assert [i["action_type"] for i in session["interactions"]] == ["click", "prune", "feedback"]
    assert session["interactions"][2]["metadata"]["context"] == "checked"
    assert session["language"] == "de"
    assert session["graph_state"]["nodes"]["b"]["content"] == "It is 36."
    assert session["feedback_summary"] == {"correct": 1, "incorrect": 0, "partial": 0}
    assert read["title"] == "What is 6*7?"
    assert [s["id"] for s in read["list"]] == ["chat-1"]
    assert read["stats"]["total_feedback"] == 1
    assert read["stats"]["active_sessions"] == 1
    assert read["rlhf"] == [read["one"]] == wrote["rlhf"]


def test_its_expired_sessions_reach_the_tables(tmp_path, sessionlake):
    run(tmp_path / "sessions", "write")
    where = ["--hot", str(tmp_path / "sessions"), "--storage", f"file:{tmp_path}/lake"]
    sessionlake("sweep", *where, SESSIONLAKE_HOT__SESSION_MAX_AGE_HOURS="0")
    sessionlake("compact", *where[2:])
    rows = sessionlake.json("query", "select session_id, user_id, language, n_messages from sessions", *where[2:])
    assert rows["rows"] == [{"session_id": "chat-1", "user_id": "ada", "language": "de", "n_messages": 2}]
    assert sessionlake.json("sessions", "list", *where)["sessions"] == []
